//! A restore stays where it belongs, whatever stands in the way and whatever the list says.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::Bench;
use keyroll_backup::{BackupError, Change, Place, plan_restore, restore_files};

#[test]
fn a_directory_that_became_a_link_is_not_entered() {
    let bench = Bench::new();
    bench.put("conf/app.env", b"A=1");
    let other = bench.put("other", b"untouched");
    let writer = bench.writer();
    writer
        .add_globs("application", &bench.path("stack"), &["**"])
        .unwrap();
    let done = writer.finish().unwrap();
    let victim = bench.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("app.env"), "theirs").unwrap();
    fs::remove_dir_all(bench.path("stack/conf")).unwrap();
    symlink(&victim, bench.path("stack/conf")).unwrap();
    fs::write(&other, "newer").unwrap();

    let all = |_: &keyroll_backup::Member| true;
    let plan = plan_restore(
        &done.directory,
        &bench.identity,
        "application",
        &Place::Original,
        all,
    )
    .unwrap();
    assert!(
        plan.iter()
            .any(|p| matches!(&p.change, Change::Blocked(why) if why.contains("link")))
    );
    let error = restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &Place::Original,
        all,
    )
    .unwrap_err();
    assert!(matches!(error, BackupError::Unsafe { .. }), "{error}");
    assert_eq!(fs::read(victim.join("app.env")).unwrap(), b"theirs");
    assert_eq!(fs::read(other).unwrap(), b"newer", "refused as a whole");
}

#[test]
fn a_link_at_the_destination_is_replaced_not_written_through() {
    let bench = Bench::new();
    let env = bench.put(".env", b"A=1");
    let writer = bench.writer();
    writer.add_files("files", &[&env]).unwrap();
    let done = writer.finish().unwrap();
    let victim = bench.path("victim");
    fs::write(&victim, "theirs").unwrap();
    fs::remove_file(&env).unwrap();
    symlink(&victim, &env).unwrap();
    restore_files(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        |_| true,
    )
    .unwrap();
    assert!(fs::symlink_metadata(&env).unwrap().is_file());
    assert_eq!(fs::read(&env).unwrap(), b"A=1");
    assert_eq!(fs::read(&victim).unwrap(), b"theirs");
}

#[test]
fn a_link_in_the_place_of_an_unplaced_file_is_replaced_too() {
    let bench = Bench::new();
    bench.put("a", b"1");
    let writer = bench.writer();
    writer
        .add_globs("application", &bench.path("stack"), &["*"])
        .unwrap();
    let done = writer.finish().unwrap();
    let victim = bench.path("victim");
    fs::write(&victim, "theirs").unwrap();
    let into = bench.path("into");
    fs::create_dir(&into).unwrap();
    let unplaced = format!(".keyroll-restore-{}", &common::sha256(b"a")[..16]);
    symlink(&victim, into.join(unplaced)).unwrap();
    let place = Place::Into(into.clone());
    restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &place,
        |_| true,
    )
    .unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"theirs");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
}

#[test]
fn files_and_directories_are_not_exchanged() {
    let bench = Bench::new();
    let file = bench.put("a", b"1");
    let inside = bench.put("d/x", b"1");
    let writer = bench.writer();
    writer.add_files("files", &[&file, &inside]).unwrap();
    let done = writer.finish().unwrap();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::remove_dir_all(inside.parent().unwrap()).unwrap();
    fs::write(inside.parent().unwrap(), "").unwrap();
    let plan = plan_restore(
        &done.directory,
        &bench.identity,
        "files",
        &Place::Original,
        |_| true,
    )
    .unwrap();
    let blocked = plan
        .iter()
        .filter(|p| matches!(p.change, Change::Blocked(_)))
        .count();
    assert_eq!(blocked, 3, "{plan:?}");
}

#[test]
fn a_stack_directory_that_moved_behind_a_link_is_not_followed() {
    let bench = Bench::new();
    bench.put("a", b"1");
    let writer = bench.writer();
    writer
        .add_globs("application", &bench.path("stack"), &["*"])
        .unwrap();
    let done = writer.finish().unwrap();
    fs::rename(bench.path("stack"), bench.path("moved")).unwrap();
    symlink(bench.path("moved"), bench.path("stack")).unwrap();
    let error = restore_files(
        &done.directory,
        &bench.identity,
        "application",
        &Place::Original,
        |_| true,
    )
    .unwrap_err();
    assert!(error.to_string().contains("moved"), "{error}");
}

#[test]
fn forged_lists_that_climb_or_name_absolute_paths_restore_nothing() {
    for evil in [
        "../evil",
        "/tmp/keyroll-evil",
        "a/../../evil",
        "./a",
        "a%00b",
        "",
    ] {
        let bench = Bench::new();
        bench.put("victim", b"1");
        let writer = bench.writer();
        writer
            .add_globs("application", &bench.path("stack"), &["*"])
            .unwrap();
        let done = writer.finish().unwrap();
        bench.forge(&done.directory, |text| {
            let forged = text.replace("\"path\":\"victim\"", &format!("\"path\":\"{evil}\""));
            assert_ne!(forged, text);
            forged
        });
        let into = bench.path("into");
        fs::create_dir(&into).unwrap();
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
            matches!(error, BackupError::Unsafe { .. }),
            "{evil}: {error}"
        );
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
        assert!(!Path::new("/tmp/keyroll-evil").exists());
    }
}

#[test]
fn a_list_that_says_otherwise_than_the_archive_is_damage() {
    let bench = Bench::new();
    bench.put("victim", b"1");
    for (from, to) in [
        ("\"path\":\"victim\"", "\"path\":\"victor\""),
        ("\"mode\":", "\"mode\":1"),
        ("\"uid\":", "\"uid\":1"),
        (common::sha256(b"1").as_str(), common::sha256(b"2").as_str()),
    ] {
        let writer = bench.writer();
        writer
            .add_globs("application", &bench.path("stack"), &["*"])
            .unwrap();
        let done = writer.finish().unwrap();
        bench.forge(&done.directory, |text| {
            let forged = text.replacen(from, to, 1);
            assert_ne!(forged, text);
            forged
        });
        let error = keyroll_backup::verify(&done.directory, &bench.identity, None).unwrap_err();
        assert!(
            matches!(error, BackupError::Damaged { .. }),
            "{from}: {error}"
        );
    }
}
