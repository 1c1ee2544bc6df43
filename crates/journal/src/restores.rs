//! Restores that were begun and are not recorded yet.
//!
//! A restore is no rotation: it has two parts that do not depend on one another, and no way back of its own. What is needed to
//! finish it, or to say that it has not happened, is committed before its first effect, and goes in the commit of its record.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::Value;

use crate::writer::append_to_trail;
use crate::{Journal, JournalError, RotationId, Writer};

/// A part of a restore that was begun and is not recorded yet. There is at most one for each part.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRestore {
    /// What is brought back, such as `files` or `database`.
    pub part: String,
    /// The rotation whose backup it is.
    pub rotation: RotationId,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// What the caller needs to go on with it in another process. No values.
    pub details: Value,
}

impl Journal {
    /// The parts of restores that were begun and are not recorded yet.
    pub fn restores(&self) -> Result<Vec<OpenRestore>, JournalError> {
        let failed = |e| self.failed("reading restores", e);
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT part, rotation, begun_at, details FROM restores ORDER BY part DESC")
            .map_err(failed)?;
        let rows = statement
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (part, rotation, begun_at, details): (String, String, String, String) =
                row.map_err(failed)?;
            Ok(OpenRestore {
                rotation: RotationId::from_text(rotation),
                begun_at: self.time(&begun_at)?,
                details: self.decoded(&details, || format!("restore of the {part}"))?,
                part,
            })
        })
        .collect()
    }
}

impl Writer {
    /// Commits the intent to restore these parts, all or none. What was there about the same part is replaced.
    pub fn begin_restore(&self, parts: &[OpenRestore]) -> Result<(), JournalError> {
        self.commit("beginning a restore", |tx| {
            for part in parts {
                tx.execute(
                    "INSERT OR REPLACE INTO restores VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        part.part,
                        part.rotation.as_str(),
                        part.begun_at.to_string(),
                        self.own_epoch().0,
                        part.details.to_string()
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// Closes a part of a restore that has changed nothing, or nothing that is not as it was again.
    pub fn drop_restore(&self, part: &str) -> Result<(), JournalError> {
        self.commit("closing a restore", |tx| {
            tx.execute("DELETE FROM restores WHERE part = ?1", [part])?;
            Ok(())
        })
    }

    /// As [`Self::append_audit`]; in the same commit this part of a restore is no longer open.
    pub fn record_restore(
        &self,
        part: &str,
        make: impl FnOnce(Option<&str>) -> Result<String, String>,
    ) -> Result<(), JournalError> {
        self.commit("recording a restore", |tx| {
            append_to_trail(tx, make)?;
            tx.execute("DELETE FROM restores WHERE part = ?1", [part])?;
            Ok(())
        })
    }
}
