//! Why the API did not do what it was asked.

use thiserror::Error;

use crate::http::HttpUnknown;

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxmoxError {
    /// 401: the token that asked is refused. Nothing was changed. Wrong, expired and deleted ones look alike.
    #[error("the token {token} is refused (HTTP 401): it is wrong, expired or deleted")]
    Refused {
        /// Its full id.
        token: String,
    },
    /// 403: it lacks a right. Nothing was changed.
    #[error("the token {token} has no right to {what} (HTTP 403)")]
    Forbidden {
        /// Its full id.
        token: String,
        /// What it wanted.
        what: String,
    },
    /// 400: a parameter was refused. Nothing was changed.
    #[error("{what} was refused (HTTP 400): {why}")]
    Invalid {
        /// What was wanted.
        what: String,
        /// The server's words, by parameter.
        why: String,
    },
    /// No verdict. A change may have been made all the same.
    #[error("{what}: {why}")]
    Unknown {
        /// What was wanted.
        what: String,
        /// Why nobody knows.
        why: HttpUnknown,
    },
}

impl ProxmoxError {
    /// Whether a change that was asked for certainly was not made.
    pub fn is_not_applied(&self) -> bool {
        match self {
            Self::Unknown { why, .. } => why.was_never_sent(),
            _ => true,
        }
    }
}
