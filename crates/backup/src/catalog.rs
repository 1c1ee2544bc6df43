//! Which backups there are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::manifest::Manifest;
use crate::{BackupError, names};

/// One backup directory.
#[derive(Debug)]
pub struct Listed {
    /// The directory.
    pub directory: PathBuf,
    /// The time in its name, to the second.
    pub at: Timestamp,
    /// Whether it can be relied on.
    pub state: State,
    /// Bytes of all its files, whole or not.
    pub bytes: u64,
}

/// What a backup directory is worth.
#[derive(Debug)]
#[non_exhaustive]
pub enum State {
    /// Its manifest is there. Whether the files still agree with it is for [`crate::check`] to say.
    Whole(Manifest),
    /// It has no manifest: it was never finished.
    Unfinished,
    /// The manifest is not one, or of a newer format.
    Damaged(BackupError),
    /// It could not be read; nothing is known.
    Unknown(BackupError),
}

/// The backups under `root`, oldest first. Directories with other names are not keyroll's and are left out; a root that does not
/// exist has none.
pub fn list(root: &Path) -> Result<Vec<Listed>, BackupError> {
    let look = |e| BackupError::look(root, e);
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(look)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(look)?;
        let name = entry.file_name();
        let Some((at, number)) = name.to_str().and_then(names::parse_directory) else {
            continue;
        };
        if !entry.file_type().map_err(look)?.is_dir() {
            continue;
        }
        let directory = entry.path();
        let (state, bytes) = match size(&directory) {
            Ok(bytes) => (inspect(&directory), bytes),
            Err(e) => (State::Unknown(BackupError::look(&directory, e)), 0),
        };
        found.push((
            at,
            number,
            Listed {
                directory,
                at,
                state,
                bytes,
            },
        ));
    }
    found.sort_by_key(|(at, number, _)| (*at, *number));
    Ok(found.into_iter().map(|(_, _, listed)| listed).collect())
}

/// The state of one backup directory, by its manifest alone.
pub fn inspect(directory: &Path) -> State {
    match Manifest::read(directory) {
        Ok((manifest, _)) => State::Whole(manifest),
        Err(BackupError::Unfinished { .. }) => State::Unfinished,
        Err(error @ (BackupError::Damaged { .. } | BackupError::Newer { .. })) => {
            State::Damaged(error)
        }
        Err(error) => State::Unknown(error),
    }
}

/// Removes an unfinished backup, such as one that ran out of space. A whole or damaged one, and a directory whose name
/// is not a backup's, are refused.
pub fn remove_unfinished(directory: &Path) -> Result<(), BackupError> {
    let refuse = |what| BackupError::NotUnfinished {
        directory: directory.to_owned(),
        what,
    };
    let name = directory.file_name().and_then(|n| n.to_str());
    if name.and_then(names::parse_directory).is_none() {
        return Err(refuse("not named like a backup"));
    }
    match inspect(directory) {
        State::Unfinished => {
            fs::remove_dir_all(directory).map_err(|e| BackupError::look(directory, e))
        }
        State::Unknown(error) => Err(error),
        State::Whole(_) => Err(refuse("a whole backup")),
        State::Damaged(_) => Err(refuse("a damaged backup, which may still hold something")),
    }
}

fn size(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
}
