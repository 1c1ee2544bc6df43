//! The database file: how it is opened, what is in it, and reading.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::JournalError;
use crate::record::{Epoch, Event, Record, RotationId};

/// The format that this version writes, in `PRAGMA user_version`.
const FORMAT: i64 = 2;

/// What leads from each format to the next; the first makes an empty file a database.
const STEPS: [&str; 2] = [TABLES, RESTORES_AND_LOGINS];

const TABLES: &str = "
CREATE TABLE epoch (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL);
INSERT INTO epoch VALUES (1, 0);
CREATE TABLE rotations (
    id TEXT PRIMARY KEY, begun_at TEXT NOT NULL, about TEXT NOT NULL, ending TEXT, ended_at TEXT
) STRICT;
CREATE TABLE records (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, rotation TEXT NOT NULL REFERENCES rotations (id),
    epoch INTEGER NOT NULL, at TEXT NOT NULL, event TEXT NOT NULL
) STRICT;
CREATE INDEX records_by_rotation ON records (rotation, sequence);
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT NOT NULL, rotation TEXT NOT NULL REFERENCES rotations (id),
    state TEXT NOT NULL, fingerprint TEXT NOT NULL, sealed BLOB, made_at TEXT NOT NULL, changed_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_current ON versions (secret) WHERE state = 'current';
CREATE TABLE kept (
    rotation TEXT NOT NULL REFERENCES rotations (id), name TEXT NOT NULL, sealed BLOB NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (rotation, name)
) STRICT;
CREATE TABLE stale (
    service TEXT PRIMARY KEY, container TEXT NOT NULL, desired TEXT NOT NULL, rotation TEXT NOT NULL
) STRICT;
CREATE TABLE audit (sequence INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT;
";

const RESTORES_AND_LOGINS: &str = "
CREATE TABLE restores (
    part TEXT PRIMARY KEY, rotation TEXT NOT NULL REFERENCES rotations (id), begun_at TEXT NOT NULL,
    epoch INTEGER NOT NULL, details TEXT NOT NULL
) STRICT;
ALTER TABLE rotations ADD COLUMN wrong_logins INTEGER NOT NULL DEFAULT 0;
";

/// The newest record of the trail.
pub(crate) const LAST_OF_THE_TRAIL: &str =
    "SELECT record FROM audit ORDER BY sequence DESC LIMIT 1";

/// See [`Journal::open_through`].
pub type RenewLog = Box<dyn Fn() -> std::io::Result<()> + Send + Sync>;

/// The state database of one stack, open for reading. [`crate::Writer`] adds to it.
///
/// All calls block on the disk for as long as the database is busy, at most 5 s.
pub struct Journal {
    pub(crate) path: PathBuf,
    /// Writes the log's bytes over themselves, and syncs them; none where the path is one of this machine's own files.
    pub(crate) renew_log: Option<RenewLog>,
    connection: Mutex<Connection>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.path.display())
    }
}

impl Journal {
    /// Opens `<directory>/state.db`, making directory (0700) and file (0600) at first use.
    ///
    /// A database that is damaged or newer than this keyroll is refused, and left as it is.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join("state.db");
        let io = |source| JournalError::Io {
            path: directory.to_owned(),
            source,
        };
        if !directory.exists() {
            fs::create_dir_all(directory).map_err(io)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        if !path.exists() {
            // SQLite would make the file with the process's umask; nobody else may read even names and times.
            use std::os::unix::fs::OpenOptionsExt as _;
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(io)?;
            fs::File::open(directory)
                .and_then(|d| d.sync_all())
                .map_err(io)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::over(Connection::open_with_flags(&path, flags), path, None)
    }

    /// Opens the database `path` of a file system that was registered with `SQLite` under the name `vfs`, making it at first use: the
    /// same journal on another disk, such as a simulated one. Nothing else of it is on the disk of this machine, so what is done to the log
    /// past `SQLite` has to be brought along: `renew_log` writes every byte of `<path>-wal` over itself, if there is one, and syncs it.
    pub fn open_through(vfs: &str, path: &Path, renew_log: RenewLog) -> Result<Self, JournalError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags_and_vfs(path, flags, vfs);
        Self::over(opened, path.to_owned(), Some(renew_log))
    }

    fn over(
        opened: rusqlite::Result<Connection>,
        path: PathBuf,
        renew_log: Option<RenewLog>,
    ) -> Result<Self, JournalError> {
        let connection = opened.map_err(|source| JournalError::Database {
            path: path.clone(),
            operation: "open",
            source,
        })?;
        let journal = Self {
            path,
            renew_log,
            connection: Mutex::new(connection),
        };
        journal.prepare()?;
        Ok(journal)
    }

    /// Whether a state database exists in `directory`; for commands that only read and must make nothing.
    pub fn exists(directory: &Path) -> bool {
        directory.join("state.db").exists()
    }

    fn prepare(&self) -> Result<(), JournalError> {
        let connection = self.connection();
        let pragma = |sql: &str| connection.execute_batch(sql);
        // What is in the log is written into the database by whoever takes over, who first sees to it that the log is on the disk. Not by
        // a reader that happens to close last, and not in the middle of a rotation.
        keep_log_on_close(&connection, true)
            .and_then(|()| pragma("PRAGMA wal_autocheckpoint = 0"))
            .and_then(|()| pragma("PRAGMA busy_timeout = 5000"))
            .and_then(|()| to_its_end(&connection, "PRAGMA journal_mode = WAL"))
            .and_then(|()| pragma("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"))
            .map_err(|e| self.failed("settings", e))?;
        // WAL with FULL syncs the log on every commit: an acknowledged record survives power loss. Read back, because a
        // pragma that SQLite does not know is silently ignored.
        let synchronous: i64 = self.one(&connection, "PRAGMA synchronous")?;
        if synchronous != 2 {
            return Err(JournalError::Corrupt {
                path: self.path.clone(),
                what: format!("synchronous is {synchronous}, not FULL"),
            });
        }
        let found: i64 = self.one(&connection, "PRAGMA user_version")?;
        if found > FORMAT {
            return Err(JournalError::Newer {
                path: self.path.clone(),
                found,
                known: FORMAT,
            });
        }
        let check: String = self.one(&connection, "PRAGMA quick_check(1)")?;
        if check != "ok" {
            return Err(JournalError::Corrupt {
                path: self.path.clone(),
                what: check,
            });
        }
        if found < FORMAT {
            // IMMEDIATE and asked again inside: two first runs may meet here.
            let script = |sql: &str| {
                connection
                    .execute_batch(sql)
                    .map_err(|e| self.failed("making tables", e))
            };
            script("BEGIN IMMEDIATE")?;
            let found: i64 = self.one(&connection, "PRAGMA user_version")?;
            let done = usize::try_from(found).unwrap_or(0);
            for step in STEPS.iter().skip(done) {
                script(step)?;
            }
            script(&format!("PRAGMA user_version = {}", found.max(FORMAT)))?;
            script("COMMIT")?;
        }
        Ok(())
    }

    fn one<T: rusqlite::types::FromSql>(
        &self,
        connection: &Connection,
        sql: &str,
    ) -> Result<T, JournalError> {
        connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|e| self.failed("settings", e))
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held leaves at most an open transaction, which SQLite rolls back with the connection.
        self.connection
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn failed(&self, operation: &'static str, source: rusqlite::Error) -> JournalError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => JournalError::Corrupt {
                path: self.path.clone(),
                what: source.to_string(),
            },
            _ => JournalError::Database {
                path: self.path.clone(),
                operation,
                source,
            },
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Result<Epoch, JournalError> {
        self.one(&self.connection(), "SELECT value FROM epoch")
            .map(Epoch)
    }

    /// How many logins of the admin have gone wrong in a row in this rotation, or may have; see
    /// [`Writer::note_wrong_logins`](crate::Writer::note_wrong_logins).
    pub fn wrong_logins(&self, rotation: &RotationId) -> Result<u32, JournalError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT wrong_logins FROM rotations WHERE id = ?1")
            .map_err(|e| self.failed("reading the count of wrong logins", e))?;
        statement
            .query_row([rotation.as_str()], |row| row.get(0))
            .map_err(|e| self.failed("reading the count of wrong logins", e))
    }

    /// All records of one rotation, oldest first. An event that cannot be decoded is an error, never skipped.
    pub fn records(&self, rotation: &RotationId) -> Result<Vec<Record>, JournalError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT sequence, at, epoch, event FROM records WHERE rotation = ?1 ORDER BY sequence")
            .map_err(|e| self.failed("reading records", e))?;
        let rows = statement
            .query_map([rotation.as_str()], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .map_err(|e| self.failed("reading records", e))?;
        rows.map(|row| {
            let (sequence, at, epoch, event) =
                row.map_err(|e| self.failed("reading records", e))?;
            let event: Event = self.decoded(&event, || format!("record {sequence}"))?;
            Ok(Record {
                sequence,
                at: self.time(&at)?,
                epoch: Epoch(epoch),
                event,
            })
        })
        .collect()
    }

    /// The audit trail's records as they were stored, oldest first.
    pub fn audit(&self) -> Result<Vec<String>, JournalError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare("SELECT record FROM audit ORDER BY sequence")
            .map_err(|e| self.failed("reading the trail", e))?;
        let rows = statement
            .query_map([], |row| row.get(0))
            .map_err(|e| self.failed("reading the trail", e))?;
        rows.collect::<Result<_, _>>()
            .map_err(|e| self.failed("reading the trail", e))
    }

    /// The newest of them.
    pub fn last_audit(&self) -> Result<Option<String>, JournalError> {
        self.connection()
            .query_row(LAST_OF_THE_TRAIL, [], |row| row.get(0))
            .optional()
            .map_err(|e| self.failed("reading the trail", e))
    }

    pub(crate) fn decoded<T: serde::de::DeserializeOwned>(
        &self,
        text: &str,
        what: impl Fn() -> String,
    ) -> Result<T, JournalError> {
        serde_json::from_str(text).map_err(|e| JournalError::Corrupt {
            path: self.path.clone(),
            what: format!("{}: {e}", what()),
        })
    }

    pub(crate) fn time(&self, text: &str) -> Result<jiff::Timestamp, JournalError> {
        text.parse().map_err(|e| JournalError::Corrupt {
            path: self.path.clone(),
            what: format!("time {text:?}: {e}"),
        })
    }
}

/// Whether closing the last connection leaves the log as it is, or writes it into the database and deletes it.
pub(crate) fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    let option = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(option, keep).map(drop)
}

/// Runs a statement to its end. Some answer before they commit what they do (`PRAGMA journal_mode` says "wal" first), and one that is
/// left at its first row loses the error of that commit: the database would go on without the log, where a commit is not on the disk
/// when it returns.
pub(crate) fn to_its_end(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_finds_the_same_state_and_private_files() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("deep/state");
        Journal::open(&state).unwrap();
        let journal = Journal::open(&state).unwrap();
        assert_eq!(journal.epoch().unwrap(), Epoch(0));
        for entry in fs::read_dir(&state).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        assert_eq!(
            fs::metadata(&state).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_database_of_the_first_format_gets_what_was_added_since_and_keeps_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let first = Connection::open(&path).unwrap();
        first.execute_batch(TABLES).unwrap();
        let held = "INSERT INTO audit VALUES (1, 'a record'); PRAGMA user_version = 1;";
        first.execute_batch(held).unwrap();
        drop(first);
        for _ in 0..2 {
            let journal = Journal::open(directory.path()).unwrap();
            assert_eq!(journal.audit().unwrap(), ["a record"]);
            assert_eq!(journal.restores().unwrap(), []);
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        Journal::open(directory.path())
            .unwrap()
            .connection()
            .execute_batch("PRAGMA user_version = 99")
            .unwrap();
        assert!(matches!(
            Journal::open(directory.path()),
            Err(JournalError::Newer { found: 99, .. })
        ));
    }

    #[test]
    fn a_file_that_is_no_database_is_reported_as_damaged_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        fs::write(&path, vec![b'x'; 8192]).unwrap();
        assert!(matches!(
            Journal::open(directory.path()),
            Err(JournalError::Corrupt { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 8192]);
    }
}
