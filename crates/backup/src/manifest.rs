//! The two lists of a backup: the manifest that anyone may read, and the contents that only recipients can.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{self, path_text};
use crate::{BackupError, Measured};

pub(crate) const FORMAT: u32 = 1;

/// `manifest.json`: what a whole backup consists of. Nothing in it tells anything about a plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format's number, 1.
    pub format: u32,
    /// When the backup was begun, by the clock of the caller.
    pub created: Timestamp,
    /// The version of keyroll that wrote it.
    pub keyroll: String,
    /// Every file but the manifest itself, by name.
    pub files: Vec<Item>,
}

/// One encrypted file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The file's name in the backup's directory.
    pub file: String,
    /// What it is.
    pub kind: ItemKind,
    /// Size and hash of the encrypted file.
    pub sealed: Measured,
}

/// What an encrypted file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A gzipped tar of files.
    Archive,
    /// Bytes as they arrived.
    Stream,
    /// The list of contents.
    Contents,
}

/// The encrypted half: everything that could help to guess a plain text, and a copy of the manifest, so that the two vouch
/// for one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contents {
    /// The manifest without the entry of the contents themselves.
    pub(crate) manifest: Manifest,
    /// Size and hash of each plain text, by file name.
    pub(crate) plain: BTreeMap<String, Measured>,
    pub(crate) archives: Vec<Archive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    pub(crate) label: String,
    /// What the members' paths are relative to; absolute.
    #[serde(with = "path_text")]
    pub(crate) base: PathBuf,
    pub(crate) members: Vec<Member>,
    pub(crate) notes: Vec<Note>,
}

/// One saved file, symbolic link or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Relative to the archive's base: `/` for files saved by name, the given root for globs.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Modification time: seconds since 1970, may be negative.
    pub mtime: i64,
    /// Modification time: nanoseconds within the second.
    pub mtime_nanos: u32,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum MemberKind {
    /// A file with these bytes.
    File(Measured),
    /// A symbolic link; what it points to is saved only if it was named itself.
    Symlink {
        /// The text of the link.
        #[serde(with = "path_text")]
        target: PathBuf,
    },
    /// A directory on the way to a saved file, or one that a glob matched.
    Directory,
}

/// Something that a glob matched and that was not saved as a reader might expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Relative to the archive's base.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// What is to be known about it.
    pub kind: NoteKind,
}

/// Why a matched file is missing, or may be a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// A socket, pipe or device: not saved.
    Special,
    /// It was gone when it was to be read: not saved.
    Vanished,
    /// Saved, but written to while it was read (a log, for example).
    ChangedWhileRead,
}

impl Manifest {
    /// The exact bytes that are written: pretty JSON and a newline.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a manifest has only text and numbers");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a manifest, strictly: another spelling of the same content is damage too.
    pub(crate) fn read(directory: &Path) -> Result<(Self, Vec<u8>), BackupError> {
        let path = directory.join(names::MANIFEST);
        let bytes = fs::read(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound && directory.is_dir() {
                return BackupError::Unfinished {
                    directory: directory.to_owned(),
                };
            }
            BackupError::look(&path, source)
        })?;
        let damaged = |what: String| BackupError::damaged(directory, names::MANIFEST, what);
        let format = serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_err(|e| damaged(format!("not JSON ({e})")))?
            .get("format")
            .and_then(serde_json::Value::as_u64);
        if let Some(found) = format
            .and_then(|f| u32::try_from(f).ok())
            .filter(|f| *f > FORMAT)
        {
            return Err(BackupError::Newer {
                directory: directory.to_owned(),
                found,
            });
        }
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|e| damaged(format!("not a manifest ({e})")))?;
        if manifest.format != FORMAT || manifest.to_bytes() != bytes {
            return Err(damaged("not as it was written".into()));
        }
        for item in &manifest.files {
            // A name with a slash would make a check read elsewhere.
            let stem = item.file.strip_suffix(".age").unwrap_or("");
            if item.file != names::CONTENTS
                && names::part(stem.trim_end_matches(".tar.gz")).is_err()
            {
                return Err(damaged(format!("{:?} is no name of a part", item.file)));
            }
        }
        Ok((manifest, bytes))
    }

    /// The entry of the contents.
    pub(crate) fn contents(&self) -> Option<&Item> {
        self.files
            .iter()
            .find(|item| item.kind == ItemKind::Contents)
    }

    /// Bytes of all encrypted files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|item| item.sealed.bytes).sum()
    }
}

impl Member {
    /// Size of a file; 0 for everything else.
    pub fn bytes(&self) -> u64 {
        match &self.kind {
            MemberKind::File(measured) => measured.bytes,
            MemberKind::Symlink { .. } | MemberKind::Directory => 0,
        }
    }
}
