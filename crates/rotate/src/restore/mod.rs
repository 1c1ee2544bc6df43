//! Bringing back what a rotation's backup holds: application files, or the database.
//!
//! A rotation goes back by itself when it fails, and a completed one is taken back by a new rotation. This is neither: it is for
//! the day on which files or data are damaged, and it throws away what was written since the backup. So it happens only when
//! the operator asks for it by name, after the whole backup was read and shown to be the one that was made, and after a plan
//! was shown. Whatever it replaces is kept.
//!
//! Secrets do not come back with it. The values in force stay in force: the env file is left as it is, and a restored database is
//! fitted to it before anybody sees it (the admin's hash, the sessions; a role's password belongs to the server, not to a database).

mod beside;
mod database;
mod files;
mod intent;
mod look;
mod report;
mod server;
mod statements;

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{Body, Restored, system_journal};
use keyroll_journal::{Ending, Event, Journal, OpenRestore, RotationId, Writer};
use keyroll_secret::Identity;

pub(crate) use intent::{command, refusal, unfinished};
pub use report::{
    DatabasePlan, DatabaseRestored, FileChange, FilesRestored, RestorePlan, RestoreReport,
    RestoreWhat,
};

use crate::about::About;
use crate::ending;
use crate::error::{self, Code, Refusal, RotateError};
use crate::operations::{Control, Keyroll};
use crate::report::Progress;
use crate::trail;
use database::Database;
use intent::{DATABASE, FILES, Intent, Part};

/// The backup that is restored from.
#[derive(Debug)]
struct Origin {
    rotation: RotationId,
    begun_at: Timestamp,
    about: About,
    /// It is stuck, and `resume` still has to finish it.
    stuck: bool,
    backup: keyroll_audit::Backup,
}

impl Origin {
    fn directory(&self) -> &Path {
        Path::new(&self.backup.directory)
    }
}

/// What was looked at, and what is to be done with it.
struct Work {
    files: Option<(files::Files, Part)>,
    database: Option<(Database, Part)>,
}

impl Keyroll {
    /// Brings files, the database, or both back from a rotation's backup.
    ///
    /// Reads the whole backup first, then asks `approve`. Refused while a rotation is unfinished, but for the stuck one that is named:
    /// that may be what gets it going again. Called again after a crash it looks how far the killed run came, and goes on. The
    /// lock is held until it ends.
    pub async fn restore(
        &self,
        rotation: &RotationId,
        what: RestoreWhat,
        progress: &dyn Progress,
        approve: &(dyn Fn(&RestorePlan) -> bool + Sync),
        control: &Control,
    ) -> Result<RestoreReport, RotateError> {
        let (journal, lock) = self.open()?;
        let identity = self.identity()?;
        let from = find(&journal, rotation)?;
        let open = journal.restores()?;
        intent::admit(&open, rotation, what)?;
        // From here on the killed run can write nothing any more, and what it left is ended.
        let mut writer = journal.take_over(&lock)?;
        control.arm(&mut writer);
        let work = self
            .look_for(&writer, &from, &open, what, &identity, progress)
            .await?;
        let plan = work.plan(&from, what);
        progress.looked();
        if !approve(&plan) {
            return Err(RotateError::NotConfirmed);
        }
        let begun = std::time::Instant::now();
        ending::settle(&writer)?;
        self.begin(&writer, &from, &open, &work)?;
        let bench = Bench {
            from: &from,
            writer: &writer,
            identity: &identity,
            progress,
            control,
        };
        let mut report = self.put_back(&bench, work).await?;
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Looks at everything. What a killed run of the same restore left is ended, and its services run again, before anything
    /// else is asked.
    async fn look_for(
        &self,
        writer: &Writer,
        from: &Origin,
        open: &[OpenRestore],
        what: RestoreWhat,
        identity: &Identity,
        progress: &dyn Progress,
    ) -> Result<Work, RotateError> {
        let mut database = None;
        if let Some(part) = open.iter().find(|o| o.part == DATABASE) {
            let part = Part::go_on(DATABASE, part)?;
            database = look::again(self, writer, from, part, identity.clone(), progress).await?;
        }
        if what.files || database.is_none() {
            progress.looking("the backup, in full");
            prove(from, identity).await?;
        }
        let fresh = Intent {
            by: self.operator.clone(),
            backup: from.backup.clone(),
            saved: vec![],
            swap: None,
        };
        let mut files = None;
        if what.files {
            progress.looking("the files");
            let mut same = open.iter();
            let same = same.find(|o| o.part == FILES && o.rotation == from.rotation);
            let part = match same {
                Some(part) => Part::go_on(FILES, part)?,
                None => Part::begin(FILES, from, fresh.clone()),
            };
            files = Some((files::look(&self.profile, from, identity)?, part));
        }
        if what.database && database.is_none() {
            let found = look::database(self, writer, from, identity.clone(), progress).await?;
            let swap = Some(found.swap());
            database = Some((found, Part::begin(DATABASE, from, Intent { swap, ..fresh })));
        }
        Ok(Work { files, database })
    }

    /// Commits the intent. Files that are put back from another backup instead of an interrupted one end that one.
    fn begin(
        &self,
        writer: &Writer,
        from: &Origin,
        open: &[OpenRestore],
        work: &Work,
    ) -> Result<(), RotateError> {
        let mut other = open.iter();
        if let Some(other) = other.find(|o| o.rotation != from.rotation) {
            let part = Part::go_on(FILES, other)?;
            let says = format!(
                "interrupted; some files may have been put back{}; given up for those of {}",
                files::saved(&part.intent.saved),
                from.rotation
            );
            self.record(writer, &part, says)?;
        }
        let files = work.files.iter().map(|(_, part)| part.open());
        let database = work.database.iter().map(|(_, part)| part.open());
        let parts: Vec<OpenRestore> = files.chain(database).collect();
        Ok(writer.begin_restore(&parts)?)
    }

    async fn put_back(&self, bench: &Bench<'_>, work: Work) -> Result<RestoreReport, RotateError> {
        let mut report = RestoreReport {
            rotation: bench.from.rotation.clone(),
            backup: bench.from.directory().to_owned(),
            files: None,
            database: None,
            well: true,
            seen: vec![],
            found: vec![],
            seconds: 0.0,
        };
        if let Some((files, mut part)) = work.files {
            let doing = "saving what will be replaced, then putting the files back";
            bench.progress.doing(doing);
            let restored = files.restore(&self.profile, bench, &mut part);
            if restored.is_err() && work.database.as_ref().is_some_and(|(_, part)| !part.again) {
                // That part has not been touched.
                let _ = bench.writer.drop_restore(DATABASE);
            }
            let restored = restored?;
            let says = restored.says(&part.intent.saved);
            self.record(bench.writer, &part, says.clone())?;
            report.seen.push(says);
            report.files = Some(restored);
        }
        if let Some((database, part)) = work.database {
            let done = if part.again {
                database.finish(bench, &part).await?
            } else {
                database.restore(bench, &part).await?
            };
            self.record(bench.writer, &part, done.says())?;
            report.seen.extend(done.seen);
            report.found.extend(done.found);
            report.database = Some(done.restored);
        }
        report.well = report.found.is_empty();
        Ok(report)
    }

    /// Writes it into the trail, and closes it in the same commit. What cannot be recorded is an error, after everything was
    /// done, and stays open.
    fn record(&self, writer: &Writer, part: &Part, evidence: String) -> Result<(), RotateError> {
        let body = Body::Restore(Restored {
            rotation: part.rotation.to_string(),
            backup: part.intent.backup.clone(),
            what: part.name.to_owned(),
            operator: (&self.operator).into(),
            begun: part.begun(),
            evidence,
        });
        let socket = Path::new(system_journal::SOCKET);
        match trail::append_restore(writer, part.name, body, socket, Timestamp::now()) {
            Ok(_) => Ok(()),
            Err(why) => Err(RotateError::Failed(format!(
                "the {} were brought back from {}, but the trail could not be written: {why}; mend that, then run `{}` again, which checks and records it",
                part.name,
                part.intent.backup.directory,
                command(&[part.open()])
            ))),
        }
    }
}

impl Work {
    fn plan(&self, from: &Origin, what: RestoreWhat) -> RestorePlan {
        let files = self.files.iter();
        let database = self.database.as_ref();
        RestorePlan {
            rotation: from.rotation.clone(),
            begun_at: from.begun_at,
            backup: from.directory().to_owned(),
            files: files.flat_map(|(files, _)| files.changes()).collect(),
            database: database.map(|(database, part)| database.plan(part.again)),
            notes: notes(from, what),
        }
    }
}

/// What both parts are carried out with.
struct Bench<'a> {
    from: &'a Origin,
    writer: &'a Writer,
    identity: &'a Identity,
    progress: &'a dyn Progress,
    control: &'a Control,
}

impl Bench<'_> {
    /// Asked right before an effect.
    fn fence(&self) -> Result<(), RotateError> {
        self.writer.fence().map_err(|e| {
            RotateError::Failed(format!(
                "the restore stopped before its next change: {e}; `keyroll status` says what is unfinished"
            ))
        })
    }
}

/// The rotation and its backup, if it may be restored from.
fn find(journal: &Journal, id: &RotationId) -> Result<Origin, RotateError> {
    let rotation = journal.rotation(id)?;
    let records = journal.records(id)?;
    let stuck = rotation.ending.is_none()
        && matches!(
            records.last().map(|r| &r.event),
            Some(Event::Ended {
                ending: Ending::Stuck,
                ..
            })
        );
    if let Some(other) = journal.unfinished()?
        && !(stuck && other.id == *id)
    {
        return Err(error::unfinished(other.id.as_str()).into());
    }
    let backup = trail::backup_of(&records).ok_or_else(|| {
        Refusal::new(
            Code::Backup,
            format!("rotation {id} ended before it had a backup"),
            "name another one: `keyroll audit list`",
        )
    })?;
    Ok(Origin {
        rotation: id.clone(),
        begun_at: rotation.begun_at,
        about: About::of(&rotation)?,
        stuck,
        backup,
    })
}

/// Reads every byte of the backup and compares it with what was recorded when it was made.
async fn prove(from: &Origin, identity: &Identity) -> Result<(), RotateError> {
    let (directory, identity) = (from.directory().to_owned(), identity.clone());
    let expected = from.backup.manifest_sha256.clone();
    let verified = tokio::task::spawn_blocking(move || {
        keyroll_backup::verify(&directory, &identity, Some(&expected))
    })
    .await
    .map_err(|e| RotateError::Failed(e.to_string()))?;
    verified.map(drop).map_err(|e| {
        Refusal::new(
            Code::Backup,
            e.to_string(),
            "put an intact copy of the directory in its place, or restore from another rotation's backup",
        )
        .into()
    })
}

fn notes(from: &Origin, what: RestoreWhat) -> Vec<String> {
    let mut notes = vec![format!(
        "everything written since {} is not in this backup",
        from.begun_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    )];
    if what.files {
        notes.push(format!(
            "{} stays as it is: the secrets that are in force stay in force",
            from.about.env_file.path.display()
        ));
        notes.push(
            "running containers are not made anew; `docker compose up -d` does that, after you have looked"
                .to_owned(),
        );
    }
    if what.database {
        notes.push(
            "every user is logged out; passwords that users changed since then are the old ones again"
                .to_owned(),
        );
    }
    if from.stuck {
        notes.push(format!(
            "rotation {} is stuck: run `keyroll resume` afterwards",
            from.rotation
        ));
    }
    notes
}
