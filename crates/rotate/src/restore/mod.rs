//! Bringing back what a rotation's backup holds: application files, or the database.
//!
//! A rotation goes back by itself when it fails, and a completed one is taken back by a new rotation. This is neither: it is for
//! the day on which files or data are damaged, and it throws away what was written since the backup. So it happens only when
//! the operator asks for it by name, after the whole backup was read and shown to be the one that was made, and after a plan
//! was shown. Whatever it replaces is kept.
//!
//! Secrets do not come back with it. The values in force stay in force: the env file is left as it is, and a restored database is
//! fitted to it before anybody sees it (the admin's hash, the sessions; a role's password belongs to the server, not to a database).

mod database;
mod files;
mod look;
mod server;
mod statements;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyroll_audit::{Body, Restored, system_journal};
use keyroll_journal::{Ending, Event, Journal, RotationId, Writer};
use keyroll_secret::Identity;
use serde::Serialize;

use crate::about::About;
use crate::ending;
use crate::error::{Code, Refusal, RotateError, unfinished};
use crate::operations::{Control, Keyroll};
use crate::report::Progress;
use crate::trail;

/// What is to be brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreWhat {
    /// Application files and compose files.
    pub files: bool,
    /// The database.
    pub database: bool,
}

/// What a restore would do; shown before it is confirmed.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// The rotation whose backup it is.
    pub rotation: RotationId,
    /// When that rotation began: everything written since then is not in the backup.
    pub begun_at: Timestamp,
    /// The backup, read in full and found whole.
    pub backup: PathBuf,
    /// The files that would be replaced or made; none when files were not asked for, or all are as saved.
    pub files: Vec<FileChange>,
    /// What would become of the database, if it was asked for.
    pub database: Option<DatabasePlan>,
    /// Worth knowing.
    pub notes: Vec<String>,
}

/// One file that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The file.
    pub path: PathBuf,
    /// `create`, `replace` or `adjust` (owner, mode or time alone).
    pub change: String,
}

/// What would become of the database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabasePlan {
    /// Its name.
    pub name: String,
    /// The name under which the present one is kept.
    pub kept_as: String,
    /// Services that are stopped while the two change places.
    pub stopped: Vec<String>,
    /// Room that the restored one may take beside the present one, in bytes.
    pub needed_bytes: u64,
    /// Room on the server's disk, in bytes.
    pub free_bytes: u64,
}

/// What a restore came to.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The rotation whose backup it was.
    pub rotation: RotationId,
    /// The backup.
    pub backup: PathBuf,
    /// The files, if they were asked for.
    pub files: Option<FilesRestored>,
    /// The database, if it was asked for.
    pub database: Option<DatabaseRestored>,
    /// Whether everything was well afterwards.
    pub well: bool,
    /// What was seen, a line each.
    pub seen: Vec<String>,
    /// What is wrong or could not be looked at, with what to do about it.
    pub found: Vec<String>,
    /// Seconds from confirmation to end.
    pub seconds: f64,
}

/// Files that were brought back.
#[derive(Debug, Clone, Serialize)]
pub struct FilesRestored {
    /// Put in place.
    pub written: Vec<PathBuf>,
    /// How many were as saved already.
    pub same: usize,
    /// The backup of what was replaced; none when nothing was.
    pub replaced_saved_to: Option<PathBuf>,
}

/// A database that was brought back.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseRestored {
    /// Its name.
    pub name: String,
    /// The name under which the replaced one is kept.
    pub kept_as: String,
    /// Tables with their data.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Application sessions that were open in the dump and were revoked.
    pub sessions_revoked: usize,
    /// How the admin's password came to be the one in force.
    pub admin: String,
}

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

impl Keyroll {
    /// Brings files, the database, or both back from a rotation's backup.
    ///
    /// Reads the whole backup first, then asks `approve`. Refused while a rotation is unfinished, but for the stuck one that is named:
    /// that may be what gets it going again. May be called again after a crash. The lock is held until it ends.
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

        progress.looking("the backup, in full");
        prove(&from, &identity).await?;
        let files = if what.files {
            progress.looking("the files");
            Some(files::look(&self.profile, &from, &identity)?)
        } else {
            None
        };
        let database = if what.database {
            Some(look::database(self, &journal, &from, identity.clone(), progress).await?)
        } else {
            None
        };
        let plan = RestorePlan {
            rotation: rotation.clone(),
            begun_at: from.begun_at,
            backup: from.directory().to_owned(),
            files: files.iter().flat_map(files::Files::changes).collect(),
            database: database.as_ref().map(database::Database::plan),
            notes: notes(&from, what),
        };
        progress.looked();
        if !approve(&plan) {
            return Err(RotateError::NotConfirmed);
        }

        let begun = std::time::Instant::now();
        let writer = journal.take_over(&lock)?;
        ending::settle(&writer)?;
        let mut report = RestoreReport {
            rotation: rotation.clone(),
            backup: plan.backup,
            files: None,
            database: None,
            well: true,
            seen: vec![],
            found: vec![],
            seconds: 0.0,
        };
        if let Some(files) = files {
            progress.doing("saving what will be replaced, then putting the files back");
            let restored = files.restore(&self.profile, &from, &identity)?;
            self.record(&writer, &from, "files", restored.says())?;
            report.seen.push(restored.says());
            report.files = Some(restored);
        }
        if let Some(database) = database {
            let done = database.restore(&from, progress, control).await?;
            self.record(&writer, &from, "database", done.says())?;
            report.seen.extend(done.seen);
            report.found.extend(done.found);
            report.database = Some(done.restored);
        }
        report.well = report.found.is_empty();
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Writes it into the trail. What cannot be recorded is an error, after everything was done.
    fn record(
        &self,
        writer: &Writer,
        from: &Origin,
        what: &str,
        evidence: String,
    ) -> Result<(), RotateError> {
        let body = Body::Restore(Restored {
            rotation: from.rotation.to_string(),
            backup: from.backup.clone(),
            what: what.to_owned(),
            operator: (&self.operator).into(),
            evidence,
        });
        let socket = Path::new(system_journal::SOCKET);
        match trail::append(writer, body, socket, Timestamp::now()) {
            Ok(_) => Ok(()),
            Err(why) => Err(RotateError::Failed(format!(
                "the {what} were brought back from {}, but the trail could not be written: {why}; see `keyroll audit verify`",
                from.backup.directory
            ))),
        }
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
        return Err(unfinished(other.id.as_str()).into());
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
