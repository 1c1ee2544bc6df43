//! What went wrong with a database, and what is certain about it.

use keyroll_secret::{Redactor, Secret};
use thiserror::Error;

use super::login::LoginUnknown;
use super::verifier::Malformed;
use crate::words::chain;

/// A failed operation on a database. `at` is the role, database and address; no variant holds a value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The session could not be opened: the server checked the password and refused it.
    #[error(
        "{at}: the server refused the password (SQLSTATE {code}); nothing was changed. Check that the value in force is the one given"
    )]
    Refused {
        /// Role, database, address.
        at: String,
        /// 28P01.
        code: String,
    },
    /// The session could not be opened, and this says nothing about the password.
    #[error("{at}: could not open a session: {reason}; nothing was changed")]
    NotReached {
        /// Role, database, address.
        at: String,
        /// What was in the way.
        reason: LoginUnknown,
    },
    /// A question was not answered. Not "no", and not "unchanged".
    #[error("{at}: could not look ({doing}): {reason}; nothing was changed")]
    Unknown {
        /// Role, database, address.
        at: String,
        /// The operation.
        doing: &'static str,
        /// The server's or the network's words.
        reason: String,
    },
    /// A change failed before its COMMIT was sent: it is certain that nothing was changed.
    #[error("{at}: {doing} failed and was not applied: {reason}")]
    NotApplied {
        /// Role, database, address.
        at: String,
        /// The operation.
        doing: &'static str,
        /// The server's or the network's words.
        reason: String,
    },
    /// The answer to a COMMIT was lost: the change is in force, or it is not. Observe before anything else.
    #[error(
        "{at}: {doing} may or may not have been applied: its COMMIT was sent and not answered ({reason}). Look before acting again"
    )]
    Indeterminate {
        /// Role, database, address.
        at: String,
        /// The operation.
        doing: &'static str,
        /// The server's or the network's words.
        reason: String,
    },
    /// The session's role lacks a right; the server refused.
    #[error(
        "{at}: the server refused {doing}, which needs {needs}. Name a role that has it in the profile, or grant it"
    )]
    Forbidden {
        /// Role, database, address.
        at: String,
        /// The operation.
        doing: &'static str,
        /// The right, in words.
        needs: &'static str,
    },
    /// There is no such role.
    #[error(
        "{at}: the server has no role {role:?}; nothing was changed. Mend the role's name in the profile"
    )]
    NoSuchRole {
        /// Role, database, address.
        at: String,
        /// The role looked for.
        role: String,
    },
    /// The stored password is neither the expected one nor the new one.
    #[error(
        "{at}: the password of role {role:?} was changed by somebody else since it was read (now: {found}); nothing was changed"
    )]
    Changed {
        /// Role, database, address.
        at: String,
        /// The role.
        role: String,
        /// The kind of what is stored now.
        found: String,
    },
    /// The server stores something that is no verifier.
    #[error("{at}: what the server stores for role {role:?} is not usable: {source}")]
    StrangeVerifier {
        /// Role, database, address.
        at: String,
        /// The role.
        role: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The server read the new verifier back differently, as it does when it took it for a password. Rolled back.
    #[error(
        "{at}: the server did not store the verifier for role {role:?} as it was sent; rolled back, nothing was changed"
    )]
    NotVerbatim {
        /// Role, database, address.
        at: String,
        /// The role.
        role: String,
    },
    /// The server would write the value into its log, and the session's role may not turn that off.
    #[error(
        "{at}: {doing} would be written to the server's log ({setting} = {value}), and only a superuser can turn that off for one transaction; nothing was changed. Use a superuser, or change the setting"
    )]
    WouldBeLogged {
        /// Role, database, address.
        at: String,
        /// The operation.
        doing: &'static str,
        /// The server's setting.
        setting: String,
        /// Its value now.
        value: String,
    },
    /// The table named in the profile does not exist, or is no table.
    #[error(
        "{at}: no table {table} for the role to see{hint}; nothing was changed. Mend {key} in the profile"
    )]
    NoSuchTable {
        /// Role, database, address.
        at: String,
        /// Quoted, with its schema if one was given.
        table: String,
        /// The profile's key.
        key: String,
        /// Similar names, or empty.
        hint: String,
    },
    /// The column named in the profile does not exist.
    #[error(
        "{at}: there is no column {column} (the table has: {columns}); nothing was changed. Mend {key} in the profile"
    )]
    NoSuchColumn {
        /// Role, database, address.
        at: String,
        /// Quoted, with schema and table.
        column: String,
        /// What there is, comma separated.
        columns: String,
        /// The profile's key.
        key: String,
    },
    /// The column exists and cannot mean what the profile says.
    #[error(
        "{at}: column {column} is of type {found}, and must be {wanted}; nothing was changed. Mend {key} in the profile"
    )]
    WrongType {
        /// Role, database, address.
        at: String,
        /// Quoted, with schema and table.
        column: String,
        /// Its type.
        found: String,
        /// The types that would do.
        wanted: &'static str,
        /// The profile's key.
        key: String,
    },
    /// More than one row has the key.
    #[error(
        "{at}: {rows} rows of {table} have the same {column:?}; keyroll does not guess which is meant. Nothing was changed. Mend {key} in the profile"
    )]
    Ambiguous {
        /// Role, database, address.
        at: String,
        /// Quoted table.
        table: String,
        /// The key column.
        column: String,
        /// How many rows.
        rows: usize,
        /// The profile's key.
        key: String,
    },
}

impl PostgresError {
    /// True when the change may be in force although the operation failed.
    pub fn is_indeterminate(&self) -> bool {
        matches!(self, Self::Indeterminate { .. })
    }
}

/// The server's or the network's words, without any of `hidden`.
///
/// Only the message of a server's error is taken: its detail may quote a row.
pub(super) fn words(error: &tokio_postgres::Error, hidden: &[&Secret]) -> String {
    let text = match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => chain(error),
    };
    clean(&text, hidden)
}

/// `text` without any of `hidden`.
pub(super) fn clean(text: &str, hidden: &[&Secret]) -> String {
    let mut redactor = Redactor::new();
    for secret in hidden {
        redactor.learn("hidden", secret);
    }
    redactor.clean(text)
}
