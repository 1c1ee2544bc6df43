//! What is due, and rotating it while nobody is there.

use std::fs;

use crate::common::{Bench, DONE};
use keyroll_testkit::{Keyroll, StackOptions, containers_wanted};
use serde_json::Value;

const FAILED: Option<i32> = Some(1);

#[tokio::test]
async fn what_is_due_and_needs_nobody_is_rotated_in_one_rotation_and_then_nothing_is() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let due = ["rotate", "--due", "--yes"];

    // Never now: a window of a minute that has been over for hours, or comes in hours.
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::system());
    let from = (now.hour() + 12) % 24;
    let window = format!("schedule.window={{ from = \"{from:02}:00\", to = \"{from:02}:01\" }}");
    let run = bench.run(&[&due[..], &["--set", &window]].concat()).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert!(
        run.stdout
            .contains("not now, the maintenance window is every day"),
        "{run:?}"
    );
    bench.old_set_is_back(&before).await;

    let run = bench.run(&due).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let needs = "FLUTTERWAVE_SECRET is due, and needs a new value from its provider";
    assert!(run.stdout.contains(needs), "{run:?}");
    bench.runs_new_values(&before).await;
    let all = bench.run(&["audit", "list", "--json"]).await.stdout;
    assert_eq!(all.lines().count(), 1, "one rotation: {all}");

    let again = bench.run(&due).await;
    assert_eq!(again.code, DONE, "{again:?}");
    assert!(again.stdout.contains("nothing is due"), "{again:?}");
    let status = bench.run(&["status", "--check"]).await;
    assert_eq!(status.code, DONE, "{status:?}");

    let overdue = [
        "--set",
        "secrets.JWT_SECRET.interval_days=0",
        "--set",
        "schedule.overdue_days=0",
    ];
    let status = bench
        .run(&[&["status", "--check"][..], &overdue].concat())
        .await;
    assert_eq!(status.code, FAILED, "{status:?}");
    assert!(
        status.stdout.contains("JWT_SECRET is overdue"),
        "{status:?}"
    );
    let told = bench.json(&[&["status"][..], &overdue].concat()).await;
    let own = told["secrets"].as_array().unwrap().iter();
    let own = own.clone().find(|s| s["name"] == "JWT_SECRET").unwrap();
    assert_eq!(own["cadence"]["state"], "overdue", "{own}");
}

#[tokio::test]
async fn a_schedule_is_written_that_systemd_accepts_and_goes_away_again() {
    let keyroll = Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    let units = keyroll.home().join("units");
    let run = async |what: &str| -> Value {
        let window = r#"schedule.window={ days = ["Sun"], from = "03:00", to = "05:00" }"#;
        let directory = units.to_str().unwrap();
        let words = [
            "schedule",
            what,
            "--unit-dir",
            directory,
            "--set",
            window,
            "--json",
        ];
        let run = keyroll.run(words).await.unwrap();
        assert_eq!(run.code, DONE, "{run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    };
    let shown = run("show").await;
    assert_eq!(shown[0]["state"], "not there", "{shown}");
    let told = run("install").await;
    let there = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output();
    assert_eq!(told["checked"], there.is_ok(), "{told}");
    let timer = units.join("keyroll-rotate-due-proxpanel.timer");
    let text = fs::read_to_string(&timer).unwrap();
    assert!(text.contains("OnCalendar=Sun *-*-* 03:00:00"), "{text}");
    let shown = run("show").await;
    assert_eq!(shown[1]["state"], "there, like this", "{shown}");
    fs::write(&timer, "by hand").unwrap();
    let shown = run("show").await;
    assert!(
        shown[1]["state"].as_str().unwrap().contains("another one"),
        "{shown}"
    );
    run("remove").await;
    let left: Vec<_> = fs::read_dir(&units).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
