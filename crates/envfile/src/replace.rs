//! Replacing a file on disk: the whole old one or the whole new one, at every instant, with the same owner and rights.
//!
//! The new file is another inode. A container that bind-mounts the single file keeps the old one until it is recreated.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, Stat, StatVfsMountFlags, StatxAttributes,
    StatxFlags, Uid,
};
use rustix::io::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::attributes;

/// Why a file was not replaced. Unless [`ReplaceError::may_have_landed`], it is untouched and nothing is left beside it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// A rename would replace the link, not the file it points to.
    #[error(
        "{path} is a symbolic link to {to}; name the file itself in the profile; nothing was changed"
    )]
    Symlink {
        /// The target as given.
        path: PathBuf,
        /// Where it points, as written in the link.
        to: PathBuf,
    },
    /// Not a regular file.
    #[error("{path} is {what}, not a regular file; nothing was changed")]
    NotAFile {
        /// The target.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A rename would leave the other names with the old content.
    #[error(
        "{path} has {links} hard links, which a replacement would split; remove the others (find -inum {inode}), then start again; nothing was changed"
    )]
    HardLinks {
        /// The target.
        path: PathBuf,
        /// How many names the file has.
        links: u64,
        /// Its inode, to find the names by.
        inode: u64,
    },
    /// The file, or the directory it is in, has the immutable or append-only flag.
    #[error(
        "{path} is immutable or append-only (lsattr -d); take the flag off (chattr -i -a), then start again; nothing was changed"
    )]
    Immutable {
        /// The file or its directory.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error(
        "{path} is on a read-only file system; mount it read-write, then start again; nothing was changed"
    )]
    ReadOnly {
        /// The target.
        path: PathBuf,
    },
    /// Something is mounted on the file, such as a bind mount; it cannot be renamed over.
    #[error("{path} is a mount point; run keyroll where the file itself is; nothing was changed")]
    MountPoint {
        /// The target.
        path: PathBuf,
    },
    /// The file is no longer what the new content was made from.
    #[error(
        "{path} was edited by somebody else meanwhile; start again from its present content; keyroll changed nothing"
    )]
    Changed {
        /// The target.
        path: PathBuf,
    },
    /// An extended attribute or ACL cannot be carried over.
    #[error("{path}: attribute {name} cannot be kept ({reason}); nothing was changed")]
    Attribute {
        /// The target.
        path: PathBuf,
        /// The attribute's name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {doing} {path}: {source}; nothing was changed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The rename failed, and what is there now could not be looked at.
    #[error(
        "{path}: the rename failed ({source}) and the file cannot be looked at; read it before anything else"
    )]
    Indeterminate {
        /// The target.
        path: PathBuf,
        /// Why the rename failed.
        source: io::Error,
    },
    /// The new file is in place, but a power failure may still bring the old one back.
    #[error(
        "{path} has its new content, but its directory could not be synced ({source}); a power failure may bring the old one back"
    )]
    NotDurable {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ReplaceError {
    /// Whether the new content may be in place: read the file before anything else.
    pub fn may_have_landed(&self) -> bool {
        matches!(self, Self::Indeterminate { .. } | Self::NotDurable { .. })
    }
}

/// New content beside its target, complete and synced, and not yet in force. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    target: Target,
    name: OsString,
    file: File,
    renamed: bool,
}

impl Staged {
    /// Writes `new` beside the file at `path`, with its owner, group, mode, ACL and extended attributes, and syncs it.
    /// `expected` is the content `new` was made from: if the file holds anything else, this is [`ReplaceError::Changed`].
    ///
    /// The file at `path` must exist; everything that [`check_replaceable`] refuses is refused. While it is written the new
    /// file has mode 0600, and it never gives anybody more rights than the old one. Blocks on the disk (fsync).
    pub fn write(path: &Path, expected: &[u8], new: &[u8]) -> Result<Self, ReplaceError> {
        let target = Target::open(path)?;
        if target.content()?.as_slice() != expected {
            return Err(ReplaceError::Changed { path: path.into() });
        }
        let (name, file) = target.create()?;
        // From here on, every return drops `staged`, which removes the file.
        let mut staged = Self {
            target,
            name,
            file,
            renamed: false,
        };
        staged.fill(new)?;
        Ok(staged)
    }

    /// Where the new content is: for another program to look at before it is in force. Same directory as the target.
    pub fn path(&self) -> PathBuf {
        self.target.beside(&self.name)
    }

    /// Renames the new file over the old one and syncs the directory. Refused with [`ReplaceError::Changed`] when the old one
    /// was touched since [`Staged::write`]. Blocks on the disk.
    pub fn commit(mut self) -> Result<(), ReplaceError> {
        if !self.target.is_as_it_was()? {
            return Err(ReplaceError::Changed {
                path: self.target.path.clone(),
            });
        }
        let dir = &self.target.dir;
        if let Err(failed) = rustix::fs::renameat(dir, &self.name, dir, &self.target.name) {
            // On a network file system a rename that reports an error may have happened: look.
            let now = rustix::fs::statat(dir, &self.target.name, AtFlags::SYMLINK_NOFOLLOW);
            let mine = rustix::fs::fstat(&self.file);
            match (now, mine) {
                (Ok(now), Ok(mine)) if now.st_ino == mine.st_ino && now.st_dev == mine.st_dev => {}
                (Ok(_), Ok(_)) => return Err(self.target.error("replace", failed)),
                _ => {
                    self.renamed = true; // leave both names as they are for whoever looks
                    return Err(ReplaceError::Indeterminate {
                        path: self.target.path.clone(),
                        source: failed.into(),
                    });
                }
            }
        }
        self.renamed = true;
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.target.dir)).map_err(|e| {
            ReplaceError::NotDurable {
                path: self.target.path.clone(),
                source: e.into(),
            }
        })
    }

    /// Removes the new file; the old one was never touched.
    pub fn discard(mut self) -> Result<(), ReplaceError> {
        self.renamed = true;
        rustix::fs::unlinkat(&self.target.dir, &self.name, AtFlags::empty())
            .map_err(|e| io_error("remove", self.path(), e))
    }

    fn fill(&mut self, new: &[u8]) -> Result<(), ReplaceError> {
        let path = self.path();
        let failed = |doing, e: io::Error| ReplaceError::Io {
            doing,
            path: path.clone(),
            source: e,
        };
        // A default ACL of the directory would otherwise stay on it.
        attributes::clear_acl(self.file.as_fd())
            .map_err(|e| failed("take the inherited ACL off", e))?;
        self.file.write_all(new).map_err(|e| failed("write", e))?;
        // Order matters: mode 0600 until the owner is right, and the ACL before the mode, whose group bits are the
        // ACL's mask and would otherwise open the file to the group for a moment.
        let stat = &self.target.stat;
        rustix::fs::fchown(
            &self.file,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )
        .map_err(|e| failed("keep owner and group on", e.into()))?;
        attributes::copy(self.target.file.as_fd(), self.file.as_fd()).map_err(
            |(name, reason)| ReplaceError::Attribute {
                path: self.target.path.clone(),
                name,
                reason,
            },
        )?;
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(|e| failed("keep the mode on", e.into()))?;
        self.file.sync_all().map_err(|e| failed("sync", e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.renamed {
            // Nobody to tell; what stays is found by `leftovers`.
            let _ = rustix::fs::unlinkat(&self.target.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Looks whether the file at `path` could be replaced, as far as that can be seen without writing. Blocks on the disk for a
/// moment.
pub fn check_replaceable(path: &Path) -> Result<(), ReplaceError> {
    Target::open(path).map(drop)
}

/// Files that a killed run has left beside `path`: new content that never came into force. Only keyroll's own names are
/// taken. A run that is still alive has one too, so call this under the stack's lock. Blocks on the disk.
pub fn leftovers(path: &Path) -> Result<Vec<PathBuf>, ReplaceError> {
    let (parent, name) = split(path)?;
    let failed = |e| ReplaceError::Io {
        doing: "list",
        path: parent.clone(),
        source: e,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_temp_name(name, &entry.file_name()) && entry.file_type().map_err(failed)?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the [`leftovers`] of `path` and syncs the directory; the answer says which. Blocks on the disk.
pub fn remove_leftovers(path: &Path) -> Result<Vec<PathBuf>, ReplaceError> {
    let found = leftovers(path)?;
    for file in &found {
        std::fs::remove_file(file).map_err(|e| ReplaceError::Io {
            doing: "remove the leftover",
            path: file.clone(),
            source: e,
        })?;
    }
    if !found.is_empty() {
        let (parent, _) = split(path)?;
        File::open(&parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| ReplaceError::Io {
                doing: "sync",
                path: parent,
                source: e,
            })?;
    }
    Ok(found)
}

/// The file to be replaced, open and checked.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    parent: PathBuf,
    name: OsString,
    /// Everything goes through this, so that a directory that is moved meanwhile does no harm.
    dir: OwnedFd,
    file: OwnedFd,
    stat: Stat,
}

impl Target {
    fn open(path: &Path) -> Result<Self, ReplaceError> {
        let (parent, name) = split(path)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&parent, flags | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| io_error("open the directory", &parent, e))?;
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| io_error("look at", path, e))?;
        check_kind(path, &dir, name, &stat)?;
        // NONBLOCK and NOFOLLOW in case something else has taken its place just now.
        let file = rustix::fs::openat(
            &dir,
            name,
            flags | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
        )
        .map_err(|e| io_error("open", path, e))?;
        let opened = rustix::fs::fstat(&file).map_err(|e| io_error("look at", path, e))?;
        if !same_file(&stat, &opened) {
            return Err(ReplaceError::Changed { path: path.into() });
        }
        let target = Self {
            path: path.into(),
            parent: parent.clone(),
            name: name.to_owned(),
            dir,
            file,
            stat: opened,
        };
        target.check_place()?;
        Ok(target)
    }

    fn check_place(&self) -> Result<(), ReplaceError> {
        let mount = rustix::fs::fstatvfs(&self.dir).map_err(|e| self.error("look at", e))?;
        if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(ReplaceError::ReadOnly {
                path: self.path.clone(),
            });
        }
        if self.is_mount_point()? {
            return Err(ReplaceError::MountPoint {
                path: self.path.clone(),
            });
        }
        for (fd, path) in [(&self.file, &self.path), (&self.dir, &self.parent)] {
            match rustix::fs::ioctl_getflags(fd) {
                Ok(flags) if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) => {
                    return Err(ReplaceError::Immutable { path: path.clone() });
                }
                // File systems without such flags.
                Ok(_) | Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(e) => return Err(io_error("read the flags of", path, e)),
            }
        }
        Ok(())
    }

    fn is_mount_point(&self) -> Result<bool, ReplaceError> {
        match rustix::fs::statx(
            &self.dir,
            &self.name,
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
            StatxFlags::empty(),
        ) {
            Ok(seen) => Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
            // Kernels before 5.8 cannot say; the rename itself is refused there.
            Err(Errno::NOSYS) => Ok(false),
            Err(e) => Err(self.error("look at", e)),
        }
    }

    fn content(&self) -> Result<Zeroizing<Vec<u8>>, ReplaceError> {
        let size = usize::try_from(self.stat.st_size).unwrap_or(0);
        let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
        let mut file = File::from(self.file.try_clone().map_err(|e| self.failed("read", e))?);
        file.read_to_end(&mut content)
            .map_err(|e| self.failed("read", e))?;
        Ok(content)
    }

    /// A new file beside it, mode 0600, with a name that [`leftovers`] knows.
    fn create(&self) -> Result<(OsString, File), ReplaceError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A former process with the same id may have left a file with the first names.
        for _ in 0..1000 {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = temp_name(&self.name, std::process::id(), number);
            match rustix::fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((name, File::from(file))),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(io_error("create", self.beside(&name), e)),
            }
        }
        Err(self.error("find a free name beside", Errno::EXIST))
    }

    fn is_as_it_was(&self) -> Result<bool, ReplaceError> {
        match rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            // Every write, change of mode and rename moves the change time, which nobody can set back.
            Ok(now) => Ok(same_file(&self.stat, &now)
                && (now.st_ctime, now.st_ctime_nsec)
                    == (self.stat.st_ctime, self.stat.st_ctime_nsec)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.error("look at", e)),
        }
    }

    fn beside(&self, name: &OsStr) -> PathBuf {
        self.parent.join(name)
    }

    fn error(&self, doing: &'static str, e: Errno) -> ReplaceError {
        io_error(doing, &self.path, e)
    }

    fn failed(&self, doing: &'static str, e: io::Error) -> ReplaceError {
        ReplaceError::Io {
            doing,
            path: self.path.clone(),
            source: e,
        }
    }
}

fn check_kind(path: &Path, dir: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<(), ReplaceError> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_nlink > 1 => {
            return Err(ReplaceError::HardLinks {
                path: path.into(),
                links: stat.st_nlink,
                inode: stat.st_ino,
            });
        }
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => {
            let to = rustix::fs::readlinkat(dir, name, Vec::new())
                .map_err(|e| io_error("read the link", path, e))?;
            return Err(ReplaceError::Symlink {
                path: path.into(),
                to: OsString::from_vec(to.into_bytes()).into(),
            });
        }
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    };
    Err(ReplaceError::NotAFile {
        path: path.into(),
        what,
    })
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

pub(crate) fn split(path: &Path) -> Result<(PathBuf, &OsStr), ReplaceError> {
    let name = path.file_name().ok_or_else(|| ReplaceError::NotAFile {
        path: path.into(),
        what: "a directory",
    })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((parent, name))
}

const MARK: &str = ".keyroll-";
const END: &str = ".tmp";

pub(crate) fn temp_name(target: &OsStr, pid: u32, number: u32) -> OsString {
    let mut name = OsString::from(".");
    name.push(target);
    name.push(format!("{MARK}{pid}-{number}{END}"));
    name
}

fn is_temp_name(target: &OsStr, name: &OsStr) -> bool {
    let number = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    name.as_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(target.as_bytes()))
        .and_then(|rest| rest.strip_prefix(MARK.as_bytes()))
        .and_then(|rest| rest.strip_suffix(END.as_bytes()))
        .and_then(|rest| {
            let dash = rest.iter().position(|b| *b == b'-')?;
            Some(number(&rest[..dash]) && number(&rest[dash + 1..]))
        })
        .unwrap_or(false)
}

fn io_error(doing: &'static str, path: impl Into<PathBuf>, e: Errno) -> ReplaceError {
    ReplaceError::Io {
        doing,
        path: path.into(),
        source: e.into(),
    }
}
