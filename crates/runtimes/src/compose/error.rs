//! What went wrong with the engine or with compose, and what is certain about it.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A question to the engine was not answered. Not "no", and not "unchanged": nothing is known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nobody listens on the socket, or it may not be used.
    #[error(
        "could not reach the container engine on {}: {reason}; nothing was changed. Check with `docker version`",
        socket.display()
    )]
    NotReached {
        /// The socket.
        socket: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The engine answered with an error, or not in its own language.
    #[error("could not look ({doing}): the container engine said: {reason}")]
    Unknown {
        /// The question.
        doing: String,
        /// The engine's words, redacted.
        reason: String,
    },
    /// There is no such container or image.
    #[error("{what} is not there (any more)")]
    Gone {
        /// What was asked for.
        what: String,
    },
    /// No answer in time.
    #[error("could not look ({doing}): no answer from the container engine within {limit:?}")]
    Timeout {
        /// The question.
        doing: String,
        /// The limit.
        limit: Duration,
    },
}

/// A call of compose that only reads has failed: nothing is known, and nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CliError {
    /// Neither compose version 2 nor 1 is there.
    #[error(
        "neither `docker compose` nor `docker-compose` works here ({reason}); nothing was changed. Install one, then check with `docker compose version`"
    )]
    NotThere {
        /// What each of them said.
        reason: String,
    },
    /// It could not be started, or its output not be read.
    #[error("`{command}` could not be run: {reason}; nothing was changed")]
    NotRun {
        /// The command, without options.
        command: String,
        /// The system's words.
        reason: String,
    },
    /// It refused.
    #[error("`{command}` failed ({status}): {said}; nothing was changed")]
    Failed {
        /// The command, without options.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of its standard error, redacted.
        said: String,
    },
    /// It took too long, and was ended.
    #[error("`{command}` took longer than {limit:?} and was ended; nothing was changed")]
    Timeout {
        /// The command, without options.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// Its output is not what this version of compose is known to write.
    #[error("`{command}` wrote something unexpected: {reason}; nothing was changed")]
    Unreadable {
        /// The command, without options.
        command: String,
        /// What was expected. No part of the output.
        reason: String,
    },
    /// The engine had to be asked too, and did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A change has failed, and this is what is certain about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ActError {
    /// It is certain that nothing was changed.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// It may have been applied, wholly or in part. Look before acting again.
    #[error("it may have been applied, wholly or in part: {0}")]
    Indeterminate(String),
}
