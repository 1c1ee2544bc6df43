//! How much room a backup needs, and how much there is: measured before anything starts, not guessed.

use std::fs;
use std::io;
use std::path::Path;

use crate::collect::{self, Collected};
use crate::{BackupError, names};

/// Kept free besides: the same disk often takes the new env file, logs and the database itself.
pub const RESERVE: u64 = 16 << 20;

/// Free bytes for an unprivileged process on the file system of `path`, or of the nearest directory above it that exists.
pub fn available(path: &Path) -> Result<u64, BackupError> {
    let existing = path
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing).map_err(|e| BackupError::look(existing, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that an archive of these files would hold before compression, with tar's overhead: what
/// [`crate::BackupWriter::add_files`] would save.
pub fn of_files<P: AsRef<Path>>(paths: &[P]) -> Result<u64, BackupError> {
    measure(&collect::files(paths)?)
}

/// The same for [`crate::BackupWriter::add_globs`]. Walks the whole tree below `root`.
pub fn of_globs<S: AsRef<str>>(
    root: &Path,
    globs: &[S],
    backup_root: &Path,
) -> Result<u64, BackupError> {
    let never = fs::canonicalize(backup_root).unwrap_or_else(|_| backup_root.to_owned());
    measure(&collect::globs(root, globs, &never)?)
}

/// Bytes to have free before a backup starts: files at full size, a dump at five quarters of the database's size
/// (`pg_database_size`), the overhead of age and [`RESERVE`].
///
/// The rule is an upper estimate for `pg_dump`'s compressed formats, not a proof. It is usually far too much: indexes, free
/// space and dead rows count into the database's size and are not dumped. It can be too little for a database that is mostly
/// compressed large values: they are stored compressed by the server (TOAST) but dumped from their full size, binary ones as two
/// digits a byte. A dump that outgrows it ends in [`BackupError::NoSpace`] and an unfinished backup, before anything of the
/// stack has changed. For a plain-text dump the rule does not hold.
pub fn needed(files: u64, database: u64) -> u64 {
    let plain = files.saturating_add(database.saturating_add(database / 4));
    // 16 bytes for each block of 64 KiB, and less than a page of header for each part.
    plain.saturating_add(plain / 4096).saturating_add(RESERVE)
}

fn measure(found: &Collected) -> Result<u64, BackupError> {
    let mut sum = 1024_u64;
    for member in &found.members {
        let path = found.base.join(member);
        let size = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => 0,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !found.strict => 0,
            Err(e) => return Err(BackupError::source(&path, e)),
        };
        // A header, the content in blocks of 512, and as much again for a long name; its line in the contents.
        let names = 3 * names::path_text::encode(member).len() as u64 + 512;
        sum = sum.saturating_add(size.div_ceil(512) * 512 + 1024 + names);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_that_of_the_directory_that_will_hold_the_root() {
        let tmp = tempfile::tempdir().unwrap();
        let there = available(tmp.path()).unwrap();
        let later = available(&tmp.path().join("not/yet/made")).unwrap();
        assert!(there > 0);
        assert!(there.abs_diff(later) < 1 << 30, "{there} {later}");
    }

    #[test]
    fn the_need_grows_with_files_and_database_and_never_overflows() {
        assert!(needed(0, 0) >= RESERVE);
        assert!(needed(1000, 1 << 30) > (1 << 30) + (1 << 28) + 1000);
        assert_eq!(needed(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_size_of_files_is_measured() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("a");
        fs::write(&file, vec![0; 10_000]).unwrap();
        let size = of_files(&[&file]).unwrap();
        assert!((10_000..30_000).contains(&size), "{size}");
        assert!(of_globs(tmp.path(), &["*"], Path::new("/none")).unwrap() < size);
    }
}
