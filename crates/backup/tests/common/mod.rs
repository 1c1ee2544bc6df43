//! What the tests of backups share.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyroll_backup::{BackupWriter, Finished};
use keyroll_secret::{Identity, Recipients};
use sha2::{Digest as _, Sha256};

pub(crate) struct Bench {
    tmp: tempfile::TempDir,
    pub(crate) identity: Identity,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(&tmp.path().join("identity")).unwrap();
        fs::create_dir(tmp.path().join("stack")).unwrap();
        Self { tmp, identity }
    }

    /// Without symbolic links, so that stored paths are what the test says.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        fs::canonicalize(self.tmp.path()).unwrap().join(below)
    }

    pub(crate) fn put(&self, below: &str, content: &[u8]) -> PathBuf {
        let path = self.path("stack").join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn recipients(&self) -> Recipients {
        Recipients::new(&self.identity, []).unwrap()
    }

    pub(crate) fn writer(&self) -> BackupWriter {
        BackupWriter::create(&self.path("backups"), at(), self.recipients()).unwrap()
    }

    /// One archive of the stack, one of a file by name, one stream.
    pub(crate) fn small(&self) -> Finished {
        let env = self.put(".env.production", b"JWT_SECRET=hunter2hunter2\n");
        self.put("app/index.js", b"run()");
        let writer = self.writer();
        writer.add_files("files", &[env]).unwrap();
        writer
            .add_globs("application", &self.path("stack"), &["app/**"])
            .unwrap();
        let mut stream = writer.stream("database.dump").unwrap();
        stream.write_all(b"PGDMP pretend").unwrap();
        stream.finish().unwrap();
        writer.finish().unwrap()
    }

    /// Rewrites the encrypted contents, as somebody who knows the public key could, and makes the manifest agree.
    pub(crate) fn forge(&self, backup: &Path, edit: impl Fn(String) -> String) {
        let path = backup.join("contents.json.age");
        let mut text = String::new();
        let sealed = fs::read(&path).unwrap();
        self.identity
            .reader(&sealed[..])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let mut writer = self.recipients().writer(Vec::new()).unwrap();
        writer.write_all(edit(text).as_bytes()).unwrap();
        let forged = writer.finish().unwrap();
        let manifest = fs::read_to_string(backup.join("manifest.json")).unwrap();
        let manifest = manifest
            .replace(&sha256(&sealed), &sha256(&forged))
            .replace(
                &format!("\"bytes\": {}", sealed.len()),
                &format!("\"bytes\": {}", forged.len()),
            );
        fs::write(&path, forged).unwrap();
        fs::write(backup.join("manifest.json"), manifest).unwrap();
    }
}

pub(crate) fn at() -> Timestamp {
    "2026-11-23T23:15:00Z".parse().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a test that needs something of the machine may be left out. In the full run it may not.
pub(crate) fn may_skip(why: &str) -> bool {
    assert!(
        std::env::var_os("KEYROLL_CONTAINER_TESTS").is_none_or(|v| v != "1"),
        "cannot be skipped: {why}"
    );
    eprintln!("SKIPPED: {why}");
    true
}
