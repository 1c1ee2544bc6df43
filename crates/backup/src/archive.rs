//! One archive: a gzipped tar in the GNU format, and the list of what it must hold.
//!
//! The tar is for people with stock tools. keyroll itself goes by the list in the encrypted contents, and reads the tar only
//! in step with it: a member that is not the next one of the list is damage, whatever its header says.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use tar::{EntryType, Header};

use crate::BackupError;
use crate::collect::Collected;
use crate::manifest::{Archive, Member, MemberKind, Note, NoteKind};
use crate::tally::Tally;

/// Longest link text that fits a header; a longer one needs GNU's extension.
const LINK_IN_HEADER: usize = 100;

/// Writes everything that was collected; `file` is where `sink` leads, for errors.
pub(crate) fn write<W: Write>(
    sink: W,
    file: &Path,
    label: &str,
    collected: Collected,
) -> Result<(W, Archive), BackupError> {
    // Speed before size: it is written while operators wait, and read hardly ever.
    let mut tar = tar::Builder::new(GzEncoder::new(sink, Compression::fast()));
    let mut archive = Archive {
        label: label.to_owned(),
        base: collected.base,
        members: Vec::with_capacity(collected.members.len()),
        notes: collected.notes,
    };
    for path in collected.members {
        match add(&mut tar, file, &archive.base, &path, collected.strict)? {
            Outcome::Saved(member) => archive.members.push(member),
            Outcome::Mixed(member) => {
                archive.members.push(member);
                archive.notes.push(Note {
                    path,
                    kind: NoteKind::ChangedWhileRead,
                });
            }
            Outcome::Not(kind) => archive.notes.push(Note { path, kind }),
        }
    }
    let written = |e| BackupError::write(file, e);
    let sink = tar
        .into_inner()
        .map_err(written)?
        .finish()
        .map_err(written)?;
    Ok((sink, archive))
}

enum Outcome {
    Saved(Member),
    Mixed(Member),
    Not(NoteKind),
}

fn add<W: Write>(
    tar: &mut tar::Builder<W>,
    file: &Path,
    base: &Path,
    path: &Path,
    strict: bool,
) -> Result<Outcome, BackupError> {
    let real = base.join(path);
    let source = |e| BackupError::source(&real, e);
    let written = |e| BackupError::write(file, e);
    let gone = |e: &io::Error| !strict && e.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::symlink_metadata(&real) {
        Ok(metadata) => metadata,
        Err(e) if gone(&e) => return Ok(Outcome::Not(NoteKind::Vanished)),
        Err(e) => return Err(source(e)),
    };
    if metadata.is_dir() {
        let (member, mut header) = describe(path, MemberKind::Directory, &metadata);
        tar.append_data(&mut header, path, io::empty())
            .map_err(written)?;
        return Ok(Outcome::Saved(member));
    }
    if metadata.is_symlink() {
        let target = match fs::read_link(&real) {
            Ok(target) => target,
            Err(e) if gone(&e) => return Ok(Outcome::Not(NoteKind::Vanished)),
            Err(e) => return Err(source(e)),
        };
        let kind = MemberKind::Symlink {
            target: target.clone(),
        };
        let (member, mut header) = describe(path, kind, &metadata);
        let text = target.as_os_str().as_bytes();
        if text.len() <= LINK_IN_HEADER {
            // Literally: the other way tidies `a//b` and `./a`.
            header.set_link_name_literal(text).map_err(written)?;
            tar.append_data(&mut header, path, io::empty())
                .map_err(written)?;
        } else {
            tar.append_link(&mut header, path, &target)
                .map_err(written)?;
        }
        return Ok(Outcome::Saved(member));
    }
    if !metadata.is_file() {
        return Ok(Outcome::Not(NoteKind::Special));
    }
    // It may have been replaced since the look: by a link (refused by NOFOLLOW) or a pipe (NONBLOCK, so that nothing hangs).
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(&real);
    let handle = match opened {
        Ok(handle) => handle,
        Err(e) if gone(&e) => return Ok(Outcome::Not(NoteKind::Vanished)),
        Err(e) => return Err(source(e)),
    };
    let before = handle.metadata().map_err(source)?;
    if !before.is_file() {
        return Err(BackupError::Changed { path: real });
    }
    let size = before.len();
    let placeholder = MemberKind::File(crate::Measured {
        bytes: size,
        sha256: String::new(),
    });
    let (mut member, mut header) = describe(path, placeholder, &before);
    let mut reader = Source {
        inner: Tally::new((&handle).take(size)),
        failed: None,
    };
    let appended = tar.append_data(&mut header, path, &mut reader);
    if let Some(e) = reader.failed {
        return Err(source(e));
    }
    appended.map_err(written)?;
    let (_, measured) = reader.inner.finish();
    let after = handle.metadata().map_err(source)?;
    let short = measured.bytes != size;
    let touched = (after.len(), after.mtime(), after.mtime_nsec())
        != (size, before.mtime(), before.mtime_nsec());
    member.kind = MemberKind::File(measured);
    // A short file has already broken the tar, whose header announced the full size.
    if short || (touched && strict) {
        return Err(BackupError::Changed { path: real });
    }
    Ok(if touched {
        Outcome::Mixed(member)
    } else {
        Outcome::Saved(member)
    })
}

/// The list's entry and the tar's header for one file.
fn describe(path: &Path, kind: MemberKind, metadata: &Metadata) -> (Member, Header) {
    let member = Member {
        path: path.to_owned(),
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: metadata.mtime(),
        mtime_nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    };
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type(&member.kind));
    header.set_mode(member.mode);
    header.set_uid(member.uid.into());
    header.set_gid(member.gid.into());
    header.set_mtime(tar_time(&member));
    header.set_size(member.bytes());
    (member, header)
}

fn entry_type(kind: &MemberKind) -> EntryType {
    match kind {
        MemberKind::File(_) => EntryType::Regular,
        MemberKind::Symlink { .. } => EntryType::Symlink,
        MemberKind::Directory => EntryType::Directory,
    }
}

/// tar has whole seconds and nothing before 1970; the list has the rest.
fn tar_time(member: &Member) -> u64 {
    u64::try_from(member.mtime).unwrap_or(0)
}

/// Remembers a failure to read what is saved, which `tar` mixes with failures to write.
struct Source<'a> {
    inner: Tally<io::Take<&'a File>>,
    failed: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|e| {
            let kind = e.kind();
            // An interrupted read is tried again by the copy; only what it gives up on is kept.
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(e);
            }
            kind.into()
        })
    }
}

/// Why a walk through an archive stopped.
pub(crate) enum Stop {
    /// The archive is not what the list says.
    Damaged(String),
    /// The visitor gave up.
    Visitor(BackupError),
}

/// Reads the whole archive in step with its list; `visit` gets every member with its bytes and must read none or all of them
/// (what it leaves is read for it). The content's hash is checked after each visit, so a visitor must not publish
/// what it wrote before the walk has returned.
pub(crate) fn walk(
    plain: impl Read,
    archive: &Archive,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<(), Stop> {
    let broken = |e: io::Error| Stop::Damaged(e.to_string());
    let mut decoder = GzDecoder::new(plain);
    {
        let mut tar = tar::Archive::new(&mut decoder);
        let mut entries = tar.entries().map_err(broken)?;
        for member in &archive.members {
            let at = crate::names::path_text::encode(&member.path);
            let mut entry = match entries.next() {
                Some(entry) => entry.map_err(broken)?,
                None => return Err(Stop::Damaged(format!("it ends before {at}"))),
            };
            if !agrees(&entry, member).map_err(broken)? {
                return Err(Stop::Damaged(format!("{at} is not as listed")));
            }
            let mut tally = Tally::new(&mut entry);
            visit(member, &mut tally).map_err(Stop::Visitor)?;
            io::copy(&mut tally, &mut io::sink()).map_err(broken)?;
            let measured = tally.finish().1;
            if matches!(&member.kind, MemberKind::File(listed) if *listed != measured) {
                return Err(Stop::Damaged(format!(
                    "the content of {at} is not as listed"
                )));
            }
        }
        if entries.next().is_some() {
            return Err(Stop::Damaged("it holds more than is listed".into()));
        }
    }
    // To the end: gzip's own check sum and the last authenticated block of age come last.
    io::copy(&mut decoder, &mut io::sink()).map_err(broken)?;
    io::copy(&mut decoder.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

fn agrees(entry: &tar::Entry<'_, impl Read>, member: &Member) -> io::Result<bool> {
    let header = entry.header();
    let name = entry.path_bytes();
    let link = match &member.kind {
        MemberKind::Symlink { target } => entry
            .link_name_bytes()
            .is_some_and(|t| *t == *target.as_os_str().as_bytes()),
        MemberKind::File(_) | MemberKind::Directory => true,
    };
    Ok(*OsStr::from_bytes(&name) == *member.path
        && link
        && header.entry_type() == entry_type(&member.kind)
        && header.mode()? == member.mode
        && header.uid()? == u64::from(member.uid)
        && header.gid()? == u64::from(member.gid)
        && header.mtime()? == tar_time(member)
        && entry.size() == member.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect;

    /// A sink that does something to the file being saved once a part of it has arrived.
    struct Meddler<F: FnMut()>(Option<F>, usize);

    impl<F: FnMut()> Write for Meddler<F> {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.1 += buffer.len();
            if self.1 > 1 << 17
                && let Some(mut meddle) = self.0.take()
            {
                meddle();
            }
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Saves a file of a mebibyte while `meddle` is done to it; by name, or by a glob.
    fn save(by_name: bool, meddle: fn(&Path)) -> Result<Archive, BackupError> {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a");
        let noise: Vec<u8> = (0..1_u32 << 18)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        fs::write(&path, noise).unwrap();
        let found = if by_name {
            collect::files(&[&path]).unwrap()
        } else {
            collect::globs(tmp.path(), &["*"], Path::new("/none")).unwrap()
        };
        let sink = Meddler(Some(|| meddle(&path)), 0);
        write(sink, Path::new("sink"), "label", found).map(|(_, archive)| archive)
    }

    fn grow(path: &Path) {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"a line more").unwrap();
    }

    #[test]
    fn a_named_file_that_changes_while_it_is_read_is_an_error() {
        assert!(matches!(save(true, grow), Err(BackupError::Changed { .. })));
        assert!(save(true, |_| {}).is_ok());
    }

    #[test]
    fn a_log_that_grows_while_it_is_read_is_noted_and_saved_up_to_its_former_size() {
        let archive = save(false, grow).unwrap();
        assert_eq!(archive.members[0].bytes(), 1 << 20);
        assert_eq!(archive.notes[0].kind, NoteKind::ChangedWhileRead);
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error_since_the_archive_is_broken() {
        let empty = |path: &Path| drop(File::create(path).unwrap());
        assert!(matches!(
            save(false, empty),
            Err(BackupError::Changed { .. })
        ));
    }

    #[test]
    fn a_file_that_is_gone_by_the_time_it_is_read_is_noted_for_a_glob_and_an_error_by_name() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a");
        fs::write(&path, "").unwrap();
        let named = collect::files(&[&path]).unwrap();
        let globbed = collect::globs(tmp.path(), &["*"], Path::new("/none")).unwrap();
        fs::remove_file(&path).unwrap();
        let (_, archive) = write(io::sink(), Path::new("sink"), "label", globbed).unwrap();
        assert_eq!(archive.notes[0].kind, NoteKind::Vanished);
        let error = write(io::sink(), Path::new("sink"), "label", named);
        assert!(matches!(error, Err(BackupError::Source { .. })));
    }
}
