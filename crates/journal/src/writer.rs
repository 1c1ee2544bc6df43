//! Writing: fenced by the epoch, one transaction a call, synced before it returns.

mod rows;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::record::{Backward, Direction, Epoch, Event, Forward, Intended, RotationId, StepName};
use crate::reserve;
use crate::rotation::NewRotation;
use crate::schema::{keep_log_on_close, to_its_end};
use crate::versions::{NewVersion, Stale};
use crate::{Ending, Journal, JournalError, Kept, Lock};
use rows::{insert_event, insert_kept, insert_version, replace_stale};

pub(crate) use rows::append_to_trail;

/// An instant around a commit, counted from 1 for each writer. Fault injection stops a process at one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The transaction is about to commit.
    Before(u64),
    /// It is committed and synced; nobody has acted on it yet.
    After(u64),
}

/// Why a transaction was given up.
pub(crate) enum Failure {
    Database(rusqlite::Error),
    Trail(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// What a commit survives when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Also the loss of power.
    Synced,
    /// The end of the process, and the loss of power once a later commit was synced: the log keeps their order. For outcomes. One
    /// that is lost leaves its intent as the step's last record, as if keyroll had died right before it was written, and then
    /// the world is asked.
    Ordered,
}

impl Durability {
    fn pragma(self) -> &'static str {
        match self {
            Self::Synced => "PRAGMA synchronous = FULL",
            Self::Ordered => "PRAGMA synchronous = NORMAL",
        }
    }
}

type Hook = Box<dyn Fn(Moment) -> bool + Send + Sync>;

/// The one process that may write. Reads as a [`Journal`].
pub struct Writer {
    journal: Journal,
    epoch: Epoch,
    commits: AtomicU64,
    /// What the connection is set to.
    durability: Mutex<Option<Durability>>,
    /// A sync has failed: see [`JournalError::Unsynced`].
    unsynced: AtomicBool,
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
    /// What an earlier process left in the log is made durable first, and then written into the database: a sync of that process may have
    /// failed and been forgotten (`reserve::renew_log_of`).
    ///
    /// The lock is asked for as proof that it is held; it must outlive the writer.
    pub fn take_over(self, _proof: &Lock) -> Result<Writer, JournalError> {
        let failed = |e| self.failed("taking over", e);
        let value: i64 = {
            let mut connection = self.connection();
            // Nobody else appends to the log while it is written over itself. No work where the last process ended well.
            connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(failed)?;
            let renewed = self.renew_log();
            connection.execute_batch("ROLLBACK").map_err(failed)?;
            renewed?;
            // Writes the whole log into the database, syncs that, and empties the log.
            to_its_end(&connection, "PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)?;
            // An older writer that must be fenced does not outlive a loss of power either.
            connection
                .execute_batch(Durability::Ordered.pragma())
                .map_err(failed)?;
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(failed)?;
            let value = transaction
                .query_row(
                    "UPDATE epoch SET value = value + 1 RETURNING value",
                    [],
                    |row| row.get(0),
                )
                .map_err(failed)?;
            if self.renew_log.is_none() {
                // Without the room commits are slower, and fail later on a full disk; no reason to leave a rotation unfinished.
                let _ = reserve::log_of(&self.path);
            }
            transaction.commit().map_err(failed)?;
            keep_log_on_close(&connection, false).map_err(failed)?;
            value
        };
        if self.renew_log.is_none() {
            reserve::sync_name_of_the_log(&self.path).map_err(|source| JournalError::Io {
                path: self.path.clone(),
                source,
            })?;
        }
        Ok(Writer {
            journal: self,
            epoch: Epoch(value),
            commits: 0.into(),
            durability: Mutex::default(),
            unsynced: AtomicBool::new(false),
            hook: None,
        })
    }
}

impl Journal {
    fn renew_log(&self) -> Result<(), JournalError> {
        let renewed = match &self.renew_log {
            Some(renew) => renew(),
            None => reserve::renew_log_of(&self.path),
        };
        renewed.map_err(|source| JournalError::Io {
            path: reserve::log_path(&self.path),
            source,
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

    /// Has the next commit on this connection survive that much.
    fn set(&self, connection: &Connection, wanted: Durability) -> rusqlite::Result<()> {
        let mut is = self
            .durability
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *is != Some(wanted) {
            *is = None;
            connection.execute_batch(wanted.pragma())?;
            *is = Some(wanted);
        }
        Ok(())
    }

    pub(crate) fn commit<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, JournalError> {
        self.commit_as(Durability::Synced, operation, work)
    }

    fn commit_as<T>(
        &self,
        durability: Durability,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, JournalError> {
        let failed = |e| self.failed(operation, e);
        if self.unsynced.load(Ordering::Relaxed) {
            return Err(self.unsynced());
        }
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        let goes_on = |moment| self.hook.as_ref().is_none_or(|hook| hook(moment));
        let mut connection = self.connection();
        self.set(&connection, durability).map_err(failed)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let newer = transaction
            .prepare_cached("SELECT value FROM epoch")
            .and_then(|mut asked| asked.query_row([], |row| row.get(0)))
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
        let committed = transaction.commit();
        committed.map_err(|error| self.not_committed(operation, &connection, error))?;
        if goes_on(Moment::After(number)) {
            Ok(result)
        } else {
            Err(JournalError::Injected)
        }
    }

    fn not_committed(
        &self,
        operation: &'static str,
        connection: &Connection,
        error: rusqlite::Error,
    ) -> JournalError {
        let code = error.sqlite_error().map(|e| e.extended_code);
        if code == Some(rusqlite::ffi::SQLITE_IOERR_FSYNC) {
            self.unsynced.store(true, Ordering::Relaxed);
            // Not even on closing: what is in the log now may not be on the disk, and must not be built on.
            let _ = keep_log_on_close(connection, true);
            return self.unsynced();
        }
        self.failed(operation, error)
    }

    fn unsynced(&self) -> JournalError {
        JournalError::Unsynced {
            path: self.path().to_owned(),
        }
    }

    /// Begins a rotation: its description and every sealed value, in one commit. Refused while another is unfinished, or
    /// a restore is.
    pub fn begin(&self, new: &NewRotation, now: Timestamp) -> Result<(), JournalError> {
        if let Some(other) = self.unfinished()? {
            return Err(JournalError::Unfinished(other.id.to_string()));
        }
        if let Some(open) = self.restores()?.into_iter().next() {
            return Err(JournalError::Unrestored(open.rotation.to_string()));
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

    /// Appends an event. What may follow what is the engine's to check, before it calls this. Outcomes of a step are synced with
    /// the next intent or ending, everything else before this returns.
    ///
    /// An `Ended` closes the rotation in the same commit.
    pub fn append(
        &self,
        rotation: &RotationId,
        event: &Event,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let durability = match event {
            Event::Applied { .. } | Event::Confirmed { .. } | Event::Undone { .. } => {
                Durability::Ordered
            }
            _ => Durability::Synced,
        };
        self.commit_as(durability, "appending a record", |tx| {
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

    /// Keeps sealed things in the place of what was kept under their names. For what is evidence alone and can be had again,
    /// such as a session that is to be shown dead later; what an undo needs is kept by [`Writer::keep`].
    pub fn renew(
        &self,
        rotation: &RotationId,
        kept: &[Kept],
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("keeping a sealed value", |tx| {
            for one in kept {
                tx.execute(
                    "DELETE FROM kept WHERE rotation = ?1 AND name = ?2",
                    params![rotation.as_str(), one.name],
                )?;
                insert_kept(tx, rotation, one, now)?;
            }
            Ok(())
        })
    }

    /// Stores a pending version that could not be made before the rotation began. One that the rotation stored for the same secret before is
    /// retired: it was replaced before anybody used it. It stays sealed.
    pub fn made(
        &self,
        rotation: &RotationId,
        version: &NewVersion,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("storing a version that was made", |tx| {
            tx.execute(
                "UPDATE versions SET state = 'retired', changed_at = ?3 WHERE rotation = ?1 AND secret = ?2 AND state = 'pending'",
                params![rotation.as_str(), version.secret, now.to_string()],
            )?;
            Ok(insert_version(tx, rotation, version, now)?)
        })
    }

    /// Writes down how many logins of the admin may have gone wrong in a row, before the next one is tried: a process that
    /// goes on with the rotation counts on from there. It decides nothing, so no fault is injected around it.
    pub fn note_wrong_logins(&self, rotation: &RotationId, count: u32) -> Result<(), JournalError> {
        let failed = |e| self.failed("counting wrong logins", e);
        let noted = {
            let connection = self.connection();
            self.set(&connection, Durability::Ordered).map_err(failed)?;
            let mut statement = connection
                .prepare_cached(
                    "UPDATE rotations SET wrong_logins = ?2 WHERE id = ?1 AND (SELECT value FROM epoch) = ?3",
                )
                .map_err(failed)?;
            statement
                .execute(params![rotation.as_str(), count, self.epoch.0])
                .map_err(failed)?
        };
        if noted == 0 {
            self.fence()?;
        }
        Ok(())
    }

    /// Puts a rotation's pending versions in force: they become current, and what was current is retired, or, of the secrets
    /// `graced`, stays accepted as previous. What was previous until now is retired. What is remembered about stale containers of
    /// these services is replaced in the same commit: `None` forgets.
    pub fn promote(
        &self,
        rotation: &RotationId,
        graced: &[String],
        services: &BTreeMap<String, Option<Stale>>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.commit("promoting versions", |tx| {
            replace_stale(tx, rotation, services)?;
            let now = now.to_string();
            // A second call finds nothing pending, and leaves the windows that the first opened.
            let own = "secret IN (SELECT secret FROM versions WHERE rotation = ?1 AND state = 'pending')";
            let retire = |state: &str| {
                format!("UPDATE versions SET state = 'retired', changed_at = ?2 WHERE state = '{state}' AND {own}")
            };
            tx.execute(&retire("previous"), params![rotation.as_str(), now])?;
            for secret in graced {
                tx.execute(
                    &format!("UPDATE versions SET state = 'previous', changed_at = ?2 WHERE state = 'current' AND secret = ?3 AND {own}"),
                    params![rotation.as_str(), now, secret],
                )?;
            }
            tx.execute(&retire("current"), params![rotation.as_str(), now])?;
            tx.execute(
                "UPDATE versions SET state = 'current', changed_at = ?2 WHERE rotation = ?1 AND state = 'pending'",
                params![rotation.as_str(), now],
            )?;
            Ok(())
        })
    }

    /// Ends the grace windows of these secrets: what was previous is retired.
    pub fn retire_previous(&self, secrets: &[String], now: Timestamp) -> Result<(), JournalError> {
        self.commit("retiring previous versions", |tx| {
            for secret in secrets {
                tx.execute(
                    "UPDATE versions SET state = 'retired', changed_at = ?2 WHERE secret = ?1 AND state = 'previous'",
                    params![secret, now.to_string()],
                )?;
            }
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

    /// Ends a rotation as abandoned: the event, and what becomes of its versions, in one commit. Pending ones of the secrets
    /// `in_force` become current; the others are retired. All stay sealed.
    pub fn abandon(
        &self,
        rotation: &RotationId,
        reason: Option<String>,
        in_force: &[String],
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let event = Event::Ended {
            ending: Ending::Abandoned,
            reason,
        };
        self.commit("abandoning a rotation", |tx| {
            insert_event(tx, rotation, self.epoch, &event, now)?;
            let (id, now) = (rotation.as_str(), now.to_string());
            for secret in in_force {
                tx.execute(
                    "UPDATE versions SET state = 'retired', changed_at = ?3 WHERE secret = ?2 AND state = 'current' AND EXISTS
                     (SELECT 1 FROM versions WHERE rotation = ?1 AND secret = ?2 AND state = 'pending')",
                    params![id, secret, now],
                )?;
                tx.execute(
                    "UPDATE versions SET state = 'current', changed_at = ?3 WHERE rotation = ?1 AND secret = ?2 AND state = 'pending'",
                    params![id, secret, now],
                )?;
            }
            tx.execute(
                "UPDATE versions SET state = 'retired', changed_at = ?2 WHERE rotation = ?1 AND state = 'pending'",
                params![id, now],
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
                "DELETE FROM kept WHERE rotation IN (SELECT id FROM rotations WHERE ending IN ('completed', 'compensated', 'abandoned')
                 AND ended_at < ?1)",
                [&limit],
            )?;
            Ok(values + kept)
        })
    }

    /// Replaces what is remembered about stale containers of these services, by itself: `None` forgets.
    pub fn remember_stale(
        &self,
        rotation: &RotationId,
        services: &BTreeMap<String, Option<Stale>>,
    ) -> Result<(), JournalError> {
        self.commit("remembering stale containers", |tx| {
            Ok(replace_stale(tx, rotation, services)?)
        })
    }

    /// Appends to the audit trail: `make` gets the last record and gives the next one, in one transaction, so that no two
    /// records can follow the same one. Its error is that of a last record which cannot be followed.
    pub fn append_audit(
        &self,
        make: impl FnOnce(Option<&str>) -> Result<String, String>,
    ) -> Result<(), JournalError> {
        self.commit("appending to the trail", |tx| append_to_trail(tx, make))
    }
}

#[cfg(test)]
mod tests;
