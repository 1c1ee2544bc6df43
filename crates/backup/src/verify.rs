//! Proving a backup, without a key or with one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use keyroll_secret::Identity;

use crate::archive::{self, Stop};
use crate::error::Damage;
use crate::manifest::{Contents, Item, ItemKind, Manifest};
use crate::open::{PlainReader, contents, sealed};
use crate::tally::measure_bytes;
use crate::{BackupError, names};

/// What [`verify`] has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of `manifest.json`, as [`crate::Finished::sha256`] gave it.
    pub sha256: String,
    /// Files, links and directories in all archives.
    pub members: usize,
    /// Plain bytes of all parts.
    pub plain_bytes: u64,
}

/// Compares every encrypted file with the manifest; needs no key. Reads everything once.
///
/// All that is wrong is collected into one [`BackupError::Damaged`]. A file that is in the directory and not in the manifest counts too.
pub fn check(directory: &Path) -> Result<Manifest, BackupError> {
    let (manifest, _) = Manifest::read(directory)?;
    let damages = damaged_files(directory, &manifest)?;
    if damages.is_empty() {
        return Ok(manifest);
    }
    Err(BackupError::Damaged {
        directory: directory.to_owned(),
        damages,
    })
}

/// Reads everything in full: encrypted hashes, then each part decrypted and measured, archives unpacked and compared with the
/// list, every file's content with its hash. Writes nothing.
///
/// `expected` is [`crate::Finished::sha256`] from a place that whoever can write to the backup cannot change; without it, a backup
/// that was replaced as a whole is not noticed. Reads everything twice.
pub fn verify(
    directory: &Path,
    identity: &Identity,
    expected: Option<&str>,
) -> Result<Verified, BackupError> {
    let (manifest, bytes) = Manifest::read(directory)?;
    let sha256 = measure_bytes(&bytes).sha256;
    if expected.is_some_and(|e| !e.eq_ignore_ascii_case(&sha256)) {
        let what = "not the manifest that the trail recorded";
        return Err(BackupError::damaged(directory, names::MANIFEST, what));
    }
    let mut damages = damaged_files(directory, &manifest)?;
    let broken: BTreeSet<String> = damages.iter().map(|d| d.file.clone()).collect();
    let mut verified = Verified {
        manifest,
        sha256,
        members: 0,
        plain_bytes: 0,
    };
    if !broken.contains(names::CONTENTS) {
        let contents = contents(directory, &verified.manifest, identity)?;
        for item in verified
            .manifest
            .files
            .iter()
            .filter(|i| i.kind != ItemKind::Contents)
        {
            if broken.contains(&item.file) {
                continue;
            }
            match part(directory, item, &contents, identity) {
                Ok((members, bytes)) => {
                    verified.members += members;
                    verified.plain_bytes += bytes;
                }
                Err(Stop::Damaged(what)) => damages.push(Damage::new(&item.file, what)),
                Err(Stop::Visitor(error)) => return Err(error),
            }
        }
    }
    if damages.is_empty() {
        return Ok(verified);
    }
    Err(BackupError::Damaged {
        directory: directory.to_owned(),
        damages,
    })
}

/// Members and plain bytes of one sound part.
fn part(
    directory: &Path,
    item: &Item,
    contents: &Contents,
    identity: &Identity,
) -> Result<(usize, u64), Stop> {
    let unlisted = || Stop::Damaged("missing from the list of contents".into());
    let expected = contents.plain.get(&item.file).ok_or_else(unlisted)?;
    let plain = PlainReader::open(directory, &item.file, expected.clone(), identity)
        .map_err(Stop::Visitor)?;
    if item.kind == ItemKind::Archive {
        let listed = contents
            .archives
            .iter()
            .find(|a| names::archive_file(&a.label) == item.file);
        let listed = listed.ok_or_else(unlisted)?;
        archive::walk(plain, listed, |_, _| Ok(()))?;
        return Ok((listed.members.len(), expected.bytes));
    }
    let mut plain = plain;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => return Ok((0, expected.bytes)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Stop::Damaged(e.to_string())),
        }
    }
}

fn damaged_files(directory: &Path, manifest: &Manifest) -> Result<Vec<Damage>, BackupError> {
    let mut damages = Vec::new();
    let mut known = BTreeSet::from([OsString::from(names::MANIFEST)]);
    for item in &manifest.files {
        if !known.insert(OsString::from(&item.file)) {
            damages.push(Damage::new(&item.file, "listed twice"));
        }
        match sealed(directory, &item.file)? {
            None => damages.push(Damage::new(&item.file, "missing")),
            Some(found) if found.bytes < item.sealed.bytes => {
                let what = format!("cut off: {} of {} bytes", found.bytes, item.sealed.bytes);
                damages.push(Damage::new(&item.file, what));
            }
            Some(found) if found != item.sealed => {
                damages.push(Damage::new(&item.file, "not the bytes that were written"));
            }
            Some(_) => {}
        }
    }
    let look = |e| BackupError::look(directory, e);
    for entry in fs::read_dir(directory).map_err(look)? {
        let name = entry.map_err(look)?.file_name();
        if !known.contains(&name) {
            damages.push(Damage::new(
                name.to_string_lossy(),
                "not part of this backup",
            ));
        }
    }
    Ok(damages)
}
