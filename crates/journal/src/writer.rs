//! Writing: fenced by the epoch, one transaction a call, synced before it returns.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::record::{Backward, Direction, Epoch, Event, Forward, Intended, RotationId, StepName};
use crate::rotation::NewRotation;
use crate::versions::{NewVersion, Stale, VersionState};
use crate::{Ending, Journal, JournalError, Kept, Lock};

/// An instant around a commit, counted from 1 for each writer. Fault injection stops a process at one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The transaction is about to commit.
    Before(u64),
    /// It is committed and synced; nobody has acted on it yet.
    After(u64),
}

/// Why a transaction was given up.
enum Failure {
    Database(rusqlite::Error),
    Trail(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

type Hook = Box<dyn Fn(Moment) -> bool + Send + Sync>;

/// The one process that may write. Reads as a [`Journal`].
pub struct Writer {
    journal: Journal,
    epoch: Epoch,
    commits: std::sync::atomic::AtomicU64,
    hook: Option<Hook>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Writer({}, epoch {})",
            self.journal.path.display(),
            self.epoch
        )
    }
}

impl Deref for Writer {
    type Target = Journal;
    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl Journal {
    /// Takes the stack over: the epoch grows by one, and every older writer is fenced from this commit on.
    ///
    /// The lock is asked for as proof that it is held; it must outlive the writer.
    pub fn take_over(self, _proof: &Lock) -> Result<Writer, JournalError> {
        let value: i64 = self
            .connection()
            .query_row(
                "UPDATE epoch SET value = value + 1 RETURNING value",
                [],
                |row| row.get(0),
            )
            .map_err(|e| self.failed("taking over", e))?;
        Ok(Writer {
            journal: self,
            epoch: Epoch(value),
            commits: 0.into(),
            hook: None,
        })
    }
}

impl Writer {
    /// Calls `hook` around every commit; when it answers false the writer behaves as if the process had died there:
    /// the call fails with [`JournalError::Injected`], before or after the commit. For tests of recovery.
    pub fn inject(&mut self, hook: impl Fn(Moment) -> bool + Send + Sync + 'static) {
        self.hook = Some(Box::new(hook));
    }

    /// This writer's epoch.
    pub fn own_epoch(&self) -> Epoch {
        self.epoch
    }

    /// Asks whether this writer is still the one in force; to be called right before an act.
    pub fn fence(&self) -> Result<(), JournalError> {
        let newer = self.journal.epoch()?;
        if newer == self.epoch {
            Ok(())
        } else {
            Err(JournalError::Fenced {
                own: self.epoch,
                newer,
            })
        }
    }

    fn commit<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, JournalError> {
        let failed = |e| self.failed(operation, e);
        let number = self
            .commits
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            + 1;
        let goes_on = |moment| self.hook.as_ref().is_none_or(|hook| hook(moment));
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let newer = transaction
            .query_row("SELECT value FROM epoch", [], |row| row.get(0))
            .map(Epoch)
            .map_err(failed)?;
        if newer != self.epoch {
            return Err(JournalError::Fenced {
                own: self.epoch,
                newer,
            });
        }
        let result = work(&transaction).map_err(|failure| match failure {
            Failure::Database(error) => failed(error),
            Failure::Trail(what) => JournalError::Trail {
                path: self.path().to_owned(),
                what,
            },
        })?;
        if !goes_on(Moment::Before(number)) {
            return Err(JournalError::Injected);
        }
        transaction.commit().map_err(failed)?;
        if goes_on(Moment::After(number)) {
            Ok(result)
        } else {
            Err(JournalError::Injected)
        }
    }

    /// Begins a rotation: its description and every sealed value, in one commit. Refused while another is unfinished.
    pub fn begin(&self, new: &NewRotation, now: Timestamp) -> Result<(), JournalError> {
        if let Some(other) = self.unfinished()? {
            return Err(JournalError::Unfinished(other.id.to_string()));
        }
        self.commit("beginning a rotation", |tx| {
            tx.execute(
                "INSERT INTO rotations (id, begun_at, about) VALUES (?1, ?2, ?3)",
                params![new.id.as_str(), now.to_string(), new.about.to_string()],
            )?;
            for version in &new.versions {
                insert_version(tx, &new.id, version, now)?;
            }
            Ok(new
                .kept
                .iter()
                .try_for_each(|kept| insert_kept(tx, &new.id, kept, now))?)
        })
    }

    /// Appends an event. What may follow what is the engine's to check, before it calls this.
    ///
    /// An `Ended` closes the rotation in the same commit.
    pub fn append(
        &self,
        rotation: &RotationId,
        event: &Event,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("appending a record", |tx| {
            Ok(insert_event(tx, rotation, self.epoch, event, now)?)
        })
    }

    /// Commits the intent to act, and gives the permission.
    pub fn intend_forward(
        &self,
        rotation: &RotationId,
        step: &StepName,
        attempt: u32,
        now: Timestamp,
    ) -> Result<Intended<Forward>, JournalError> {
        self.intend(rotation, step, attempt, Direction::Forward, now)
    }

    /// Commits the intent to undo, and gives the permission.
    pub fn intend_backward(
        &self,
        rotation: &RotationId,
        step: &StepName,
        attempt: u32,
        now: Timestamp,
    ) -> Result<Intended<Backward>, JournalError> {
        self.intend(rotation, step, attempt, Direction::Backward, now)
    }

    fn intend<D>(
        &self,
        rotation: &RotationId,
        step: &StepName,
        attempt: u32,
        direction: Direction,
        now: Timestamp,
    ) -> Result<Intended<D>, JournalError> {
        let event = Event::Intended {
            step: step.clone(),
            direction,
            attempt,
        };
        self.append(rotation, &event, now)?;
        Ok(Intended {
            rotation: rotation.clone(),
            step: step.clone(),
            attempt,
            direction: PhantomData,
        })
    }

    /// Keeps sealed things for a rotation. What is already kept under a name stays: a repeated act must not replace the
    /// old value, which it saved the first time, by the new one, which it finds now.
    pub fn keep(
        &self,
        rotation: &RotationId,
        kept: &[Kept],
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("keeping a sealed value", |tx| {
            Ok(kept
                .iter()
                .try_for_each(|k| insert_kept(tx, rotation, k, now))?)
        })
    }

    /// Puts a rotation's pending versions in force: they become current, and what was current is retired.
    pub fn promote(&self, rotation: &RotationId, now: Timestamp) -> Result<(), JournalError> {
        self.commit("promoting versions", |tx| {
            let now = now.to_string();
            tx.execute(
                "UPDATE versions SET state = 'retired', changed_at = ?2 WHERE state = 'current' AND secret IN
                 (SELECT secret FROM versions WHERE rotation = ?1 AND state = 'pending')",
                params![rotation.as_str(), now],
            )?;
            tx.execute(
                "UPDATE versions SET state = 'current', changed_at = ?2 WHERE rotation = ?1 AND state = 'pending'",
                params![rotation.as_str(), now],
            )?;
            Ok(())
        })
    }

    /// Retires a rotation's pending versions, after it went back. They stay sealed.
    pub fn discard_pending(
        &self,
        rotation: &RotationId,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("retiring pending versions", |tx| {
            tx.execute(
                "UPDATE versions SET state = 'retired', changed_at = ?2 WHERE rotation = ?1 AND state = 'pending'",
                params![rotation.as_str(), now.to_string()],
            )?;
            Ok(())
        })
    }

    /// Forgets the sealed values of versions retired before `limit`, and what ended rotations kept. Names, fingerprints and
    /// times stay. Returns how many values went.
    pub fn purge(&self, limit: Timestamp) -> Result<usize, JournalError> {
        self.commit("purging old values", |tx| {
            let limit = limit.to_string();
            let values = tx.execute(
                "UPDATE versions SET sealed = NULL WHERE state = 'retired' AND sealed IS NOT NULL AND changed_at < ?1",
                [&limit],
            )?;
            let kept = tx.execute(
                "DELETE FROM kept WHERE rotation IN (SELECT id FROM rotations WHERE ending IN ('completed', 'compensated')
                 AND ended_at < ?1)",
                [&limit],
            )?;
            Ok(values + kept)
        })
    }

    /// Replaces what is remembered about stale containers of these services: `None` forgets.
    pub fn remember_stale(
        &self,
        rotation: &RotationId,
        services: &BTreeMap<String, Option<Stale>>,
    ) -> Result<(), JournalError> {
        self.commit("remembering stale containers", |tx| {
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
        })
    }

    /// Appends to the audit trail: `make` gets the last record and gives the next one, in one transaction, so that no two
    /// records can follow the same one. Its error is that of a last record which cannot be followed.
    pub fn append_audit(
        &self,
        make: impl FnOnce(Option<&str>) -> Result<String, String>,
    ) -> Result<(), JournalError> {
        self.commit("appending to the trail", |tx| {
            let last: Option<String> = tx
                .query_row(
                    "SELECT record FROM audit ORDER BY sequence DESC LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            let next = make(last.as_deref()).map_err(Failure::Trail)?;
            tx.execute(
                "INSERT INTO audit SELECT coalesce(max(sequence), 0) + 1, ?1 FROM audit",
                [next],
            )?;
            Ok(())
        })
    }
}

fn insert_version(
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

fn insert_kept(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    kept: &Kept,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT OR IGNORE INTO kept (rotation, name, sealed, at) VALUES (?1, ?2, ?3, ?4)",
        params![
            rotation.as_str(),
            kept.name,
            kept.sealed.as_bytes(),
            now.to_string()
        ],
    )
    .map(drop)
}

fn insert_event(
    tx: &Transaction<'_>,
    rotation: &RotationId,
    epoch: Epoch,
    event: &Event,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let text = serde_json::to_string(event).expect("events are plain data");
    tx.execute(
        "INSERT INTO records (rotation, epoch, at, event) VALUES (?1, ?2, ?3, ?4)",
        params![rotation.as_str(), epoch.0, now.to_string(), text],
    )?;
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

#[cfg(test)]
mod tests;
