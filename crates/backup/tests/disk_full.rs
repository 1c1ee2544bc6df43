//! A full disk: a clear error, and no backup that could be taken for a whole one.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bench, at, is_root, may_skip};
use keyroll_backup::{BackupError, BackupWriter, Place, State, list, restore_files, space};

/// A file system of one mebibyte, unmounted on drop.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "keyroll-test"])
                .arg(at)
                .status()
                .is_ok_and(|s| s.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(length)
    .collect()
}

fn assert_nothing_whole(root: &Path) {
    let listed = list(root).unwrap();
    assert!(!listed.is_empty());
    assert!(
        listed.iter().all(|l| matches!(l.state, State::Unfinished)),
        "{listed:?}"
    );
}

#[test]
fn a_dump_that_fills_the_disk_ends_with_the_cause_and_an_unfinished_backup() {
    let bench = Bench::new();
    let root = bench.path("small");
    let Some(_small) = Small::mount(&root) else {
        may_skip("mounting a small file system needs root");
        return;
    };
    assert!(space::available(&root).unwrap() < space::needed(0, 4 << 20));
    let writer = BackupWriter::create(&root, at(), bench.recipients()).unwrap();
    let mut stream = writer.stream("database.dump").unwrap();
    let chunk = noise(64 << 10);
    assert!(
        (0..64).any(|_| stream.write_all(&chunk).is_err()),
        "4 MiB do not fit into 1"
    );
    let error = stream.finish().unwrap_err();
    assert!(matches!(error, BackupError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("make room"), "{error}");
    assert!(matches!(writer.finish(), Err(BackupError::Open { .. })));
    assert_nothing_whole(&root);
}

#[test]
fn an_archive_or_manifest_that_does_not_fit_leaves_no_whole_backup() {
    let bench = Bench::new();
    let root = bench.path("small");
    let Some(_small) = Small::mount(&root) else {
        may_skip("mounting a small file system needs root");
        return;
    };
    let big = bench.put("big", &noise(3 << 20));
    let writer = BackupWriter::create(&root, at(), bench.recipients()).unwrap();
    let error = writer.add_files("files", &[&big]).unwrap_err();
    assert!(matches!(error, BackupError::NoSpace { .. }), "{error:?}");
    drop(writer);

    // The disk is full of the former: this one fails as late as its last two files.
    let writer = BackupWriter::create(&root, at(), bench.recipients()).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, BackupError::NoSpace { .. }), "{error:?}");
    assert_nothing_whole(&root);
}

#[test]
fn a_restore_that_does_not_fit_changes_nothing_and_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.put("a", b"small");
    bench.put("b", &noise(3 << 20));
    let writer = bench.writer();
    writer
        .add_globs("application", &bench.path("stack"), &["*"])
        .unwrap();
    let done = writer.finish().unwrap();
    let into = bench.path("small");
    let Some(_small) = Small::mount(&into) else {
        may_skip("mounting a small file system needs root");
        return;
    };
    fs::write(into.join("a"), "before").unwrap();
    let place = Place::Into(into.clone());
    let error = restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &place,
        |_| true,
    )
    .unwrap_err();
    assert!(
        matches!(error, BackupError::Restore { done: 0, of: 2, .. }),
        "{error:?}"
    );
    assert_eq!(fs::read(into.join("a")).unwrap(), b"before");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
}
