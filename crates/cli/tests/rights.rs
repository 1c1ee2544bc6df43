//! What keyroll does without the rights that it needs: nothing, and it says so. No containers; needs root, to give it up.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use keyroll_testkit::{Keyroll, Run};

/// Runs each command that begins something with fewer rights, and gives what came of it.
async fn with_fewer_rights(less: &[&str]) -> Vec<Run> {
    let scratch = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(scratch.path());
    // Others may not enter the directory that it was built in. Another process copies: what a test starts meanwhile would inherit a
    // file that this one is writing, and a program that is being written cannot be run.
    let binary = scratch.path().join("keyroll");
    let mut copy = std::process::Command::new("cp");
    let copied = copy
        .arg(env!("CARGO_BIN_EXE_keyroll"))
        .arg(&binary)
        .status();
    assert!(copied.unwrap().success());
    let state = scratch.path().join("state");
    let (state_text, root) = (state.to_str().unwrap(), scratch.path().to_str().unwrap());
    let setpriv = Keyroll::new("/usr/bin/setpriv").unwrap();
    let mut runs = vec![];
    for command in [
        &["plan", "production"][..],
        &["rotate", "production", "--yes"],
        &["resume"],
        &["rollback", "20261123T231500Z-9f3c01ab", "--yes"],
    ] {
        let binary = [binary.to_str().unwrap()];
        let place = ["--root", root, "--state-dir", state_text];
        let all = [less, &binary, command, &place].concat();
        runs.push(setpriv.run(all).await.unwrap());
        assert!(!state.exists(), "{command:?} made a state directory");
    }
    runs
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn refused(runs: &[Run], says: &[&str]) {
    for run in runs {
        assert_eq!(run.code, Some(3), "{run:?}");
        for word in [&["nothing was changed", "  state: ", "as root"], says].concat() {
            assert!(run.stderr.contains(word), "{word:?}: {run:?}");
        }
    }
}

#[tokio::test]
async fn another_user_than_root_is_refused_before_anything_is_made() {
    if !is_root() {
        return;
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    refused(&with_fewer_rights(&nobody).await, &["user 65534"]);
}

#[tokio::test]
async fn root_without_the_right_to_look_into_processes_is_refused_and_the_right_is_named() {
    if !is_root() {
        return;
    }
    let confined = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    refused(&with_fewer_rights(&confined).await, &["CAP_SYS_PTRACE"]);
}
