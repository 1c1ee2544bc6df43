//! What goes in comes out: content, owner, mode, time, links, odd names.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Bench, is_root, mode};
use keyroll_backup::{
    BackupError, Change, MemberKind, NoteKind, Place, check, open, plan_restore, restore_files,
    verify,
};

/// A tree with everything that a stack's directory may hold; returns the members, relative to it.
fn odd_tree(bench: &Bench) -> Vec<PathBuf> {
    let root = bench.path("stack");
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let mut names: Vec<PathBuf> = [
        ".env",
        "empty",
        "with space",
        "deep/a/b/c",
        "percent%41",
        "new\nline",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    names.push(long.into());
    names.push(OsStr::from_bytes(b"latin\xe9\xff").into());
    for (index, name) in names.iter().enumerate() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = if index == 1 {
            Vec::new()
        } else {
            vec![b'a'; index * 40_000]
        };
        fs::write(&path, content).unwrap();
        let bits = [0o600, 0o644, 0o4755, 0o000, 0o640, 0o777, 0o400, 0o2750][index];
        if is_root() {
            let owner = u32::try_from(index).unwrap() * 1_000_003;
            chown(&path, Some(owner), Some(owner + 1)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        let time =
            SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + index as u64, 123_456_789);
        if bits != 0 || is_root() {
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
    if !is_root() {
        fs::set_permissions(root.join("deep/a/b/c"), Permissions::from_mode(0o400)).unwrap();
    }
    for (link, target) in [
        ("link", "deep/a/b/c".to_owned()),
        ("dangling", "./no//where/".to_owned()),
        ("long link", "x/".repeat(120)),
    ] {
        symlink(&target, root.join(link)).unwrap();
        if is_root() {
            lchown(root.join(link), Some(7), Some(8)).unwrap();
        }
        names.push(link.into());
    }
    names
}

fn assert_same(a: &Path, b: &Path) {
    let (x, y) = (
        fs::symlink_metadata(a).unwrap(),
        fs::symlink_metadata(b).unwrap(),
    );
    assert_eq!(x.file_type(), y.file_type(), "{}", b.display());
    assert_eq!(
        (x.mode(), x.uid(), x.gid(), x.mtime(), x.mtime_nsec()),
        (y.mode(), y.uid(), y.gid(), y.mtime(), y.mtime_nsec()),
        "{}",
        b.display()
    );
    if x.is_symlink() {
        assert_eq!(fs::read_link(a).unwrap(), fs::read_link(b).unwrap());
    } else {
        assert!(
            fs::read(a).unwrap() == fs::read(b).unwrap(),
            "{}",
            b.display()
        );
    }
}

#[test]
fn every_kind_of_file_comes_back_byte_for_byte_with_owner_mode_and_time() {
    let bench = Bench::new();
    let names = odd_tree(&bench);
    let writer = bench.writer();
    let added = writer
        .add_globs("application", &bench.path("stack"), &["**"])
        .unwrap();
    assert_eq!(
        added.members,
        names.len() + 4,
        "and the directories on the way"
    );
    assert!(added.notes.is_empty() && added.unmatched.is_empty());
    let done = writer.finish().unwrap();
    let verified = verify(&done.directory, &bench.identity, Some(&done.sha256)).unwrap();
    assert_eq!(verified.members, added.members);

    let into = bench.path("elsewhere");
    fs::create_dir(&into).unwrap();
    let restored = restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &Place::Into(into.clone()),
        |_| true,
    )
    .unwrap();
    assert_eq!(restored.written.len(), added.members);
    for name in &names {
        assert_same(&bench.path("stack").join(name), &into.join(name));
    }
    let leftovers = walkdir::WalkDir::new(&into)
        .into_iter()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".keyroll")
        })
        .count();
    assert_eq!(leftovers, 0);
}

#[test]
fn restoring_in_place_replaces_what_differs_and_leaves_the_rest_alone() {
    let bench = Bench::new();
    let env = bench.put(".env", b"OLD=1\n");
    let kept = bench.put("kept", b"same");
    let loose = bench.put("loose", b"mode");
    let gone = bench.put("sub/gone", b"back");
    fs::set_permissions(&env, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&loose, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(gone.parent().unwrap(), Permissions::from_mode(0o710)).unwrap();
    let writer = bench.writer();
    writer
        .add_files("files", &[&env, &kept, &loose, &gone])
        .unwrap();
    let done = writer.finish().unwrap();

    fs::write(&env, "NEW=1\n").unwrap();
    fs::set_permissions(&env, Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&loose, Permissions::from_mode(0o644)).unwrap();
    fs::remove_dir_all(gone.parent().unwrap()).unwrap();
    let inode = fs::metadata(&kept).unwrap().ino();

    let is_file = |m: &keyroll_backup::Member| m.kind != MemberKind::Directory;
    let plan = plan_restore(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        is_file,
    )
    .unwrap();
    let changes: Vec<_> = plan
        .iter()
        .map(|p| (p.destination.clone(), p.change.clone()))
        .collect();
    assert_eq!(
        changes,
        [
            (env.clone(), Change::Replace),
            (kept.clone(), Change::Same),
            (loose.clone(), Change::Adjust),
            (gone.clone(), Change::Create),
        ]
    );
    assert_eq!(
        fs::read(&env).unwrap(),
        b"NEW=1\n",
        "a dry run changes nothing"
    );

    let restored = restore_files(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        is_file,
    )
    .unwrap();
    assert_eq!(restored.same, std::slice::from_ref(&kept));
    assert_eq!(fs::read(&env).unwrap(), b"OLD=1\n");
    assert_eq!(
        (mode(&env), mode(&loose), mode(gone.parent().unwrap())),
        (0o640, 0o600, 0o710)
    );
    assert_eq!(fs::read(&gone).unwrap(), b"back");
    assert_eq!(fs::metadata(&kept).unwrap().ino(), inode);

    let again = restore_files(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        is_file,
    )
    .unwrap();
    assert!(again.written.is_empty(), "{again:?}");
}

#[test]
fn only_selected_files_are_restored() {
    let bench = Bench::new();
    let (a, b) = (bench.put("a", b"1"), bench.put("b", b"1"));
    let writer = bench.writer();
    writer
        .add_globs("application", &bench.path("stack"), &["*"])
        .unwrap();
    let done = writer.finish().unwrap();
    fs::write(&a, "2").unwrap();
    fs::write(&b, "2").unwrap();
    let select = |m: &keyroll_backup::Member| m.path == Path::new("a");
    restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &Place::Original,
        select,
    )
    .unwrap();
    assert_eq!(
        (fs::read(a).unwrap(), fs::read(b).unwrap()),
        (b"1".to_vec(), b"2".to_vec())
    );
}

#[test]
fn nothing_plain_is_on_disk_and_everything_is_private() {
    let bench = Bench::new();
    let done = bench.small();
    assert_eq!(mode(&done.directory), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&done.directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            name != "manifest.json",
            bytes.starts_with(b"age-encryption.org/v1\n")
        );
        for plain in [
            "hunter2hunter2",
            "PGDMP",
            "index.js",
            &common::sha256(b"run()"),
        ] {
            assert!(
                !String::from_utf8_lossy(&bytes).contains(plain),
                "{plain} in {name}"
            );
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "application.tar.gz.age",
            "contents.json.age",
            "database.dump.age",
            "files.tar.gz.age",
            "manifest.json"
        ]
    );
}

#[test]
fn a_stream_in_pieces_reads_back_whole_before_and_after_the_end() {
    let bench = Bench::new();
    let writer = bench.writer();
    let mut stream = writer.stream("database.dump").unwrap();
    let mut expected = Vec::new();
    for piece in 0..300_u32 {
        let piece = piece.to_le_bytes().repeat(300);
        stream.write_all(&piece).unwrap();
        expected.extend(piece);
    }
    assert_eq!(stream.bytes(), expected.len() as u64);
    assert!(
        writer.open("database.dump", &bench.identity).is_err(),
        "not finished"
    );
    let measured = stream.finish().unwrap();
    assert_eq!(measured.sha256, common::sha256(&expected));
    let mut before = Vec::new();
    writer
        .open("database.dump", &bench.identity)
        .unwrap()
        .read_to_end(&mut before)
        .unwrap();
    let done = writer.finish().unwrap();
    let mut after = Vec::new();
    open(&done.directory, "database.dump", &bench.identity)
        .unwrap()
        .read_to_end(&mut after)
        .unwrap();
    assert!(before == expected && after == expected);
    check(&done.directory).unwrap();
}

#[test]
fn parts_are_written_side_by_side() {
    let bench = Bench::new();
    let writer = bench.writer();
    let env = bench.put(".env", b"A=1");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let mut stream = writer.stream(&format!("stream-{number}")).unwrap();
            scope.spawn(move || {
                stream.write_all(&vec![number; 300_000]).unwrap();
                stream.finish().unwrap();
            });
        }
        scope.spawn(|| writer.add_files("files", &[&env]).unwrap());
    });
    let done = writer.finish().unwrap();
    assert_eq!(done.manifest.files.len(), 6);
    verify(&done.directory, &bench.identity, None).unwrap();
}

#[test]
fn an_env_file_behind_a_link_is_saved_with_its_link() {
    let bench = Bench::new();
    let real = bench.put("real.env", b"A=1");
    let link = bench.path("stack/.env");
    symlink("real.env", &link).unwrap();
    let writer = bench.writer();
    writer.add_files("files", &[&link]).unwrap();
    let done = writer.finish().unwrap();
    fs::remove_file(&link).unwrap();
    fs::write(&link, "a plain file where the link was").unwrap();
    fs::remove_file(&real).unwrap();
    restore_files(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        |_| true,
    )
    .unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("real.env"));
    assert_eq!(fs::read(&real).unwrap(), b"A=1");
}

#[test]
fn the_stack_below_its_own_backup_root_does_not_save_older_backups() {
    let bench = Bench::new();
    bench.put("a", b"1");
    let root = bench.path("stack/backups");
    for _ in 0..2 {
        let writer =
            keyroll_backup::BackupWriter::create(&root, common::at(), bench.recipients()).unwrap();
        let added = writer
            .add_globs("application", &bench.path("stack"), &["**"])
            .unwrap();
        assert_eq!(added.members, 1);
        writer.finish().unwrap();
    }
}

#[test]
fn a_pipe_is_noted_and_a_glob_without_a_match_is_named() {
    let bench = Bench::new();
    let fifo = bench.path("stack/pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let writer = bench.writer();
    let added = writer
        .add_globs("application", &bench.path("stack"), &["*", "missing/**"])
        .unwrap();
    assert_eq!(added.unmatched, ["missing/**"]);
    assert_eq!(added.notes.len(), 1);
    assert_eq!(added.notes[0].kind, NoteKind::Special);
    assert!(matches!(
        writer.add_files("files", &[&fifo]),
        Err(BackupError::NotAFile { .. })
    ));
}

#[test]
fn the_same_name_twice_is_refused() {
    let bench = Bench::new();
    let writer = bench.writer();
    let stream = writer.stream("roles").unwrap();
    assert!(matches!(
        writer.stream("roles"),
        Err(BackupError::Twice { .. })
    ));
    stream.finish().unwrap();
    assert!(matches!(
        writer.stream("roles"),
        Err(BackupError::Twice { .. })
    ));
    assert!(matches!(
        writer.stream("../roles"),
        Err(BackupError::Name { .. })
    ));
}
