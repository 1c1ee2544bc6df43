//! Reading one part back.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use keyroll_secret::Identity;

use crate::manifest::{Contents, Manifest};
use crate::tally::{Measured, Tally, measure};
use crate::{BackupError, names};

/// The plain bytes of one part. At the end, size and hash are compared with what was written; a difference, like a part
/// that was cut off or changed, is an error of kind `InvalidData` or `UnexpectedEof`, never a quiet end.
pub struct PlainReader {
    /// `None` once the end was reached and compared.
    inner: Option<Tally<Box<dyn Read + Send>>>,
    expected: Measured,
    file: String,
}

/// Opens the part `name` of a whole backup: a stream by its name, an archive (as gzipped tar) by its label.
///
/// To prove a dump, read this to the end into the tool that restores it. Blocks on the disk.
pub fn open(directory: &Path, name: &str, identity: &Identity) -> Result<PlainReader, BackupError> {
    names::part(name)?;
    let (manifest, _) = Manifest::read(directory)?;
    let contents = contents(directory, &manifest, identity)?;
    let files = [names::stream_file(name), names::archive_file(name)];
    for file in files {
        if let Some(plain) = contents.plain.get(&file) {
            return PlainReader::open(directory, &file, plain.clone(), identity);
        }
    }
    Err(no_such_part(directory, name, &manifest))
}

pub(crate) fn no_such_part(directory: &Path, name: &str, manifest: &Manifest) -> BackupError {
    BackupError::NoSuchPart {
        directory: directory.to_owned(),
        name: name.to_owned(),
        have: manifest
            .files
            .iter()
            .map(|item| item.file.clone())
            .collect(),
    }
}

impl PlainReader {
    pub(crate) fn open(
        directory: &Path,
        file: &str,
        expected: Measured,
        identity: &Identity,
    ) -> Result<Self, BackupError> {
        let path = directory.join(file);
        let handle = File::open(&path).map_err(|e| BackupError::look(&path, e))?;
        let reader = identity
            .reader(BufReader::with_capacity(1 << 17, handle))
            .map_err(|source| BackupError::NotOpened { path, source })?;
        Ok(Self {
            inner: Some(Tally::new(Box::new(reader))),
            expected,
            file: file.to_owned(),
        })
    }
}

impl Read for PlainReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let n = inner.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            let measured = self.inner.take().map(|tally| tally.finish().1);
            if measured.as_ref() != Some(&self.expected) {
                let text = format!("{} is not what was written", self.file);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}

impl fmt::Debug for PlainReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PlainReader({}, {} bytes)",
            self.file, self.expected.bytes
        )
    }
}

/// Size and hash of an encrypted file; `None` when it is not there.
pub(crate) fn sealed(directory: &Path, file: &str) -> Result<Option<Measured>, BackupError> {
    let path = directory.join(file);
    let look = |e| BackupError::look(&path, e);
    match File::open(&path) {
        Ok(handle) => measure(BufReader::with_capacity(1 << 17, handle))
            .map(Some)
            .map_err(look),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(look(e)),
    }
}

/// The contents, decrypted, and in agreement with the manifest.
pub(crate) fn contents(
    directory: &Path,
    manifest: &Manifest,
    identity: &Identity,
) -> Result<Contents, BackupError> {
    let damaged = |what: &str| BackupError::damaged(directory, names::CONTENTS, what);
    let item = manifest
        .contents()
        .ok_or_else(|| damaged("not listed in the manifest"))?;
    // The hash first: then a failure to open can only be a question of keys.
    if sealed(directory, &item.file)?.as_ref() != Some(&item.sealed) {
        return Err(damaged("missing, or not as it was written"));
    }
    let path = directory.join(&item.file);
    let handle = File::open(&path).map_err(|e| BackupError::look(&path, e))?;
    let mut reader =
        identity
            .reader(BufReader::new(handle))
            .map_err(|source| BackupError::NotOpened {
                path: path.clone(),
                source,
            })?;
    let mut text = Vec::new();
    reader
        .read_to_end(&mut text)
        .map_err(|e| damaged(&e.to_string()))?;
    let contents: Contents = serde_json::from_slice(&text)
        .map_err(|e| damaged(&format!("not a list of contents ({e})")))?;
    let mut named = manifest.clone();
    named.files.retain(|i| i != item);
    if contents.manifest != named {
        return Err(BackupError::damaged(
            directory,
            names::MANIFEST,
            "differs from its encrypted copy",
        ));
    }
    Ok(contents)
}
