//! A file that is gone, made again.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use crate::replace::{ReplaceError, split, temp_name};

/// Owner, group and permission bits of a file.
pub type Owner = (u32, u32, u32);

/// Makes the file at `path` again, whole: written beside with mode 0600, given its owner and mode, synced, and renamed. If somebody
/// has put a file there meanwhile, theirs stays, and this is [`ReplaceError::Changed`]. Blocks on the disk (fsync).
///
/// What else the file had, such as an ACL, went with it.
pub fn make_again(path: &Path, content: &[u8], owner: Owner) -> Result<(), ReplaceError> {
    let (parent, name) = split(path)?;
    // Number 0 of this process: it stages one file at a time.
    let beside = parent.join(temp_name(name, std::process::id(), 0));
    let failed = |doing| {
        move |source: io::Error| ReplaceError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        let (user, group, mode) = owner;
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    let made =
        write().map_err(failed("make again")).and_then(|()| {
            match rustix::fs::renameat_with(CWD, &beside, CWD, path, RenameFlags::NOREPLACE) {
                Err(rustix::io::Errno::EXIST) => Err(ReplaceError::Changed { path: path.into() }),
                other => other.map_err(|e| failed("make again")(e.into())),
            }
        });
    if made.is_err() {
        let _ = std::fs::remove_file(&beside);
        return made;
    }
    File::open(&parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| ReplaceError::NotDurable {
            path: path.into(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_gone_is_back_with_owner_and_mode_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        let own = std::fs::metadata(directory.path()).unwrap();
        make_again(&path, b"A=1\n", (own.uid(), own.gid(), 0o640)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"A=1\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_somebody_has_put_there_meanwhile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        std::fs::write(&path, "theirs").unwrap();
        let own = std::fs::metadata(&path).unwrap();
        let refused = make_again(&path, b"A=1\n", (own.uid(), own.gid(), 0o600));
        assert!(matches!(refused, Err(ReplaceError::Changed { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
