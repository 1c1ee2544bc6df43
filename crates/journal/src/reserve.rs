//! Room for the write-ahead log, taken before it is needed.
//!
//! A commit that makes the log longer has the file system write down the new length, and wait for everybody else's writes that share
//! its journal: a database beside it makes such a sync many times slower than one that overwrites. And a disk that fills up would
//! fail a commit in the middle of a rotation. So whoever takes over makes the log long first.
//!
//! `SQLite` reads a log up to the first frame that does not carry the log's own salt and checksum
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>), so zeros after its end are nothing to it. It deletes the log when
//! a writer that was well closes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// More than a rotation writes, and less than the thousand pages after which `SQLite` copies the log into the database.
pub(crate) const ROOM: u64 = 1 << 20;

/// Makes the log of this database at least [`ROOM`] bytes long. The caller is in a write transaction, so nobody else appends to it.
///
/// Written, not only allocated: a block that was never written costs the file system as much as a new one.
pub(crate) fn log_of(database: &Path) -> io::Result<()> {
    let mut log: File = OpenOptions::new().write(true).open(log_path(database))?;
    let end = log.seek(SeekFrom::End(0))?;
    let missing = usize::try_from(ROOM.saturating_sub(end)).unwrap_or(0);
    log.write_all(&vec![0; missing])
}

/// Writes every byte of the log over itself, and syncs it. The caller is in a write transaction, so nobody appends to it meanwhile.
///
/// After a sync that failed, Linux calls the pages clean: they can be read, the next sync succeeds, and they are not on the disk
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>). Whoever wrote such a log into the database, and lost power in the middle, would find a
/// database that is half new and a log with a hole. A page that is written again is not clean any more.
pub(crate) fn renew_log_of(database: &Path) -> io::Result<()> {
    let log = log_path(database);
    let mut file = match OpenOptions::new().read(true).write(true).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// Sees to it that the log is found again after a loss of power. `SQLite` does this itself when it makes the log, and passes over an
/// error of it (`unixSync` in its source).
pub(crate) fn sync_name_of_the_log(database: &Path) -> io::Result<()> {
    let directory = database.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

pub(crate) fn log_path(database: &Path) -> std::path::PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
