//! Writing a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use age::stream::StreamWriter;
use jiff::Timestamp;
use keyroll_secret::{Identity, Recipients};

use crate::collect::{self, Collected};
use crate::manifest::{Archive, Contents, FORMAT, Item, ItemKind, Manifest, Note};
use crate::open::PlainReader;
use crate::tally::{Measured, Tally, measure_bytes};
use crate::{BackupError, archive, names};

/// Siblings tried within one second before giving up.
const MAX_SIBLINGS: u32 = 1000;

/// A backup that is being written. It becomes one by [`BackupWriter::finish`]; dropped before, it stays unfinished.
///
/// May be shared: parts are written side by side by several threads.
pub struct BackupWriter {
    directory: PathBuf,
    root: PathBuf,
    created: Timestamp,
    /// Behind a lock only because a recipient cannot be shared; held while an age header is written.
    recipients: Mutex<Recipients>,
    parts: Arc<Mutex<Parts>>,
}

/// What is known of the parts so far.
#[derive(Default)]
struct Parts {
    /// Begun and not finished; a part that failed or was dropped stays here, so that the backup cannot be finished.
    open: BTreeSet<String>,
    items: BTreeMap<String, (Item, Measured)>,
    archives: Vec<Archive>,
}

/// A part whose bytes arrive in pieces, such as a dump. Plain bytes are encrypted in memory before they reach the disk.
///
/// It is `Send` and owns what it needs: asynchronous code moves it to a blocking thread that takes the pieces from a channel.
/// Each write blocks for at most one block of 64 KiB.
pub struct BackupStream {
    file: String,
    /// The error is the first failed write's, kept for `finish`.
    sink: Result<Sink, Option<BackupError>>,
    parts: Arc<Mutex<Parts>>,
}

/// What was put into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Files, links and directories in the archive.
    pub members: usize,
    /// Bytes of the files' contents.
    pub bytes: u64,
    /// What a glob matched and is missing or mixed.
    pub notes: Vec<Note>,
    /// Globs that matched nothing.
    pub unmatched: Vec<String>,
}

/// A whole backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its directory.
    pub directory: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of `manifest.json`, lower-case hex: vouches for every byte of the backup. Keep it elsewhere.
    pub sha256: String,
}

impl BackupWriter {
    /// Makes the directory `<root>/<UTC time>-secret-rotation`, mode 0700; [`BackupWriter::finish`] syncs its name. A taken name
    /// gets a number and nothing is ever overwritten. Missing directories above it are made with mode 0700 too.
    pub fn create(root: &Path, at: Timestamp, recipients: Recipients) -> Result<Self, BackupError> {
        if !names::is_absolute_and_plain(root) {
            return Err(BackupError::NotAbsolute {
                path: root.to_owned(),
            });
        }
        if recipients.is_empty() {
            return Err(BackupError::NoRecipient);
        }
        make_directories(root)?;
        let root = fs::canonicalize(root).map_err(|e| BackupError::write(root, e))?;
        for number in 1..MAX_SIBLINGS {
            let directory = root.join(names::directory(at, number));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    // The process's mask may have taken even the owner's bits away.
                    fs::set_permissions(&directory, Permissions::from_mode(0o700))
                        .map_err(|e| BackupError::write(&directory, e))?;
                    return Ok(Self {
                        directory,
                        root,
                        created: at,
                        recipients: Mutex::new(recipients),
                        parts: Arc::default(),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(BackupError::write(&directory, e)),
            }
        }
        Err(BackupError::write(
            &root,
            io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// The backup's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Saves files by their absolute paths as the archive `label`.
    ///
    /// Stored paths are absolute ones without the leading `/`, with symbolic links among the directories resolved. A path that is
    /// itself a link is saved as a link, together with every further link and the file at the end. The directories above are
    /// saved with owner and mode. A file that is missing, or written to meanwhile, is an error.
    pub fn add_files<P: AsRef<Path>>(
        &self,
        label: &str,
        paths: &[P],
    ) -> Result<Added, BackupError> {
        self.add(label, || collect::files(paths))
    }

    /// Saves what `globs` match below `root` (the stack's) as the archive `label`.
    ///
    /// Patterns are matched against the path relative to `root`: `*` and `?` stop at `/`, `**` does not, and `!` before
    /// a pattern leaves out, directories with all that is in them. Links are saved as links and not followed; other file
    /// systems and the backup root are left out. Files that vanish or are written to meanwhile become [`Added::notes`].
    pub fn add_globs<S: AsRef<str>>(
        &self,
        label: &str,
        root: &Path,
        globs: &[S],
    ) -> Result<Added, BackupError> {
        self.add(label, || collect::globs(root, globs, &self.root))
    }

    fn add(
        &self,
        label: &str,
        collect: impl FnOnce() -> Result<Collected, BackupError>,
    ) -> Result<Added, BackupError> {
        let file = names::archive_file(names::part(label)?);
        self.claim(&file)?;
        let mut collected = collect()?;
        let unmatched = std::mem::take(&mut collected.unmatched);
        let path = self.directory.join(&file);
        let (sink, archive) = archive::write(self.sink(&file)?, &path, label, collected)?;
        let added = Added {
            members: archive.members.len(),
            bytes: archive.members.iter().map(crate::Member::bytes).sum(),
            notes: archive.notes.clone(),
            unmatched,
        };
        let (sealed, plain) = sink.finish()?;
        let mut parts = lock(&self.parts);
        parts.done(
            Item {
                file,
                kind: ItemKind::Archive,
                sealed,
            },
            plain,
        );
        parts.archives.push(archive);
        Ok(added)
    }

    /// Begins the stream `name` (file `<name>.age`).
    pub fn stream(&self, name: &str) -> Result<BackupStream, BackupError> {
        let file = names::stream_file(names::part(name)?);
        self.claim(&file)?;
        Ok(BackupStream {
            sink: Ok(self.sink(&file)?),
            file,
            parts: Arc::clone(&self.parts),
        })
    }

    /// Reads a finished stream back, so that a dump can be proven before the backup is called whole. At its end the reader
    /// compares size and hash with what was written, and fails if they differ.
    pub fn open(&self, name: &str, identity: &Identity) -> Result<PlainReader, BackupError> {
        let file = names::stream_file(names::part(name)?);
        let plain = {
            let parts = lock(&self.parts);
            let found = parts.items.get(&file).map(|(_, plain)| plain.clone());
            found.ok_or_else(|| BackupError::NoSuchPart {
                directory: self.directory.clone(),
                name: name.to_owned(),
                have: parts.items.keys().cloned().collect(),
            })?
        };
        PlainReader::open(&self.directory, &file, plain, identity)
    }

    /// Makes the backup whole: writes the encrypted contents, then the manifest under another name, syncs, renames it, syncs the
    /// directory. Refused while a part is open, also one that failed or was dropped.
    pub fn finish(self) -> Result<Finished, BackupError> {
        let (mut manifest, contents) = {
            let mut parts = lock(&self.parts);
            if !parts.open.is_empty() {
                return Err(BackupError::Open {
                    parts: parts.open.iter().cloned().collect(),
                });
            }
            let manifest = Manifest {
                format: FORMAT,
                created: self.created,
                keyroll: env!("CARGO_PKG_VERSION").to_owned(),
                files: parts.items.values().map(|(item, _)| item.clone()).collect(),
            };
            let plain = parts
                .items
                .iter()
                .map(|(file, (_, plain))| (file.clone(), plain.clone()))
                .collect();
            let archives = std::mem::take(&mut parts.archives);
            (
                manifest.clone(),
                Contents {
                    manifest,
                    plain,
                    archives,
                },
            )
        };
        let mut sink = self.sink(names::CONTENTS)?;
        let text = serde_json::to_vec(&contents).expect("contents have only text and numbers");
        sink.writer
            .write_all(&text)
            .map_err(|e| BackupError::write(&sink.path, e))?;
        let (sealed, _) = sink.finish()?;
        let file = names::CONTENTS.to_owned();
        manifest.files.push(Item {
            file,
            kind: ItemKind::Contents,
            sealed,
        });

        let bytes = manifest.to_bytes();
        let unfinished = self.directory.join(names::MANIFEST_UNFINISHED);
        let write = || -> io::Result<()> {
            let mut file = create_private(&unfinished)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            // The names of all parts must be on disk before the one that vouches for them.
            sync_directory(&self.directory)?;
            fs::rename(&unfinished, self.directory.join(names::MANIFEST))?;
            sync_directory(&self.directory)?;
            sync_directory(&self.root)
        };
        write().map_err(|e| BackupError::write(&unfinished, e))?;
        Ok(Finished {
            directory: self.directory,
            manifest,
            sha256: measure_bytes(&bytes).sha256,
        })
    }

    fn claim(&self, file: &str) -> Result<(), BackupError> {
        let mut parts = lock(&self.parts);
        if parts.items.contains_key(file) || !parts.open.insert(file.to_owned()) {
            return Err(BackupError::Twice {
                name: file.to_owned(),
            });
        }
        Ok(())
    }

    fn sink(&self, file: &str) -> Result<Sink, BackupError> {
        let path = self.directory.join(file);
        let handle = create_private(&path).map_err(|e| BackupError::write(&path, e))?;
        let recipients = self
            .recipients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The buffer takes age's header, so that a full disk shows in a write, where it is told apart.
        let writer = recipients
            .writer(BufWriter::with_capacity(1 << 17, Tally::new(handle)))
            .map_err(|source| BackupError::Encrypt {
                path: path.clone(),
                source,
            })?;
        Ok(Sink {
            writer: Tally::new(writer),
            path,
        })
    }
}

impl fmt::Debug for BackupWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupWriter({})", self.directory.display())
    }
}

impl Parts {
    fn done(&mut self, item: Item, plain: Measured) {
        self.open.remove(&item.file);
        self.items.insert(item.file.clone(), (item, plain));
    }
}

impl BackupStream {
    /// Plain bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.writer.bytes())
    }

    /// Closes and syncs the part; gives the size and hash of the plain bytes. Fails if any write has failed.
    pub fn finish(self) -> Result<Measured, BackupError> {
        let Self { file, sink, parts } = self;
        let sink = sink.map_err(|e| {
            e.unwrap_or_else(|| BackupError::Open {
                parts: vec![file.clone()],
            })
        })?;
        let (sealed, plain) = sink.finish()?;
        lock(&parts).done(
            Item {
                file,
                kind: ItemKind::Stream,
                sealed,
            },
            plain.clone(),
        );
        Ok(plain)
    }
}

impl Write for BackupStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Ok(sink) = &mut self.sink else {
            return Err(io::Error::other(
                "an earlier write to this part of the backup failed",
            ));
        };
        let written = sink.writer.write(buffer);
        if let Some(e) = written
            .as_ref()
            .err()
            .filter(|e| e.kind() != io::ErrorKind::Interrupted)
        {
            // age has lost a block: nothing after it can make the part whole again.
            let copy = e
                .raw_os_error()
                .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
            self.sink = Err(Some(BackupError::write(&sink.path, copy)));
        }
        written
    }

    /// Does nothing: age works in blocks, and only [`BackupStream::finish`] makes the last one durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupStream({}, {} bytes)", self.file, self.bytes())
    }
}

/// Plain bytes in, an encrypted file out, both measured.
struct Sink {
    writer: Tally<StreamWriter<BufWriter<Tally<File>>>>,
    path: PathBuf,
}

impl Sink {
    /// Sizes and hashes of the encrypted file, then of the plain bytes.
    fn finish(self) -> Result<(Measured, Measured), BackupError> {
        let written = |e| BackupError::write(&self.path, e);
        let (writer, plain) = self.writer.finish();
        let tally = writer
            .finish()
            .map_err(written)?
            .into_inner()
            .map_err(|e| written(e.into_error()))?;
        let (file, sealed) = tally.finish();
        file.sync_all().map_err(written)?;
        Ok((sealed, plain))
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.writer.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(parts: &Mutex<Parts>) -> MutexGuard<'_, Parts> {
    // A thread that panicked left its part open, which is all that matters here.
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new file with mode 0600, whatever the process's mask.
fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes missing directories one by one, each synced into the one above.
fn make_directories(path: &Path) -> Result<(), BackupError> {
    if path.is_dir() {
        return Ok(());
    }
    let written = |e| BackupError::write(path, e);
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result
                .and_then(|()| sync_directory(parent))
                .map_err(written)?,
        }
    }
    Ok(())
}
