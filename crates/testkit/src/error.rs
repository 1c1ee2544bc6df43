//! What can go wrong while a test looks at the world.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A test could not do or see what it wanted. Tests `unwrap` it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// A file or directory.
    #[error("{path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program that ended with a failure, or could not be run.
    #[error("{what}: {said}")]
    Command {
        /// The program and its first arguments.
        what: String,
        /// Its status and standard error.
        said: String,
    },
    /// The database, over the network.
    #[error("database at {address}")]
    Database {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The panel.
    #[error("{url}")]
    Http {
        /// What was asked.
        url: String,
        /// Why there was no answer.
        #[source]
        source: reqwest::Error,
    },
    /// Something has another shape than the sandbox gives it.
    #[error("{0}")]
    Unexpected(String),
    /// A condition did not come true.
    #[error("not within {} ms: {what}", limit.as_millis())]
    NotInTime {
        /// The condition.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl TestkitError {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
