//! Reaching a place below a directory without ever passing a symbolic link.
//!
//! A path is only text: between a check and its use somebody can put a link in the way. So every directory on the way is opened by
//! its own name, relative to the one before, with `O_NOFOLLOW`, and what follows works relative to the last one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::names;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A directory that everything stays below. The way to the directory itself is the caller's and is trusted.
pub(crate) struct Base {
    handle: OwnedFd,
}

/// Why a place cannot be reached.
#[derive(Debug)]
pub(crate) enum Way {
    /// A directory on the way does not exist.
    Missing,
    /// A symbolic link, or something else that is no directory, is in the way.
    Barred(PathBuf),
    /// Could not look.
    Failed(io::Error),
}

impl Base {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let handle = fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { handle })
    }

    /// The directory that holds `relative`; `make` is asked to make each one that is missing.
    pub(crate) fn parent(
        &self,
        relative: &Path,
        mut make: impl FnMut(&OwnedFd, &OsStr, &Path) -> io::Result<bool>,
    ) -> Result<OwnedFd, Way> {
        if !names::stays_inside(relative) {
            return Err(Way::Barred(relative.to_owned()));
        }
        let mut handle = self.handle.try_clone().map_err(Way::Failed)?;
        let mut so_far = PathBuf::new();
        for name in relative.parent().unwrap_or(Path::new("")) {
            so_far.push(name);
            let open =
                |at: &OwnedFd| fs::openat(at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            let opened = match open(&handle) {
                Err(Errno::NOENT) if make(&handle, name, &so_far).map_err(Way::Failed)? => {
                    open(&handle)
                }
                other => other,
            };
            handle = opened.map_err(|e| match e {
                Errno::NOENT => Way::Missing,
                Errno::LOOP | Errno::NOTDIR => Way::Barred(so_far.clone()),
                other => Way::Failed(other.into()),
            })?;
        }
        Ok(handle)
    }
}

/// What is in `directory` under `name`, links not followed; `None` when nothing is.
pub(crate) fn look(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<(FileType, Stat)>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
