//! Rotations as a whole: beginning one, and finding those that exist.

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};

use crate::versions::NewVersion;
use crate::{Ending, Journal, JournalError, Kept, RotationId};

/// What is committed in one transaction before anything else happens: the rotation, and every new value, sealed.
#[derive(Debug)]
pub struct NewRotation {
    /// Its name.
    pub id: RotationId,
    /// What the rotation is about, in the caller's own words (profile, facts from preflight, operator): all that is needed
    /// to go on with it in another process. No values.
    pub about: serde_json::Value,
    /// The sealed values; `pending` ones are what it rotates to.
    pub versions: Vec<NewVersion>,
    /// Other sealed things that undo needs, such as the env file as it was.
    pub kept: Vec<Kept>,
}

/// A rotation as the journal knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rotation {
    /// Its name.
    pub id: RotationId,
    /// When it began.
    pub begun_at: Timestamp,
    /// What the caller stored with it.
    pub about: serde_json::Value,
    /// How it ended, when it did.
    pub ending: Option<Ending>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT id, begun_at, about, ending, ended_at FROM rotations";

type Row = (String, String, String, Option<String>, Option<String>);

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
    ))
}

impl Journal {
    fn rotation_from(
        &self,
        (id, begun_at, about, ending, ended_at): Row,
    ) -> Result<Rotation, JournalError> {
        let what = || format!("rotation {id}");
        Ok(Rotation {
            begun_at: self.time(&begun_at)?,
            about: self.decoded(&about, what)?,
            ending: ending
                .map(|e| self.decoded(&format!("\"{e}\""), what))
                .transpose()?,
            ended_at: ended_at.map(|t| self.time(&t)).transpose()?,
            id: RotationId::from_text(id),
        })
    }

    /// All rotations, oldest first.
    pub fn rotations(&self) -> Result<Vec<Rotation>, JournalError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare(&format!("{COLUMNS} ORDER BY begun_at, id"))
            .map_err(|e| self.failed("reading rotations", e))?;
        let rows = statement
            .query_map([], row)
            .map_err(|e| self.failed("reading rotations", e))?;
        rows.map(|r| self.rotation_from(r.map_err(|e| self.failed("reading rotations", e))?))
            .collect()
    }

    /// The rotation that was begun last.
    pub fn last_rotation(&self) -> Result<Option<Rotation>, JournalError> {
        // Not by time: clocks jump.
        let found = self
            .connection()
            .query_row(&format!("{COLUMNS} ORDER BY rowid DESC LIMIT 1"), [], row)
            .optional()
            .map_err(|e| self.failed("reading a rotation", e))?;
        found.map(|row| self.rotation_from(row)).transpose()
    }

    /// One rotation by its name.
    pub fn rotation(&self, id: &RotationId) -> Result<Rotation, JournalError> {
        let found = self
            .connection()
            .query_row(&format!("{COLUMNS} WHERE id = ?1"), [id.as_str()], row)
            .optional()
            .map_err(|e| self.failed("reading a rotation", e))?;
        self.rotation_from(found.ok_or_else(|| JournalError::NoSuchRotation(id.to_string()))?)
    }

    /// The rotation that has begun and not ended, if there is one. There is never more than one.
    pub fn unfinished(&self) -> Result<Option<Rotation>, JournalError> {
        let found = self
            .connection()
            .query_row(&format!("{COLUMNS} WHERE ending IS NULL"), [], row)
            .optional()
            .map_err(|e| self.failed("reading rotations", e))?;
        found.map(|r| self.rotation_from(r)).transpose()
    }
}
