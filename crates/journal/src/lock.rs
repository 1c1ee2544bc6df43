//! One rotation at a time: the lock that a process holds for its life.
//!
//! Scope: one stack on one host. Two flock(2) locks are taken: on a file in the state directory, and on the stack's root
//! directory itself, so that two keyrolls with different state directories still exclude one another. The kernel releases
//! both when the process ends, however it ends; a suspended process keeps them. Neither is inherited by children
//! (descriptors are opened close-on-exec).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;

/// Held from before the first look until the process ends.
#[derive(Debug)]
pub struct Lock {
    _state: File,
    _root: File,
}

/// Why the lock was not had. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{path}: another keyroll is at work on this stack ({holder}); wait for it, or end it and run `keyroll resume`"
    )]
    Held {
        /// The locked file or directory.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The lock file could not be opened.
    #[error("{path}: cannot be locked: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Lock {
    /// Takes both locks, or says who has them. Does not wait.
    pub fn acquire(state_directory: &Path, root: &Path, now: Timestamp) -> Result<Self, LockError> {
        let path = state_directory.join("lock");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { path, source }
        };
        let mut state = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path))?;
        if let Err(error) = state.try_lock() {
            let mut holder = String::new();
            let _ = state.read_to_string(&mut holder);
            return Err(refused(error, path, holder.trim().to_owned()));
        }
        let root_file = File::open(root).map_err(io(root))?;
        if let Err(error) = root_file.try_lock() {
            return Err(refused(
                error,
                root.to_owned(),
                "one with another state directory".into(),
            ));
        }
        let note = format!("process {} since {now}\n", std::process::id());
        state
            .set_len(0)
            .and_then(|()| state.rewind())
            .and_then(|()| state.write_all(note.as_bytes()))
            .map_err(io(&path))?;
        Ok(Self {
            _state: state,
            _root: root_file,
        })
    }
}

fn refused(error: TryLockError, path: PathBuf, holder: String) -> LockError {
    match error {
        TryLockError::WouldBlock => LockError::Held { path, holder },
        TryLockError::Error(source) => LockError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_about_the_first() {
        let (state, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Lock::acquire(state.path(), root.path(), Timestamp::UNIX_EPOCH).unwrap();
        let error = Lock::acquire(state.path(), root.path(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        Lock::acquire(state.path(), root.path(), Timestamp::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn the_same_stack_under_another_state_directory_is_refused_too() {
        let (one, two, root) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let _first = Lock::acquire(one.path(), root.path(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(matches!(
            Lock::acquire(two.path(), root.path(), Timestamp::UNIX_EPOCH),
            Err(LockError::Held { .. })
        ));
    }
}
