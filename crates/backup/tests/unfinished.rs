//! A backup is whole or it counts as none.

mod common;

use std::fs;
use std::io::Write as _;

use common::{Bench, at, mode};
use keyroll_backup::{
    BackupError, BackupWriter, Place, State, inspect, list, open, remove_unfinished, restore_files,
    verify,
};
use keyroll_secret::Recipients;

#[test]
fn a_backup_that_was_never_finished_proves_and_restores_nothing() {
    let bench = Bench::new();
    let env = bench.put(".env", b"A=1");
    let writer = bench.writer();
    writer.add_files("files", &[&env]).unwrap();
    let directory = writer.directory().to_owned();
    drop(writer);
    // What a crash between writing the manifest and renaming it leaves.
    fs::write(directory.join("manifest.json.unfinished"), "{}").unwrap();
    assert!(matches!(inspect(&directory), State::Unfinished));
    for error in [
        verify(&directory, &bench.identity, None).unwrap_err(),
        open(&directory, "files", &bench.identity).unwrap_err(),
        restore_files(
            &directory,
            &bench.identity,
            "files",
            &Place::Original,
            |_| true,
        )
        .unwrap_err(),
    ] {
        assert!(matches!(error, BackupError::Unfinished { .. }), "{error}");
    }
}

#[test]
fn a_dropped_or_failed_part_keeps_the_backup_from_being_finished() {
    let bench = Bench::new();
    let writer = bench.writer();
    let mut stream = writer.stream("database.dump").unwrap();
    stream.write_all(b"half").unwrap();
    drop(stream);
    let directory = writer.directory().to_owned();
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("database.dump.age"), "{error}");
    assert!(matches!(inspect(&directory), State::Unfinished));

    let writer = bench.writer();
    let directory = writer.directory().to_owned();
    assert!(writer.add_files("files", &[bench.path("none")]).is_err());
    assert!(matches!(writer.finish(), Err(BackupError::Open { .. })));
    assert!(matches!(inspect(&directory), State::Unfinished));
}

#[test]
fn backups_of_one_second_get_numbers_and_are_listed_in_order() {
    let bench = Bench::new();
    let root = bench.path("backups");
    assert!(list(&root).unwrap().is_empty(), "no root, no backups");
    let first = bench.small();
    drop(bench.writer());
    let third = bench.writer().finish().unwrap();
    fs::write(third.directory.join("manifest.json"), "{").unwrap();
    fs::create_dir(root.join("not a backup")).unwrap();
    assert_eq!(mode(&root), 0o700);

    let listed = list(&root).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|l| l.directory.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "20261123T231500Z-secret-rotation",
            "20261123T231500Z-secret-rotation-2",
            "20261123T231500Z-secret-rotation-3"
        ]
    );
    assert_eq!(listed[0].at, at());
    let manifest_size = fs::metadata(first.directory.join("manifest.json"))
        .unwrap()
        .len();
    assert!(
        matches!(&listed[0].state, State::Whole(m) if m.bytes() + manifest_size == listed[0].bytes)
    );
    assert!(matches!(listed[1].state, State::Unfinished));
    assert!(matches!(listed[2].state, State::Damaged(_)));
}

#[test]
fn only_unfinished_backups_are_removed() {
    let bench = Bench::new();
    let whole = bench.small();
    assert!(matches!(
        remove_unfinished(&whole.directory),
        Err(BackupError::NotUnfinished { .. })
    ));
    assert!(matches!(
        remove_unfinished(&bench.path("stack")),
        Err(BackupError::NotUnfinished { .. })
    ));
    let unfinished = bench.writer().directory().to_owned();
    remove_unfinished(&unfinished).unwrap();
    assert!(!unfinished.exists() && whole.directory.exists());
}

#[test]
fn without_recipients_or_with_a_relative_root_nothing_is_made() {
    let bench = Bench::new();
    let nobody = Recipients::operators([]).unwrap();
    let root = bench.path("backups");
    assert!(matches!(
        BackupWriter::create(&root, at(), nobody),
        Err(BackupError::NoRecipient)
    ));
    assert!(!root.exists());
    let relative = BackupWriter::create("backups".as_ref(), at(), bench.recipients());
    assert!(matches!(relative, Err(BackupError::NotAbsolute { .. })));
}
