//! What a restore is asked, and what it answers: plain data, for a terminal or as JSON. No values.

use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_journal::RotationId;
use serde::{Deserialize, Serialize};

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
    /// Whether the two have changed places already, in a run that was interrupted. What is left is to start the services, to
    /// check, and to record it.
    pub changed_places: bool,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
