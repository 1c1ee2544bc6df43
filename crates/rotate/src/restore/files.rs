//! Application files and compose files, from the backup to where they were saved from.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyroll_backup::{
    BackupError, BackupWriter, Change, Member, Place, Planned, plan_restore, restore_files, space,
};
use keyroll_secret::{Identity, Recipients};

use super::intent::{FILES, Part};
use super::{Bench, FileChange, FilesRestored, Origin};
use crate::blocking::here;
use crate::error::{Code, Refusal, RotateError};
use crate::profile::Profile;

/// The archive of env and compose files; its members are relative to `/`.
const STACK: &str = "stack";
/// The archive of the profile's globs; its members are relative to the root.
const APPLICATION: &str = "application";

/// What restoring them would change.
#[derive(Debug)]
pub(super) struct Files {
    planned: Vec<Planned>,
}

/// Compose files, and no env file: its old values must not come back into force.
fn of_stack(from: &Origin) -> impl Fn(&Member) -> bool + '_ {
    |member| {
        let path = Path::new("/").join(&member.path);
        let files = &from.about.project.config_files;
        files.iter().any(|file| real(file) == path) && !is_env_file(from, &path)
    }
}

/// Everything that the globs matched, but env files.
fn of_application(from: &Origin) -> impl Fn(&Member) -> bool + '_ {
    |member| !is_env_file(from, &from.about.profile.root.join(&member.path))
}

fn is_env_file(from: &Origin, path: &Path) -> bool {
    let profile = &from.about.profile;
    let own = [&from.about.env_file.path];
    let named = &from.about.project.env_files;
    let mut all = own
        .into_iter()
        .chain(named)
        .chain(&profile.compose.env_files);
    all.any(|file| file == path || real(file) == real(path))
}

/// The path as the backup stores it: links among its directories resolved, the file itself need not be there.
fn real(path: &Path) -> PathBuf {
    let directory = path.parent().and_then(|p| p.canonicalize().ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

pub(super) fn look(
    profile: &Profile,
    from: &Origin,
    identity: &Identity,
) -> Result<Files, RotateError> {
    let refuse = |e: &BackupError| -> RotateError {
        Refusal::new(
            Code::Backup,
            e.to_string(),
            "make the destination as it was, or open the backup by hand (docs/guides/restore.md)",
        )
        .into()
    };
    let directory = from.directory();
    let place = Place::Original;
    let (application, stack) = here(|| {
        (
            plan_restore(
                directory,
                identity,
                APPLICATION,
                &place,
                of_application(from),
            ),
            plan_restore(directory, identity, STACK, &place, of_stack(from)),
        )
    });
    let mut planned = application.map_err(|e| refuse(&e))?;
    // A compose file is in both archives when a glob matches it too.
    for line in stack.map_err(|e| refuse(&e))? {
        if planned.iter().all(|p| p.destination != line.destination) {
            planned.push(line);
        }
    }
    let blocked: Vec<Refusal> = planned
        .iter()
        .filter_map(|line| match &line.change {
            Change::Blocked(why) => Some(Refusal::new(
                Code::Backup,
                format!("{}: {why}", line.destination.display()),
                "make the destination as it was, then try again",
            )),
            _ => None,
        })
        .collect();
    if !blocked.is_empty() {
        return Err(RotateError::Refused(blocked));
    }
    let files = Files { planned };
    room(profile, &files)?;
    Ok(files)
}

/// Room for the copy of what is replaced, and for the files themselves beside it.
fn room(profile: &Profile, files: &Files) -> Result<(), RotateError> {
    let refuse = |what: String| -> RotateError {
        Refusal::new(Code::Space, what, "make room, then try again").into()
    };
    let backups = &profile.paths.backups;
    let measured = space::of_files(&files.replaced())
        .and_then(|bytes| Ok((space::needed(bytes, 0), space::available(backups)?)));
    let (needed, free) = measured.map_err(|e| refuse(e.to_string()))?;
    if needed > free {
        return Err(refuse(format!(
            "{}: a copy of what is replaced may take {} MiB, {} MiB are free",
            backups.display(),
            needed.div_ceil(1 << 20),
            free >> 20
        )));
    }
    Ok(())
}

impl Files {
    pub(super) fn changes(&self) -> Vec<FileChange> {
        let named = |line: &Planned| {
            let change = match line.change {
                Change::Create => "create",
                Change::Replace => "replace",
                Change::Adjust => "adjust",
                _ => return None,
            };
            Some(FileChange {
                path: line.destination.clone(),
                change: change.to_owned(),
            })
        };
        self.planned.iter().filter_map(named).collect()
    }

    /// What is there now and would not be afterwards.
    fn replaced(&self) -> Vec<PathBuf> {
        let lost = |line: &&Planned| matches!(line.change, Change::Replace | Change::Adjust);
        self.planned
            .iter()
            .filter(lost)
            .map(|line| line.destination.clone())
            .collect()
    }

    /// Saves what is replaced, then restores. May run again.
    pub(super) fn restore(
        &self,
        profile: &Profile,
        bench: &Bench<'_>,
        part: &mut Part,
    ) -> Result<FilesRestored, RotateError> {
        let (from, identity) = (bench.from, bench.identity);
        let untouched = |why: String| {
            if !part.again {
                let _ = bench.writer.drop_restore(FILES);
            }
            RotateError::Failed(format!(
                "what would be replaced could not be saved, so this run changed nothing: {why}"
            ))
        };
        let replaced = self.replaced();
        let saved = if replaced.is_empty() {
            None
        } else {
            let saved = here(|| save(profile, identity, &replaced));
            Some(saved.map_err(|e| untouched(e.to_string()))?)
        };
        if let Some(saved) = &saved {
            // A run that goes on with this one finds nothing to replace any more, and must still know.
            let mut known = part.intent.clone();
            known.saved.push(saved.clone());
            let open = part.open_with(&known);
            let written = bench.writer.begin_restore(&[open]);
            written.map_err(|e| untouched(e.to_string()))?;
            part.intent = known;
        }
        let failed = |e: &BackupError| {
            RotateError::Failed(format!(
                "files could not be put back: {e}{}; mend that, then run `{}` again",
                self::saved(&part.intent.saved),
                super::command(&[part.open()])
            ))
        };
        bench.fence()?;
        let directory = from.directory();
        let place = Place::Original;
        let (application, stack) = here(|| {
            let application = restore_files(
                directory,
                identity,
                APPLICATION,
                &place,
                of_application(from),
            )?;
            let stack = restore_files(directory, identity, STACK, &place, of_stack(from))?;
            Ok((application, stack))
        })
        .map_err(|e| failed(&e))?;
        let mut written = application.written;
        let mut same = application.same;
        for path in stack.written {
            if !written.contains(&path) {
                written.push(path);
            }
        }
        same.extend(stack.same);
        same.sort();
        same.dedup();
        same.retain(|path| !written.contains(path));
        Ok(FilesRestored {
            written,
            same: same.len(),
            replaced_saved_to: saved,
        })
    }
}

fn save(
    profile: &Profile,
    identity: &Identity,
    files: &[PathBuf],
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let own = profile.backup.recipients.iter().map(String::as_str);
    let recipients = Recipients::new(identity, own)?;
    let writer = BackupWriter::create(&profile.paths.backups, Timestamp::now(), recipients)?;
    writer.add_files("replaced", files)?;
    Ok(writer.finish()?.directory)
}

/// Where what was replaced is, as part of a sentence.
pub(super) fn saved(directories: &[PathBuf]) -> String {
    if directories.is_empty() {
        return String::new();
    }
    let all: Vec<_> = directories
        .iter()
        .map(|d| d.display().to_string())
        .collect();
    format!("; what they replaced is in {}", all.join(", "))
}

impl FilesRestored {
    /// `directories` are those of this run and of any that it goes on with.
    pub(super) fn says(&self, directories: &[PathBuf]) -> String {
        format!(
            "{} files put back, {} were as saved already{}; env files left as they are",
            self.written.len(),
            self.same,
            saved(directories)
        )
    }
}
