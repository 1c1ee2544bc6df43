//! Putting files back, byte for byte, with owner, mode and time.
//!
//! The order is what makes it safe. First the whole archive is read and compared with its list, and every destination is looked at.
//! Then each file is written beside its destination under another name and synced, so that a full disk or a damaged
//! archive shows while nothing has changed. Only then are they renamed into place, each in one atomic step, and the directories synced.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use keyroll_secret::Identity;
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use crate::archive::{self, Stop};
use crate::manifest::{Archive, Manifest, Member, MemberKind};
use crate::open::{PlainReader, contents, no_such_part, sealed};
use crate::place::{Base, Way, look};
use crate::tally::{measure, measure_bytes};
use crate::{BackupError, names};

/// Begins the name of a file that is not in place yet. It is derived from the path, so that a restore after a crash replaces what the
/// former one left.
const UNPLACED: &str = ".keyroll-restore-";

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where they were saved from.
    Original,
    /// Below this existing directory: at their stored path, which for files saved by name is the absolute path without `/`.
    Into(PathBuf),
}

/// What restoring would do to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// There is nothing; it will be made.
    Create,
    /// There is something else, or other content; it will be replaced.
    Replace,
    /// The content is the same; owner, mode or time are not. It will be replaced.
    Adjust,
    /// It is exactly what was saved; it will not be touched.
    Same,
    /// It cannot be restored there, for this reason.
    Blocked(String),
}

/// One line of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Where it goes.
    pub destination: PathBuf,
    /// What was saved.
    pub member: Member,
    /// What would happen.
    pub change: Change,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Put in place.
    pub written: Vec<PathBuf>,
    /// Already as saved; not touched.
    pub same: Vec<PathBuf>,
}

/// A dry run: proves the archive `label` in full and says what restoring it would do. Changes nothing.
///
/// `select` sees each member (paths relative to the archive's base). Directories that exist are left as they are and not listed.
pub fn plan_restore(
    directory: &Path,
    identity: &Identity,
    label: &str,
    place: &Place,
    select: impl Fn(&Member) -> bool,
) -> Result<Vec<Planned>, BackupError> {
    let source = Source::prove(directory, identity, label)?;
    Ok(source.plan(place, &select)?.1)
}

/// Restores the selected files of the archive `label`.
///
/// Refused as a whole, with nothing changed, when the backup is damaged or any destination is blocked: a symbolic link or a file
/// where a directory was, a directory where a file was, a path that climbs. A link *at* the destination is replaced, never written
/// through. Missing directories are made with their saved owner and mode. Restoring again after a failure or a crash is
/// safe. Giving files to other owners needs root.
pub fn restore_files(
    directory: &Path,
    identity: &Identity,
    label: &str,
    place: &Place,
    select: impl Fn(&Member) -> bool,
) -> Result<Restored, BackupError> {
    let source = Source::prove(directory, identity, label)?;
    let (base, planned) = source.plan(place, &select)?;
    let mut restored = Restored::default();
    let mut wanted = BTreeMap::new();
    for line in planned {
        match line.change {
            Change::Blocked(why) => {
                return Err(BackupError::Unsafe {
                    path: line.destination,
                    why,
                });
            }
            Change::Same => restored.same.push(line.destination),
            Change::Create | Change::Replace | Change::Adjust => {
                wanted.insert(line.member.path, line.destination);
            }
        }
    }
    let mut work = Work {
        base: &base,
        archive: &source.archive,
        of: wanted.len(),
        staged: Vec::new(),
    };
    let staged = source.walk(|member, content| match wanted.get(&member.path) {
        Some(destination) => work.stage(member, destination, content),
        None => Ok(()),
    });
    let placed = staged.and_then(|()| work.place());
    if placed.is_err() {
        work.clear();
    }
    placed?;
    restored.written = wanted.into_values().collect();
    Ok(restored)
}

/// An archive that was read in full once.
struct Source<'a> {
    directory: &'a Path,
    identity: &'a Identity,
    archive: Archive,
    file: String,
    plain: crate::Measured,
}

impl<'a> Source<'a> {
    fn prove(
        directory: &'a Path,
        identity: &'a Identity,
        label: &str,
    ) -> Result<Self, BackupError> {
        let file = names::archive_file(names::part(label)?);
        let (manifest, _) = Manifest::read(directory)?;
        let mut contents = contents(directory, &manifest, identity)?;
        let missing = || no_such_part(directory, label, &manifest);
        let item = manifest
            .files
            .iter()
            .find(|i| i.file == file)
            .ok_or_else(missing)?;
        if sealed(directory, &file)?.as_ref() != Some(&item.sealed) {
            return Err(BackupError::damaged(
                directory,
                &file,
                "missing, or not the bytes that were written",
            ));
        }
        let plain = contents.plain.remove(&file).ok_or_else(missing)?;
        let position = contents
            .archives
            .iter()
            .position(|a| a.label == label)
            .ok_or_else(missing)?;
        let archive = contents.archives.swap_remove(position);
        // The list is encrypted, not signed: whoever could write here could have made all of it.
        if let Some(member) = archive
            .members
            .iter()
            .find(|m| !names::stays_inside(&m.path))
        {
            let why = "the stored path is not a plain relative one".to_owned();
            return Err(BackupError::Unsafe {
                path: member.path.clone(),
                why,
            });
        }
        let source = Self {
            directory,
            identity,
            archive,
            file,
            plain,
        };
        source.walk(|_, _| Ok(()))?;
        Ok(source)
    }

    fn walk(
        &self,
        visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let plain = PlainReader::open(
            self.directory,
            &self.file,
            self.plain.clone(),
            self.identity,
        )?;
        archive::walk(plain, &self.archive, visit).map_err(|stop| match stop {
            Stop::Damaged(what) => BackupError::damaged(self.directory, &self.file, what),
            Stop::Visitor(error) => error,
        })
    }

    fn plan(
        &self,
        place: &Place,
        select: &dyn Fn(&Member) -> bool,
    ) -> Result<(Base, Vec<Planned>), BackupError> {
        let root = match place {
            Place::Original => &self.archive.base,
            Place::Into(directory) => directory,
        };
        let blocked = |why: String| BackupError::Unsafe {
            path: root.clone(),
            why,
        };
        let real = std::fs::canonicalize(root)
            .map_err(|e| blocked(format!("{e}; make the directory first")))?;
        if *place == Place::Original && real != *root {
            let why = format!(
                "it now leads to {}; restore into a directory of your choice",
                real.display()
            );
            return Err(blocked(why));
        }
        let base = Base::open(&real).map_err(|e| blocked(e.to_string()))?;
        let mut planned = Vec::new();
        for member in self.archive.members.iter().filter(|m| select(m)) {
            let change = change(&base, member);
            if member.kind == MemberKind::Directory && change == Change::Same {
                continue;
            }
            planned.push(Planned {
                destination: root.join(&member.path),
                member: member.clone(),
                change,
            });
        }
        Ok((base, planned))
    }
}

/// Compares one destination with what was saved.
fn change(base: &Base, member: &Member) -> Change {
    let blocked = |e: io::Error| Change::Blocked(format!("cannot be looked at: {e}"));
    let parent = match base.parent(&member.path, |_, _, _| Ok(false)) {
        Ok(parent) => parent,
        Err(Way::Missing) => return Change::Create,
        Err(Way::Failed(e)) => return blocked(e),
        Err(Way::Barred(at)) => {
            return Change::Blocked(format!(
                "{} is a symbolic link or no directory",
                at.display()
            ));
        }
    };
    let name = file_name(&member.path);
    let (kind, stat) = match look(&parent, name) {
        Ok(Some(found)) => found,
        Ok(None) => return Change::Create,
        Err(e) => return blocked(e),
    };
    let same_content = match (&member.kind, kind) {
        (MemberKind::Directory, FileType::Directory) => return Change::Same,
        (MemberKind::Directory, _) => {
            return Change::Blocked("a directory was saved, and something else is there".into());
        }
        (_, FileType::Directory) => return Change::Blocked("a directory is there now".into()),
        (MemberKind::Symlink { target }, FileType::Symlink) => {
            fs::readlinkat(&parent, name, Vec::new())
                .map(|text| text.as_bytes() == target.as_os_str().as_bytes())
                .map_err(io::Error::from)
        }
        (MemberKind::File(saved), FileType::RegularFile) => open_file(&parent, name)
            .and_then(|file| measure(io::BufReader::with_capacity(1 << 16, file)))
            .map(|found| found == *saved),
        _ => Ok(false),
    };
    match same_content {
        Err(e) => blocked(e),
        Ok(false) => Change::Replace,
        Ok(true) => {
            let modes_agree = kind == FileType::Symlink || stat.st_mode & 0o7777 == member.mode;
            let times_agree = (stat.st_mtime, stat.st_mtime_nsec)
                == (member.mtime, u64::from(member.mtime_nanos));
            let same = modes_agree
                && times_agree
                && (stat.st_uid, stat.st_gid) == (member.uid, member.gid);
            if same { Change::Same } else { Change::Adjust }
        }
    }
}

/// The second half: files beside their destinations, then in place.
struct Work<'a> {
    base: &'a Base,
    archive: &'a Archive,
    of: usize,
    staged: Vec<(Member, PathBuf)>,
}

impl Work<'_> {
    fn stage(
        &mut self,
        member: &Member,
        destination: &Path,
        content: &mut dyn Read,
    ) -> Result<(), BackupError> {
        let parent = self.parent(member, destination, 0)?;
        let name = file_name(&member.path);
        let error = |source: io::Error| self.failed(destination, 0, source);
        if member.kind == MemberKind::Directory {
            // A selected file may have made it on its way here.
            return self
                .make_directory(&parent, name, &member.path)
                .map(drop)
                .map_err(error);
        }
        let unplaced = unplaced(&member.path);
        match fs::unlinkat(&parent, &unplaced, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(error(e.into())),
        }
        // Noted first: what fails halfway has to be cleared too.
        self.staged.push((member.clone(), destination.to_owned()));
        write_beside(&parent, &unplaced, member, content)
            .map_err(|e| self.failed(destination, 0, e))
    }

    fn place(&mut self) -> Result<(), BackupError> {
        let mut directories = BTreeMap::new();
        for (done, (member, destination)) in self.staged.iter().enumerate() {
            let error = |e: Errno| self.failed(destination, done, e.into());
            let parent = self.parent(member, destination, done)?;
            fs::renameat(
                &parent,
                unplaced(&member.path),
                &parent,
                file_name(&member.path),
            )
            .map_err(error)?;
            directories.insert(member.path.parent(), (member, destination));
        }
        for (member, destination) in directories.values() {
            let parent = self.parent(member, destination, self.staged.len())?;
            fs::fsync(parent).map_err(|e| self.failed(destination, self.staged.len(), e.into()))?;
        }
        Ok(())
    }

    /// Takes away what was not renamed. What cannot be taken away is private, and the next restore replaces it.
    fn clear(&self) {
        for (member, _) in &self.staged {
            if let Ok(parent) = self.base.parent(&member.path, |_, _, _| Ok(false)) {
                let _ = fs::unlinkat(&parent, unplaced(&member.path), AtFlags::empty());
            }
        }
    }

    fn parent(
        &self,
        member: &Member,
        destination: &Path,
        done: usize,
    ) -> Result<OwnedFd, BackupError> {
        let made = self.base.parent(&member.path, |at, name, path| {
            self.make_directory(at, name, path)
        });
        made.map_err(|way| match way {
            Way::Missing => self.failed(destination, done, io::ErrorKind::NotFound.into()),
            Way::Failed(source) => self.failed(destination, done, source),
            Way::Barred(at) => {
                let why = format!("{} became a symbolic link or no directory", at.display());
                BackupError::Unsafe {
                    path: destination.to_owned(),
                    why,
                }
            }
        })
    }

    /// Makes a missing directory as it was saved; false when it was not saved.
    fn make_directory(&self, at: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<bool> {
        let listed = self
            .archive
            .members
            .iter()
            .find(|m| m.path == path && m.kind == MemberKind::Directory);
        let Some(member) = listed else {
            return Ok(false);
        };
        match fs::mkdirat(at, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(at, name, flags, Mode::empty())?;
        fs::fchown(
            &made,
            Some(Uid::from_raw(member.uid)),
            Some(Gid::from_raw(member.gid)),
        )?;
        fs::fchmod(&made, Mode::from_raw_mode(member.mode))?;
        fs::fsync(&made)?;
        fs::fsync(at)?;
        Ok(true)
    }

    fn failed(&self, path: &Path, done: usize, source: io::Error) -> BackupError {
        BackupError::Restore {
            path: path.to_owned(),
            done,
            of: self.of,
            source,
        }
    }
}

/// Writes a file or link under the name `unplaced`, complete with owner, mode and time, and syncs it.
fn write_beside(
    parent: &OwnedFd,
    unplaced: &OsStr,
    member: &Member,
    content: &mut dyn Read,
) -> io::Result<()> {
    let (uid, gid) = (
        Some(Uid::from_raw(member.uid)),
        Some(Gid::from_raw(member.gid)),
    );
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: member.mtime,
            tv_nsec: member.mtime_nanos.into(),
        },
    };
    if let MemberKind::Symlink { target } = &member.kind {
        fs::symlinkat(target, parent, unplaced)?;
        fs::chownat(parent, unplaced, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        fs::utimensat(parent, unplaced, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(
        parent,
        unplaced,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    io::copy(content, &mut file)?;
    // Owner before mode: changing the owner takes setuid and setgid away.
    fs::fchown(&file, uid, gid)?;
    fs::fchmod(&file, Mode::from_raw_mode(member.mode))?;
    fs::futimens(&file, &times)?;
    file.sync_all()
}

fn open_file(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(parent, name, flags, Mode::empty())?))
}

fn file_name(path: &Path) -> &OsStr {
    path.file_name()
        .expect("plain relative paths have a last name")
}

fn unplaced(path: &Path) -> OsString {
    let hash = measure_bytes(path.as_os_str().as_bytes()).sha256;
    format!("{UNPLACED}{}", &hash[..16]).into()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("create"),
            Self::Replace => f.write_str("replace"),
            Self::Adjust => f.write_str("set owner, mode and time"),
            Self::Same => f.write_str("unchanged"),
            Self::Blocked(why) => write!(f, "blocked: {why}"),
        }
    }
}
