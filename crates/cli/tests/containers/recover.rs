//! `keyroll recover`: what a machine does by itself when it comes up.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::recovery::{Bench, DONE, SECRETS, STUCK};
use keyroll_testkit::{StackOptions, containers_wanted};
use serde_json::Value;

const UNFINISHED: i32 = 7;
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn after_a_reboot_a_rotation_between_two_sets_is_finished_by_itself() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Nothing has changed; file and database are new, the containers are old; everything is new but the admin.
    for moment in ["backup: done", "database-password: done", "recreate: done"] {
        let before = bench.held();
        bench.killed_at(moment).await;
        // Nothing runs any more, and nothing restarts what was killed.
        bench.stack.compose(&["kill"]).await.unwrap();

        let began = Instant::now();
        let recovered = bench.run(&["recover"]).await;
        println!("{moment}: recovered after {:.1?}", began.elapsed());

        assert_eq!(recovered.code, Some(DONE), "{moment}: {recovered:?}");
        assert!(recovered.stderr.contains("stands still"), "{recovered:?}");
        let now = bench.held();
        for name in SECRETS {
            assert!(
                !now.value(name).same_as(before.value(name)),
                "{moment}: {name}"
            );
        }
        bench.one_set_in_force(&before, &before, moment).await;
    }
    let nothing = bench.run(&["recover"]).await;
    assert_eq!(nothing.code, Some(DONE), "{nothing:?}");
    assert!(nothing.stdout.contains("nothing to recover"), "{nothing:?}");
}

#[tokio::test]
async fn where_nothing_was_ever_rotated_nothing_is_made_and_nobody_is_waited_for() {
    let keyroll = keyroll_testkit::Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    let state = keyroll.home().join("state");
    let socket = format!(
        "compose.socket={}",
        keyroll.home().join("none.sock").display()
    );
    let began = Instant::now();
    let run = keyroll
        .run([
            "recover",
            "--state-dir",
            state.to_str().unwrap(),
            "--set",
            &socket,
        ])
        .await
        .unwrap();
    assert_eq!(run.code, Some(DONE), "{run:?}");
    assert!(!state.exists(), "a state directory was made");
    assert!(began.elapsed() < Duration::from_secs(30), "it waited");
}

#[tokio::test]
async fn an_engine_that_comes_up_later_is_waited_for_and_one_that_does_not_is_said() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    bench.killed_at("database-password: done").await;
    let socket = bench.keyroll.home().join("engine.sock");
    let profile = format!("compose.socket={}", socket.display());

    // The rotation keeps the socket of its own profile, so the name that it has is what must be there.
    let early = bench
        .run(&["recover", "--set", &profile, "--wait", "1"])
        .await;
    assert_eq!(early.code, Some(UNFINISHED), "{early:?}");
    assert!(early.stderr.contains("engine.sock"), "{early:?}");
    let held = bench.unfinished().await;
    assert!(held.is_some(), "it is still unfinished");

    let later = bench.spawn(&["recover", "--set", &profile, "--wait", "60"]);
    let waits = "waiting for the container engine";
    later.says(waits).await.unwrap();
    symlink("/var/run/docker.sock", &socket).unwrap();
    let later = later.wait(LIMIT * 3).await.unwrap();
    assert_eq!(later.code, Some(DONE), "{later:?}");
    bench.one_set_in_force(&before, &before, "later").await;
}

#[tokio::test]
async fn a_stuck_rotation_is_left_to_its_operator() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    bench.gets_stuck().await;
    let shown = async || {
        let all = bench.run(&["status", "--json"]).await;
        serde_json::from_str::<Value>(&all.stdout).unwrap()["unfinished"].clone()
    };
    let told = shown().await;

    let left = bench.run(&["recover"]).await;
    assert_eq!(left.code, Some(STUCK), "{left:?}");
    assert_eq!(shown().await, told, "it was touched");

    let resumed = bench.run(&["resume"]).await;
    assert!(matches!(resumed.code, Some(0 | 4)), "{resumed:?}");
    bench.one_set_in_force(&before, &before, "resumed").await;
}

#[tokio::test]
async fn a_unit_is_written_that_systemd_accepts() {
    let keyroll = keyroll_testkit::Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    let units = keyroll.home().join("units");
    let state = keyroll.home().join("a state");
    let run = keyroll
        .run([
            "install-units",
            "--unit-dir",
            units.to_str().unwrap(),
            "--state-dir",
            state.to_str().unwrap(),
            "--set",
            "http.base_url=https://panel.example/%20$HOME",
            "--json",
        ])
        .await
        .unwrap();
    assert_eq!(run.code, Some(DONE), "{run:?}");
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    let unit = units.join("keyroll-recover-proxpanel.service");
    assert_eq!(told["unit"], unit.to_str().unwrap());
    let there = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output();
    assert_eq!(told["checked"], there.is_ok(), "{told}");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(
        text.contains("\"--set\"") || text.contains(" --set "),
        "{text}"
    );
    assert!(text.contains("%%20$$HOME"), "{text}");
    let left: Vec<_> = fs::read_dir(&units).unwrap().collect();
    assert_eq!(left.len(), 1, "something else was left: {left:?}");
}
