//! Versions of secrets, other sealed things that a rotation needs, and containers that are stale by choice.

use jiff::Timestamp;
use keyroll_secret::Sealed;
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};

use crate::{Journal, JournalError, RotationId};

/// Where a version stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Sealed, not (known to be) in force.
    Pending,
    /// In force.
    Current,
    /// In its grace window: consumers accept it beside the current one.
    Previous,
    /// No longer in force; kept sealed until it is purged.
    Retired,
}

impl VersionState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Retired => "retired",
        }
    }
}

/// A version to be stored when a rotation begins.
#[derive(Debug)]
pub struct NewVersion {
    /// The secret's name.
    pub secret: String,
    /// `Pending` for what is rotated to; `Current` for a value that keyroll meets for the first time.
    pub state: VersionState,
    /// Keyed fingerprint of the value.
    pub fingerprint: String,
    /// The sealed value.
    pub sealed: Sealed,
}

/// A version as the journal knows it.
#[derive(Debug, Clone)]
pub struct Version {
    /// Grows with every version of the stack.
    pub id: i64,
    /// The secret's name.
    pub secret: String,
    /// The rotation that stored it.
    pub rotation: RotationId,
    /// Where it stands.
    pub state: VersionState,
    /// Keyed fingerprint of the value.
    pub fingerprint: String,
    /// The sealed value; none once it was purged.
    pub sealed: Option<Sealed>,
    /// When it was stored.
    pub made_at: Timestamp,
    /// When its state last changed.
    pub changed_at: Timestamp,
}

/// A sealed thing that is no version of a secret: the old verifier, the env file as it was, tokens taken as witnesses.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name within the rotation.
    pub name: String,
    /// The sealed bytes.
    pub sealed: Sealed,
}

/// A container whose environment keyroll left stale by choice (the database reads its password at first start only).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// The compose service.
    pub service: String,
    /// The container's full id.
    pub container: String,
    /// The configuration hash that compose wants for it now; another one is drift again.
    pub desired: String,
}

const COLUMNS: &str =
    "SELECT id, secret, rotation, state, fingerprint, sealed, made_at, changed_at FROM versions";

impl Journal {
    fn versions_where(
        &self,
        condition: &str,
        argument: &str,
    ) -> Result<Vec<Version>, JournalError> {
        let failed = |e| self.failed("reading versions", e);
        let connection = self.connection();
        let mut statement = connection
            .prepare(&format!("{COLUMNS} WHERE {condition} ORDER BY id"))
            .map_err(failed)?;
        let rows = statement
            .query_map([argument], |row| {
                let texts: (String, String) = (row.get(6)?, row.get(7)?);
                let state: String = row.get(3)?;
                Ok((
                    Version {
                        id: row.get(0)?,
                        secret: row.get(1)?,
                        rotation: RotationId::from_text(row.get::<_, String>(2)?),
                        state: VersionState::Pending,
                        fingerprint: row.get(4)?,
                        sealed: row.get::<_, Option<Vec<u8>>>(5)?.map(Sealed::from_stored),
                        made_at: Timestamp::UNIX_EPOCH,
                        changed_at: Timestamp::UNIX_EPOCH,
                    },
                    state,
                    texts,
                ))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (version, state, (made_at, changed_at)) = row.map_err(failed)?;
            Ok(Version {
                state: self.decoded(&format!("\"{state}\""), || {
                    format!("version {}", version.id)
                })?,
                made_at: self.time(&made_at)?,
                changed_at: self.time(&changed_at)?,
                ..version
            })
        })
        .collect()
    }

    /// All versions that a rotation stored.
    pub fn versions_of_rotation(
        &self,
        rotation: &RotationId,
    ) -> Result<Vec<Version>, JournalError> {
        self.versions_where("rotation = ?1", rotation.as_str())
    }

    /// All versions of a secret, oldest first.
    pub fn versions_of(&self, secret: &str) -> Result<Vec<Version>, JournalError> {
        self.versions_where("secret = ?1", secret)
    }

    /// A sealed thing of a rotation by its name.
    pub fn kept(&self, rotation: &RotationId, name: &str) -> Result<Option<Sealed>, JournalError> {
        self.connection()
            .query_row(
                "SELECT sealed FROM kept WHERE rotation = ?1 AND name = ?2",
                [rotation.as_str(), name],
                |row| row.get(0).map(Sealed::from_stored),
            )
            .optional()
            .map_err(|e| self.failed("reading a sealed value", e))
    }

    /// The containers that are stale by choice.
    pub fn stale(&self) -> Result<Vec<Stale>, JournalError> {
        let failed = |e| self.failed("reading stale containers", e);
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT service, container, desired FROM stale ORDER BY service")
            .map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                Ok(Stale {
                    service: row.get(0)?,
                    container: row.get(1)?,
                    desired: row.get(2)?,
                })
            })
            .map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }
}
