//! What a role's password is, as the server stores it, and changing it.

use std::fmt;

use keyroll_secret::Secret;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::error::PostgresError;
use super::quiet::{Carries, keep_quiet};
use super::session::Session;
use super::verifier::Verifier;

const NEEDS_SUPERUSER: &str = "a superuser (pg_authid holds the verifiers)";

/// What the server stores for a role.
#[derive(Debug, Clone)]
pub enum StoredPassword {
    /// A verifier, verbatim.
    Verifier(Verifier),
    /// No password: no login by password.
    None,
}

/// How [`Session::set_password`] ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordSet {
    /// The new verifier is committed, and was read back verbatim before the COMMIT.
    Done,
    /// It was there already, from an act that had landed; nothing was changed.
    AlreadySo,
}

/// What a role may do, from `pg_roles`, which everybody may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleFacts {
    /// LOGIN.
    pub can_login: bool,
    /// SUPERUSER.
    pub superuser: bool,
    /// `VALID UNTIL` has passed: every password is refused, the right one too.
    pub expired: bool,
}

impl StoredPassword {
    /// Whether both are the same, to the byte.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Verifier(a), Self::Verifier(b)) => a.same_as(b),
            _ => false,
        }
    }
}

impl fmt::Display for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verifier(verifier) => write!(f, "{}", verifier.kind()),
            Self::None => f.write_str("no password"),
        }
    }
}

impl Session {
    /// What `role` may do.
    pub async fn role_facts(&self, role: &str) -> Result<RoleFacts, PostgresError> {
        let rows = self
            .ask(
                "reading a role",
                "SELECT rolcanlogin, rolsuper, coalesce(rolvaliduntil < now(), false) FROM pg_roles WHERE rolname = $1",
                &[&role],
            )
            .await?;
        let row = rows.first().ok_or_else(|| self.no_such_role(role))?;
        Ok(RoleFacts {
            can_login: row.get(0),
            superuser: row.get(1),
            expired: row.get(2),
        })
    }

    /// The password of `role` as stored. Needs a superuser: [`PostgresError::Forbidden`] otherwise.
    pub async fn stored_password(&self, role: &str) -> Result<StoredPassword, PostgresError> {
        let rows = self
            .ask_with_right(
                "reading a stored password",
                NEEDS_SUPERUSER,
                "SELECT rolpassword FROM pg_authid WHERE rolname = $1",
                &[&role],
            )
            .await?;
        let row = rows.first().ok_or_else(|| self.no_such_role(role))?;
        read(row.get(0), self.at(), role)
    }

    /// Sets the password of `role` to `new`, if it is still `expected`; does nothing if it is `new` already.
    ///
    /// One transaction: the role's row is locked and compared, statement recording is turned off for the transaction, the
    /// verifier is set and read back, then COMMIT. It waits for others' locks at most half the session's limit. An error other than
    /// [`PostgresError::Indeterminate`] means that nothing was changed.
    pub async fn set_password(
        &mut self,
        role: &str,
        expected: &StoredPassword,
        new: &StoredPassword,
    ) -> Result<PasswordSet, PostgresError> {
        const LOCKED: &str = "SELECT rolpassword FROM pg_authid WHERE rolname = $1 FOR UPDATE";
        let missing = self.no_such_role(role);
        let tx = self.begin("setting a role's password").await?;
        let rows = tx.ask_with_right(NEEDS_SUPERUSER, LOCKED, &[&role]).await?;
        let Some(row) = rows.first() else {
            return Err(missing);
        };
        let found = read(row.get(0), &tx.at(), role)?;
        if found.same_as(new) {
            return Ok(PasswordSet::AlreadySo);
        }
        if !found.same_as(expected) {
            return Err(PostgresError::Changed {
                at: tx.at(),
                role: role.to_owned(),
                found: found.to_string(),
            });
        }
        keep_quiet(&tx, Carries::Literal).await?;
        let (hidden, literal) = match new {
            StoredPassword::Verifier(verifier) => (
                verifier.secret().clone(),
                escape_literal(verifier.secret().expose()),
            ),
            StoredPassword::None => (Secret::new(""), "NULL".to_owned()),
        };
        let alter = Secret::new(format!(
            "ALTER ROLE {} PASSWORD {literal}",
            escape_identifier(role)
        ));
        tx.run_hiding(&hidden, alter.expose(), &[]).await?;
        let rows = tx.ask_with_right(NEEDS_SUPERUSER, LOCKED, &[&role]).await?;
        let stored = rows
            .first()
            .ok_or(missing)
            .and_then(|row| read(row.get(0), &tx.at(), role))?;
        if !stored.same_as(new) {
            return Err(PostgresError::NotVerbatim {
                at: tx.at(),
                role: role.to_owned(),
            });
        }
        tx.commit().await?;
        Ok(PasswordSet::Done)
    }

    fn no_such_role(&self, role: &str) -> PostgresError {
        PostgresError::NoSuchRole {
            at: self.at().to_owned(),
            role: role.to_owned(),
        }
    }
}

fn read(stored: Option<String>, at: &str, role: &str) -> Result<StoredPassword, PostgresError> {
    let Some(text) = stored else {
        return Ok(StoredPassword::None);
    };
    Verifier::parse(Secret::new(text))
        .map(StoredPassword::Verifier)
        .map_err(|source| PostgresError::StrangeVerifier {
            at: at.to_owned(),
            role: role.to_owned(),
            source,
        })
}
