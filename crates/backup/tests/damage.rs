//! Damage is found, whatever it is and wherever it is, and nothing is restored from it.

mod common;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::Bench;
use keyroll_backup::{BackupError, Finished, Place, check, open, restore_files, verify};
use proptest::prelude::*;

static WHOLE: LazyLock<(Bench, Finished)> = LazyLock::new(|| {
    let bench = Bench::new();
    let done = bench.small();
    (bench, done)
});

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    all.sort();
    all
}

/// A copy of the whole backup, in which one file was changed.
fn changed(pick: usize, change: impl Fn(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let (_, done) = &*WHOLE;
    let tmp = tempfile::tempdir().unwrap();
    let copy = tmp.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let all = files(&done.directory);
    for (index, file) in all.iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        if index == pick % all.len() {
            change(&mut bytes);
        }
        fs::write(copy.join(file.file_name().unwrap()), bytes).unwrap();
    }
    (tmp, copy)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte_in_any_file_is_found(pick in 0_usize..5, position: prop::sample::Index, by in 1_u8..) {
        let (_tmp, copy) = changed(pick, |bytes| {
            let at = position.index(bytes.len());
            bytes[at] ^= by;
        });
        let (bench, _) = &*WHOLE;
        prop_assert!(verify(&copy, &bench.identity, None).is_err());
    }

    #[test]
    fn a_file_cut_off_anywhere_is_found(pick in 0_usize..5, position: prop::sample::Index) {
        let (_tmp, copy) = changed(pick, |bytes| bytes.truncate(position.index(bytes.len())));
        let (bench, _) = &*WHOLE;
        prop_assert!(verify(&copy, &bench.identity, None).is_err());
    }

    #[test]
    fn bytes_added_to_any_file_are_found(pick in 0_usize..5, position: prop::sample::Index, byte: u8) {
        let (_tmp, copy) = changed(pick, |bytes| bytes.insert(position.index(bytes.len() + 1), byte));
        let (bench, _) = &*WHOLE;
        prop_assert!(verify(&copy, &bench.identity, None).is_err());
    }
}

/// Chance alone hardly meets these: white space for white space, a digit of the time or the version for another.
#[test]
fn every_byte_of_the_manifest_counts_also_those_that_leave_it_readable() {
    let (bench, done) = &*WHOLE;
    let (_tmp, copy) = changed(0, |_| {});
    let path = copy.join("manifest.json");
    let original = fs::read(done.directory.join("manifest.json")).unwrap();
    for at in 0..original.len() {
        for other in [b' ', b'\t', b'\n', original[at] ^ 1, original[at] ^ 0x20] {
            if other == original[at] {
                continue;
            }
            let mut bytes = original.clone();
            bytes[at] = other;
            fs::write(&path, &bytes).unwrap();
            assert!(
                verify(&copy, &bench.identity, None).is_err(),
                "{other:?} at {at} in {}",
                String::from_utf8_lossy(&original)
            );
        }
    }
}

#[test]
fn an_unchanged_copy_is_sound() {
    let (bench, done) = &*WHOLE;
    let (_tmp, copy) = changed(0, |_| {});
    let verified = verify(&copy, &bench.identity, Some(&done.sha256)).unwrap();
    assert_eq!(verified.manifest, done.manifest);
    assert_eq!(check(&copy).unwrap(), done.manifest);
}

#[test]
fn damage_of_the_encrypted_files_is_found_without_a_key_and_all_of_it_is_named() {
    let (_tmp, copy) = changed(0, |bytes| bytes[300] ^= 1);
    fs::remove_file(copy.join("files.tar.gz.age")).unwrap();
    fs::write(copy.join("stray"), "").unwrap();
    let error = check(&copy).unwrap_err().to_string();
    for part in [
        "application.tar.gz.age: not the bytes",
        "files.tar.gz.age: missing",
        "stray: not part",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn the_wrong_identity_is_not_called_damage() {
    let (_, done) = &*WHOLE;
    let other = Bench::new();
    let error = verify(&done.directory, &other.identity, None).unwrap_err();
    assert!(matches!(error, BackupError::NotOpened { .. }), "{error}");
}

#[test]
fn a_backup_that_is_not_there_is_not_called_damaged_or_unfinished() {
    let (bench, done) = &*WHOLE;
    let error = verify(&done.directory.join("none"), &bench.identity, None).unwrap_err();
    assert!(matches!(error, BackupError::Look { .. }), "{error}");
}

#[test]
fn another_whole_backup_in_its_place_is_found_by_the_recorded_hash() {
    let (bench, done) = &*WHOLE;
    let writer = bench.writer();
    let other = writer.finish().unwrap();
    verify(&other.directory, &bench.identity, None).unwrap();
    let error = verify(&other.directory, &bench.identity, Some(&done.sha256)).unwrap_err();
    assert!(error.to_string().contains("the trail recorded"), "{error}");
}

#[test]
fn a_damaged_archive_restores_nothing() {
    let (bench, _) = &*WHOLE;
    let (tmp, copy) = changed(3, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    let into = tmp.path().join("into");
    fs::create_dir(&into).unwrap();
    let place = Place::Into(into.clone());
    let error = restore_files(&copy, &bench.identity, "files", &place, |_| true).unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    assert_eq!(files(&into).len(), 0);
}

#[test]
fn a_damaged_stream_never_reads_to_a_quiet_end() {
    let (bench, _) = &*WHOLE;
    for cut in [1, 20, 100] {
        let (_tmp, copy) = changed(2, |bytes| bytes.truncate(bytes.len() - cut));
        let read = open(&copy, "database.dump", &bench.identity)
            .map(|mut reader| reader.read_to_end(&mut Vec::new()));
        assert!(!matches!(read, Ok(Ok(_))), "cut {cut}");
    }
}

#[test]
fn a_part_that_is_not_there_is_answered_with_those_that_are() {
    let (bench, done) = &*WHOLE;
    let error = open(&done.directory, "roles", &bench.identity)
        .unwrap_err()
        .to_string();
    assert!(error.contains("database.dump.age"), "{error}");
}

#[test]
fn a_format_of_the_future_is_not_called_damage() {
    let (bench, _) = &*WHOLE;
    let (_tmp, copy) = changed(4, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"format\": 1", "\"format\": 2").into_bytes();
    });
    let error = verify(&copy, &bench.identity, None).unwrap_err();
    assert!(
        matches!(error, BackupError::Newer { found: 2, .. }),
        "{error}"
    );
}
