//! What can go wrong, and what state things are in then.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use keyroll_secret::IdentityError;
use thiserror::Error;

/// Why a backup could not be written, read, proven or restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is nobody to encrypt to.
    #[error("no recipient to encrypt the backup to; nothing was written")]
    NoRecipient,
    /// A file or directory of the backup could not be made, written or synced.
    #[error(
        "cannot write {path}: {source}; this backup is unfinished and counts as none; repair the cause, then start again"
    )]
    Write {
        /// The file or directory of the backup.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The disk that holds the backup is full.
    #[error(
        "no space left for {path} ({available} bytes free there); this backup is unfinished and counts as none; make room or choose another backup root, then start again"
    )]
    NoSpace {
        /// The file that was being written.
        path: PathBuf,
        /// Free bytes there, read just after the failure.
        available: u64,
    },
    /// age refused to encrypt.
    #[error("cannot encrypt {path}: {source}; this backup is unfinished and counts as none")]
    Encrypt {
        /// The file that was being written.
        path: PathBuf,
        /// age's reason.
        source: IdentityError,
    },
    /// Something to be saved could not be read.
    #[error(
        "cannot read {path} to save it: {source}; this backup is unfinished and counts as none"
    )]
    Source {
        /// The file or directory to be saved.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something to be saved was written to while it was read.
    #[error(
        "{path} changed while it was being saved; this backup is unfinished and counts as none; start again"
    )]
    Changed {
        /// The file to be saved.
        path: PathBuf,
    },
    /// Only files and symbolic links to them can be saved by name.
    #[error("{path} is {what}; only files and symbolic links to files are saved by name")]
    NotAFile {
        /// The path as given.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// A path that depends on the working directory, or climbs.
    #[error("{path}: not an absolute path free of `..`; give the full path")]
    NotAbsolute {
        /// The path as given.
        path: PathBuf,
    },
    /// A glob that does not parse.
    #[error("glob {glob:?}: {reason}")]
    Glob {
        /// The glob as given.
        glob: String,
        /// The parser's reason.
        reason: String,
    },
    /// A label or stream name outside the allowed form.
    #[error(
        "{name:?} cannot name a part of a backup: use 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit, and none of keyroll's own names"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// Two parts under one name.
    #[error("this backup already has a part named {name}")]
    Twice {
        /// The file's name in the backup.
        name: String,
    },
    /// The backup was to be finished while parts of it were not.
    #[error("not finished: {}; this backup counts as none", parts.join(", "))]
    Open {
        /// The parts' file names.
        parts: Vec<String>,
    },
    /// The directory is no whole backup.
    #[error(
        "{directory} has no manifest.json: an unfinished backup, which proves and restores nothing; see the others with the list of backups"
    )]
    Unfinished {
        /// The backup's directory.
        directory: PathBuf,
    },
    /// Written by a newer keyroll.
    #[error(
        "{directory}: format {found} of the backup is newer than this keyroll reads (1); use the keyroll that wrote it, or the stock age tool"
    )]
    Newer {
        /// The backup's directory.
        directory: PathBuf,
        /// The format's number.
        found: u32,
    },
    /// The backup is not what was written.
    #[error(
        "{directory} is damaged: {}; nothing was changed; use another copy of this backup",
        join(damages)
    )]
    Damaged {
        /// The backup's directory.
        directory: PathBuf,
        /// Everything that was found.
        damages: Vec<Damage>,
    },
    /// The backup could not be read; says nothing about whether it is sound.
    #[error("cannot read {path} of the backup: {source}; whether it is sound is not known")]
    Look {
        /// The file or directory of the backup.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The identity does not open the backup.
    #[error("{path} does not open: {source}; give the identity that it was written for")]
    NotOpened {
        /// The encrypted file.
        path: PathBuf,
        /// age's reason.
        source: IdentityError,
    },
    /// No part of that name.
    #[error("{directory} has no part {name:?}; it has {}", have.join(", "))]
    NoSuchPart {
        /// The backup's directory.
        directory: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        have: Vec<String>,
    },
    /// A path where nothing is restored: it climbs, or runs through a symbolic link.
    #[error("{path}: {why}; nothing was restored")]
    Unsafe {
        /// Where it would have gone.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file could not be put back.
    #[error(
        "cannot restore {path}: {source}; {done} of {of} files are back in place, the rest is as it was; repair the cause and restore again"
    )]
    Restore {
        /// The file that failed.
        path: PathBuf,
        /// Files renamed into place before the failure.
        done: usize,
        /// Files to be put back.
        of: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// What was to be removed is a whole backup, or no backup.
    #[error("{directory} is {what}; only unfinished backups are removed")]
    NotUnfinished {
        /// The directory.
        directory: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

/// One thing that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file's name in the backup.
    pub file: String,
    /// What is wrong with it, for people.
    pub what: String,
}

impl Damage {
    pub(crate) fn new(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

fn join(damages: &[Damage]) -> String {
    damages
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl BackupError {
    /// A failed write, told apart from a full disk, which has its own remedy.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            let available = crate::space::available(path).unwrap_or(0);
            return Self::NoSpace {
                path: path.to_owned(),
                available,
            };
        }
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn source(path: &Path, source: io::Error) -> Self {
        Self::Source {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn look(path: &Path, source: io::Error) -> Self {
        Self::Look {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(directory: &Path, file: &str, what: impl Into<String>) -> Self {
        Self::Damaged {
            directory: directory.to_owned(),
            damages: vec![Damage::new(file, what)],
        }
    }
}
