//! What the writer's transactions do to each table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::Failure;
use crate::Ending;
use crate::record::{Epoch, Event, RotationId};
use crate::schema::LAST_OF_THE_TRAIL;
use crate::versions::{Kept, NewVersion, Stale, VersionState};

pub(super) fn replace_stale(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    services: &BTreeMap<String, Option<Stale>>,
) -> rusqlite::Result<()> {
    for (service, stale) in services {
        tx.execute("DELETE FROM stale WHERE service = ?1", [service])?;
        if let Some(stale) = stale {
            tx.execute(
                "INSERT INTO stale VALUES (?1, ?2, ?3, ?4)",
                params![service, stale.container, stale.desired, rotation.as_str()],
            )?;
        }
    }
    Ok(())
}

pub(crate) fn append_to_trail(
    tx: &Transaction<'_>,
    make: impl FnOnce(Option<&str>) -> Result<String, String>,
) -> Result<(), Failure> {
    let last: Option<String> = tx
        .query_row(LAST_OF_THE_TRAIL, [], |row| row.get(0))
        .optional()?;
    let next = make(last.as_deref()).map_err(Failure::Trail)?;
    tx.execute(
        "INSERT INTO audit SELECT coalesce(max(sequence), 0) + 1, ?1 FROM audit",
        [next],
    )?;
    Ok(())
}

pub(super) fn insert_version(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    version: &NewVersion,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let now = now.to_string();
    if version.state == VersionState::Current {
        // A value met in force that is not the one keyroll last put there: somebody changed it, and it is the truth now.
        tx.execute(
            "UPDATE versions SET state = 'retired', changed_at = ?2 WHERE secret = ?1 AND state = 'current'",
            params![version.secret, now],
        )?;
    }
    tx.execute(
        "INSERT INTO versions (secret, rotation, state, fingerprint, sealed, made_at, changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![
            version.secret,
            rotation.as_str(),
            version.state.as_str(),
            version.fingerprint,
            version.sealed.as_bytes(),
            now
        ],
    )
    .map(drop)
}

pub(super) fn insert_kept(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    kept: &Kept,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR IGNORE INTO kept (rotation, name, sealed, at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        rotation.as_str(),
        kept.name,
        kept.sealed.as_bytes(),
        now.to_string()
    ])
    .map(drop)
}

pub(super) fn insert_event(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    epoch: Epoch,
    event: &Event,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let text = serde_json::to_string(event).expect("events are plain data");
    tx.prepare_cached("INSERT INTO records (rotation, epoch, at, event) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![rotation.as_str(), epoch.0, now.to_string(), text])?;
    match event {
        // Stuck is no end for the lock on the stack: it stays unfinished until it is resumed or abandoned.
        Event::Ended {
            ending: Ending::Stuck,
            ..
        }
        | Event::Resumed { .. } => Ok(()),
        Event::Ended { ending, .. } => {
            let name = ending.to_string().to_lowercase();
            tx.execute(
                "UPDATE rotations SET ending = ?2, ended_at = ?3 WHERE id = ?1",
                params![rotation.as_str(), name, now.to_string()],
            )
            .map(drop)
        }
        _ => Ok(()),
    }
}
