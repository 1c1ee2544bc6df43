//! The env file is somewhere else, full, taken, or another one in the middle.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::common::{Bench, DONE, ROLLED_BACK, ROTATE, STUCK, Tmpfs, at, run, went_back};
use keyroll_testkit::{StackOptions, containers_wanted};

/// A mount that is gone when dropped.
struct Bound(String);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[tokio::test]
async fn an_env_file_that_is_a_mount_is_refused_and_one_that_becomes_a_mount_is_stuck_until_it_is_none()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    let file = path.to_str().unwrap();
    let mount = || {
        run("mount", &["--bind", file, file]);
        Bound(file.to_owned())
    };
    let bound = mount();
    let says = [file, "is a mount point"];
    bench
        .refuses_since(&before, &ROTATE, "env-file", &says)
        .await;
    drop(bound);

    // Nothing can be renamed over a mount, so the old file cannot come back before it is taken away.
    let fault = bench.stack.fault("seed-exit1");
    fault.set();
    let mut bound = None;
    let ended = bench
        .interfere(
            &ROTATE,
            vec![at("recreate: started", || bound = Some(mount()))],
        )
        .await;
    fault.clear();
    assert_eq!(ended.code, STUCK, "{ended:?}");
    assert!(ended.stdout.contains("is a mount point"), "{ended:?}");
    drop(bound);
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, ROLLED_BACK, "{resumed:?}");
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn a_full_file_system_of_the_env_file_turns_the_rotation_back_and_one_that_fills_up_afterwards_is_stuck_until_there_is_room()
 {
    if !containers_wanted() {
        return;
    }
    // A file system that holds the deployment and nothing else, as some servers have it.
    let (keep, kept) = mpsc::channel();
    let options = StackOptions::new().prepare(move |root| {
        keep.send(Tmpfs::take_over(root, "4m")).unwrap();
        Ok(())
    });
    let bench = Bench::start(options).await;
    let mounted = kept.recv().unwrap();
    let before = bench.before().await;

    let full = || mounted.fill();
    let ended = bench
        .interfere(&ROTATE, vec![at("preflight: who uses", full)])
        .await;
    mounted.empty();
    went_back(&ended);
    assert!(ended.stderr.contains("No space left"), "{ended:?}");
    bench.old_set_is_back(&before).await;

    // Not even the old file has room then.
    let fault = bench.stack.fault("seed-exit1");
    fault.set();
    let ended = bench
        .interfere(&ROTATE, vec![at("recreate: done", full)])
        .await;
    assert_eq!(ended.code, STUCK, "{ended:?}");
    assert!(ended.stdout.contains("No space left"), "{ended:?}");
    mounted.empty();
    fault.clear();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, ROLLED_BACK, "{resumed:?}");
    bench.old_set_is_back(&before).await;

    // The lock of another process is advice that no reader of the file asks for, and it stays with the old file.
    let mut locked = Command::new("flock")
        .args(["-x", bench.stack.env_path().to_str().unwrap(), "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let done = bench.run(&ROTATE).await;
    drop(locked.stdin.take());
    let _ = locked.wait();
    assert_eq!(done.code, DONE, "{done:?}");
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn an_env_file_that_is_replaced_by_its_like_turns_the_rotation_back_before_the_rename_and_is_taken_as_it_is_after_it()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    let like = || {
        let beside = path.with_file_name("like");
        let (from, to) = (path.to_str().unwrap(), beside.to_str().unwrap());
        run("cp", &["-p", from, to]);
        fs::rename(&beside, &path).unwrap();
    };
    // Before the rename it is not the file that was read, and who made it may go on writing to it.
    let ended = bench
        .interfere(&ROTATE, vec![at("env-candidate: done", like)])
        .await;
    went_back(&ended);
    bench.old_set_is_back(&before).await;

    // Afterwards its content counts, and it is the new one.
    let fault = bench.stack.fault("seed-exit1");
    fault.set();
    let ended = bench
        .interfere(&ROTATE, vec![at("env-file: done", like)])
        .await;
    fault.clear();
    went_back(&ended);
    bench.old_set_is_back(&before).await;
    let done = bench
        .interfere(&ROTATE, vec![at("env-file: done", like)])
        .await;
    assert_eq!(done.code, DONE, "{done:?}");
    bench.runs_new_values(&before).await;
}
