//! What can go wrong with the durable state.

use std::path::PathBuf;

use thiserror::Error;

use crate::record::Epoch;

/// An error of the state database. Whatever was not acknowledged before it did not happen, or is found by looking.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The directory or file could not be made or opened.
    #[error("{path}: the state directory cannot be used: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("{path}: state database: {operation}: {source}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The reason that `SQLite` gives.
        source: rusqlite::Error,
    },
    /// The file is damaged.
    #[error(
        "{path}: the state database is damaged ({what}); nothing was changed. Keep the file, and restore it from a copy, or move it away to start anew"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What the check or the decoder said.
        what: String,
    },
    /// The file was written by a newer keyroll.
    #[error(
        "{path}: the state database has format {found}, this keyroll knows up to {known}; nothing was changed. Install the newer keyroll"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Another process has taken the stack over.
    #[error(
        "this process has epoch {own}, the stack is at {newer}: another keyroll has taken over; nothing was written"
    )]
    Fenced {
        /// The epoch of this writer.
        own: Epoch,
        /// The one in force.
        newer: Epoch,
    },
    /// There is no such rotation.
    #[error("no rotation {0} in the state database; `keyroll audit list` shows those that exist")]
    NoSuchRotation(String),
    /// A rotation is not finished.
    #[error("rotation {0} is not finished; `keyroll resume` goes on with it")]
    Unfinished(String),
    /// A restore is not finished.
    #[error(
        "a restore from the backup of rotation {0} is not finished; `keyroll status` has the command that finishes it"
    )]
    Unrestored(String),
    /// The last record of the trail cannot be followed.
    #[error(
        "{path}: the trail's last record {what}; nothing was appended. Run `keyroll audit verify`"
    )]
    Trail {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The disk failed to take what was written. Linux reports that once and forgets it: a second sync succeeds, and helps nothing
    /// (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So nothing more is built on it.
    #[error(
        "{path}: the disk failed to take a commit, and earlier ones may not be on it either; this keyroll writes nothing more. Look at the disk (`dmesg`), then run `keyroll resume`"
    )]
    Unsynced {
        /// The database file.
        path: PathBuf,
    },
    /// A test's hook stopped the writer here.
    #[error("stopped by a fault injected at a journal record")]
    Injected,
}
