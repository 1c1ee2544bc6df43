//! Replacing files on disk.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use keyroll_envfile::{ReplaceError, Staged, check_replaceable, leftovers, remove_leftovers};
use rustix::fs::{IFlags, XattrFlags};
use rustix::io::Errno;
use tempfile::TempDir;

fn target(content: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env.production");
    fs::write(&path, content).unwrap();
    (dir, path)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tests that need root or a feature of the file system say so; in the full run they must not be left out.
fn skip(why: &str) {
    assert!(
        std::env::var_os("KEYROLL_CONTAINER_TESTS").is_none_or(|v| v != "1"),
        "KEYROLL_CONTAINER_TESTS=1, but {why}"
    );
    println!("skipped: {why}");
}

#[test]
fn the_new_content_is_beside_the_old_until_it_is_committed() {
    let (dir, path) = target("old");
    let staged = Staged::write(&path, b"old", b"new").unwrap();
    assert_eq!(staged.path().parent(), Some(dir.path()));
    assert_eq!(fs::read(staged.path()).unwrap(), b"new");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    staged.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(dir.path()), [".env.production"]);
}

#[test]
fn discarding_and_dropping_leave_no_trace() {
    let (dir, path) = target("old");
    let before = fs::metadata(&path).unwrap();
    Staged::write(&path, b"old", b"new")
        .unwrap()
        .discard()
        .unwrap();
    drop(Staged::write(&path, b"old", b"new").unwrap());
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.ino(), before.ctime_nsec()),
        (after.ino(), after.ctime_nsec())
    );
    assert_eq!(names(dir.path()), [".env.production"]);
}

#[test]
fn the_mode_is_kept_exactly() {
    for mode in [0o600, 0o640, 0o644, 0o400, 0o440, 0o660, 0o755, 0o604] {
        let (_dir, path) = target("old");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let staged = Staged::write(&path, b"old", b"new").unwrap();
        assert_eq!(fs::metadata(staged.path()).unwrap().mode() & 0o7777, mode);
        staged.commit().unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().mode() & 0o7777,
            mode,
            "{mode:o}"
        );
    }
}

#[test]
fn owner_and_group_are_kept() {
    if !is_root() {
        return skip("giving a file to another owner needs root");
    }
    let (_dir, path) = target("old");
    chown(&path, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    Staged::write(&path, b"old", b"new")
        .unwrap()
        .commit()
        .unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (after.uid(), after.gid(), after.mode() & 0o7777),
        (1234, 4321, 0o640)
    );
}

#[test]
fn the_new_file_is_never_open_to_more_people_than_the_old_one() {
    if !is_root() {
        return skip("giving a file to another owner needs root");
    }
    let (dir, path) = target("old");
    chown(&path, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                for file in leftovers(&path).unwrap_or_default() {
                    if let Ok(m) = fs::metadata(file) {
                        seen.insert((m.uid(), m.gid(), m.mode() & 0o7777));
                    }
                }
            }
            seen
        });
        // Large, so that the watcher sees the states in between.
        let new = vec![b'x'; 4 << 20];
        for _ in 0..10 {
            drop(Staged::write(&path, b"old", &new).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(!seen.is_empty());
    for state in seen {
        let private = state.2 == 0o600;
        assert!(private || state == (1234, 4321, 0o640), "{state:?}");
    }
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn a_file_that_is_not_what_the_edit_began_with_is_left_alone() {
    let (dir, path) = target("edited since");
    let error = Staged::write(&path, b"old", b"new").unwrap_err();
    assert!(matches!(error, ReplaceError::Changed { .. }) && !error.may_have_landed());
    assert_eq!(fs::read(&path).unwrap(), b"edited since");
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn an_edit_between_staging_and_committing_is_kept_and_reported() {
    for edit in [
        |path: &Path| fs::write(path, "new by them").unwrap(),
        // Same size, as an editor that writes a new file and renames it.
        |path: &Path| {
            fs::write(path.with_extension("swp"), "OLD").unwrap();
            fs::rename(path.with_extension("swp"), path).unwrap();
        },
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap(),
    ] {
        let (dir, path) = target("old");
        let staged = Staged::write(&path, b"old", b"new").unwrap();
        // The clock that stamps files may stand still for some milliseconds.
        let before = fs::metadata(&path).unwrap().ctime_nsec();
        for _ in 0..1000 {
            edit(&path);
            if fs::metadata(&path).is_ok_and(|m| m.ctime_nsec() == before) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            } else {
                break;
            }
        }
        let error = staged.commit().unwrap_err();
        assert!(matches!(error, ReplaceError::Changed { .. }), "{error}");
        assert_ne!(fs::read(&path).unwrap_or_default(), b"new");
        assert!(
            names(dir.path())
                .iter()
                .all(|name| !name.contains("keyroll"))
        );
    }
}

#[test]
fn a_symbolic_link_is_refused_with_where_it_points() {
    let (dir, path) = target("old");
    let link = dir.path().join("link");
    symlink("../elsewhere/.env", &link).unwrap();
    let error = check_replaceable(&link).unwrap_err();
    assert!(
        matches!(&error, ReplaceError::Symlink { to, .. } if to == Path::new("../elsewhere/.env"))
    );
    assert!(error.to_string().contains("../elsewhere/.env"));
    assert!(Staged::write(&link, b"old", b"new").is_err());
    check_replaceable(&path).unwrap();
}

#[test]
fn a_file_with_a_second_name_is_refused() {
    let (dir, path) = target("old");
    fs::hard_link(&path, dir.path().join("second")).unwrap();
    let error = Staged::write(&path, b"old", b"new").unwrap_err();
    assert!(matches!(error, ReplaceError::HardLinks { links: 2, .. }));
    assert_eq!(names(dir.path()).len(), 2);
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let (dir, _) = target("old");
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (path, words) in [
        (dir.path(), "a directory"),
        (&pipe, "a pipe"),
        (Path::new("/dev/null"), "a device"),
    ] {
        let error = check_replaceable(path).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let missing = check_replaceable(&dir.path().join("missing")).unwrap_err();
    assert!(
        matches!(missing, ReplaceError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}

#[test]
fn an_immutable_file_or_directory_is_refused_before_anything_is_written() {
    let (dir, path) = target("old");
    for (flagged, flag) in [
        (path.as_path(), IFlags::IMMUTABLE),
        (path.as_path(), IFlags::APPEND),
        (dir.path(), IFlags::IMMUTABLE),
        (dir.path(), IFlags::APPEND),
    ] {
        let file = fs::File::open(flagged).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).unwrap_or(IFlags::empty());
        match rustix::fs::ioctl_setflags(&file, flags | flag) {
            Ok(()) => {}
            Err(Errno::PERM) => return skip("setting the immutable flag needs root"),
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => {
                println!("skipped: this file system has no immutable flag");
                return;
            }
            Err(e) => panic!("{e}"),
        }
        let outcome = Staged::write(&path, b"old", b"new");
        rustix::fs::ioctl_setflags(&file, flags).unwrap();
        assert!(
            matches!(outcome.unwrap_err(), ReplaceError::Immutable { path } if path == flagged)
        );
        assert_eq!(names(dir.path()).len(), 1);
    }
}

#[test]
fn attributes_are_kept_and_an_acl_of_the_directory_is_not_inherited() {
    const ACL: &str = "system.posix_acl_access";
    const NOBODY: u32 = u32::MAX;
    let (dir, path) = target("old");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    // Version 2, then tag, rights and id of each entry: the owner, user 1234, the group, the mask, the others.
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    };
    let own = acl(&[
        (1, 6, NOBODY),
        (2, 4, 1234),
        (4, 0, NOBODY),
        (16, 4, NOBODY),
        (32, 0, NOBODY),
    ]);
    let inherited = acl(&[
        (1, 7, NOBODY),
        (2, 7, 4321),
        (4, 7, NOBODY),
        (16, 7, NOBODY),
        (32, 7, NOBODY),
    ]);
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, XattrFlags::empty())
    };
    let get = |path: &Path, name: &str| {
        let mut value = vec![0; 256];
        let length = rustix::fs::getxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        Ok::<_, Errno>(value)
    };
    match set(dir.path(), "system.posix_acl_default", &inherited) {
        Err(Errno::OPNOTSUPP) => {
            println!("skipped: this file system has no ACLs");
            return;
        }
        outcome => outcome.unwrap(),
    }
    // Without one of its own, the file gets none.
    Staged::write(&path, b"old", b"new")
        .unwrap()
        .commit()
        .unwrap();
    assert_eq!(get(&path, ACL), Err(Errno::NODATA));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    // With one, exactly that.
    set(&path, ACL, &own).unwrap();
    set(&path, "user.comment", b"kept").unwrap();
    let mode = fs::metadata(&path).unwrap().mode();
    Staged::write(&path, b"new", b"newer")
        .unwrap()
        .commit()
        .unwrap();
    assert_eq!(get(&path, ACL).unwrap(), own);
    assert_eq!(get(&path, "user.comment").unwrap(), b"kept");
    assert_eq!(fs::metadata(&path).unwrap().mode(), mode);
}

#[test]
fn what_a_killed_run_left_is_found_and_removed_and_nothing_else() {
    let (dir, path) = target("old");
    let staged = Staged::write(&path, b"old", b"new").unwrap();
    let left = staged.path();
    std::mem::forget(staged); // as SIGKILL would
    for other in [
        ".env.production.keyroll-1-2.tmp.bak",
        ".env.production.keyroll-x-2.tmp",
        ".env.keyroll-1-2.tmp",
        "..env.production.tmp",
        ".other.keyroll-1-2.tmp",
    ] {
        fs::write(dir.path().join(other), "theirs").unwrap();
    }
    fs::create_dir(dir.path().join("..env.production.keyroll-9-9.tmp")).unwrap();
    assert_eq!(leftovers(&path).unwrap(), std::slice::from_ref(&left));
    assert_eq!(remove_leftovers(&path).unwrap(), [left]);
    assert!(remove_leftovers(&path).unwrap().is_empty());
    assert_eq!(names(dir.path()).len(), 7);
}

#[test]
fn a_leftover_with_the_same_name_is_no_obstacle() {
    let (_dir, path) = target("old");
    let first = Staged::write(&path, b"old", b"1").unwrap();
    let second = Staged::write(&path, b"old", b"2").unwrap();
    assert_ne!(first.path(), second.path());
    second.commit().unwrap();
    assert!(matches!(first.commit(), Err(ReplaceError::Changed { .. })));
}

#[test]
fn errors_say_that_nothing_was_changed_and_hold_no_content() {
    let (_dir, path) = target("PASSWORD=hunter2");
    let error = Staged::write(&path, b"old", b"PASSWORD=hunter3").unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("changed nothing") && !shown.contains("hunter"));
    let staged = Staged::write(&path, b"PASSWORD=hunter2", b"PASSWORD=hunter3").unwrap();
    assert!(!format!("{staged:?}").contains("hunter"));
}

/// Run by the test below, in a mount namespace of its own.
#[test]
#[ignore = "needs mounts that the next test makes"]
fn in_a_namespace_of_its_own() {
    let dir = PathBuf::from(std::env::var_os("KEYROLL_TEST_MOUNTS").unwrap());
    let refused = |path: PathBuf| Staged::write(&path, b"old", b"new").unwrap_err();
    assert!(matches!(
        refused(dir.join("ro/.env")),
        ReplaceError::ReadOnly { .. }
    ));
    assert!(matches!(
        refused(dir.join("rw/.env")),
        ReplaceError::MountPoint { .. }
    ));
    assert_eq!(names(&dir.join("rw")), [".env"]);
}

#[test]
fn a_read_only_file_system_and_a_mounted_file_are_refused() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["ro", "rw"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join(".env"), "old").unwrap();
    }
    fs::write(dir.path().join("source"), "old").unwrap();
    let script = "set -e; cd \"$KEYROLL_TEST_MOUNTS\"
        mount --bind ro ro; mount -o remount,bind,ro ro; mount --bind source rw/.env; cd /
        exec \"$0\" --exact in_a_namespace_of_its_own --ignored";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("KEYROLL_TEST_MOUNTS", dir.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(shown.contains("1 passed"), "{shown}");
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            skip("this machine does not allow mount namespaces");
        }
        Ok(output) => panic!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(e) => skip(&format!("unshare cannot be run: {e}")),
    }
}
