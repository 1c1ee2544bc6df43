//! Faults of the machine, of keyroll's own files and of the systems, each with the ending that must follow: refused, the old set, or the new one.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{
    Bench, DONE, GOING_BACK, LIMIT, REFUSED, ROLLED_BACK, ROTATE, STUCK, Tmpfs, at, run,
};
use keyroll_testkit::{StackOptions, containers_wanted};

#[tokio::test]
async fn a_state_database_that_is_damaged_or_newer_is_refused_and_left_as_it_is() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench.rotate().await;
    let path = bench.home("state/state.db");
    let sound = fs::read(&path).unwrap();
    let values = bench.before_without_login().await.values;

    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    let newer = fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0x5a);
    for (bytes, says) in [
        (newer, "Install the newer keyroll"),
        (damaged, "is damaged"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let refused = bench.run(&ROTATE).await;
        assert_eq!(refused.code, REFUSED, "{says}: {refused:?}");
        assert!(
            refused.stderr.contains("  state: ") && refused.stderr.contains(says),
            "{refused:?}"
        );
        assert!(
            fs::read(&path).unwrap() == bytes,
            "{says}: it was written to"
        );
    }
    fs::write(&path, &sound).unwrap();
    bench.runs(&values).await;
    bench.rotate().await;
}

#[tokio::test]
async fn a_state_database_that_is_gone_is_made_anew_and_what_is_stale_is_told_as_drift() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench.rotate().await;
    fs::remove_file(bench.home("state/state.db")).unwrap();
    let refused = bench.run(&ROTATE).await;
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(refused.stderr.contains("  drift: postgres"), "{refused:?}");
    bench.stack.up().await.unwrap();
    bench.rotate().await;
}

#[tokio::test]
async fn a_state_directory_on_a_file_system_that_cannot_be_written_to_is_refused() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let mounted = Tmpfs::mount(bench.home("state"), "8m");
    mounted.remount("ro");
    bench.refuses(&ROTATE, "state", &["state"]).await;
    mounted.remount("rw");
    bench.rotate().await;
}

#[tokio::test]
async fn a_disk_that_is_full_where_the_state_is_ends_on_one_set_and_no_value_is_lost() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let mounted = Tmpfs::mount(bench.home("state"), "4m");
    let before = bench.before().await;
    let ended = bench
        .interfere(&ROTATE, vec![at("backup: done", || mounted.fill())])
        .await;
    // The log has its room from the beginning, so this is no reason to fail.
    assert_eq!(ended.code, DONE, "{ended:?}");
    mounted.empty();
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_where_the_backup_goes_turns_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let mounted = Tmpfs::mount(bench.home("backups"), "64m");
    let before = bench.before().await;
    let ended = bench
        .interfere(&ROTATE, vec![at("backup: started", || mounted.fill())])
        .await;
    assert_eq!(ended.code, ROLLED_BACK, "{ended:?}");
    assert!(ended.stderr.contains(GOING_BACK), "{ended:?}");
    mounted.empty();
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn a_disk_that_is_full_where_the_summary_goes_leaves_the_new_set_proven_until_a_resume_has_room()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let mounted = Tmpfs::mount(bench.home("summaries"), "1m");
    let before = bench.before().await;
    let ended = bench
        .interfere(&ROTATE, vec![at("backup: done", || mounted.fill())])
        .await;
    // Past the point of no return, and the operator has no other way to the admin's new password.
    assert_eq!(ended.code, STUCK, "{ended:?}");
    assert!(ended.stdout.contains("No space left"), "{ended:?}");
    bench.runs_new_values(&before).await;
    mounted.empty();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, DONE, "{resumed:?}");
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn a_lock_file_that_is_removed_under_a_suspended_keyroll_lets_nobody_else_in_and_it_completes()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let running = bench.spawn(&ROTATE);
    running.says("recreate: started").await.unwrap();
    running.suspend().unwrap();
    fs::remove_file(bench.home("state/lock")).unwrap();
    for command in [&ROTATE[..], &["resume"]] {
        let refused = bench.run(command).await;
        assert_eq!(refused.code, REFUSED, "{refused:?}");
        assert!(refused.stderr.contains("  locked: "), "{refused:?}");
    }
    running.proceed().unwrap();
    let ended = running.wait(LIMIT * 3).await.unwrap();
    assert_eq!(ended.code, DONE, "{ended:?}");
    bench.runs_new_values(&before).await;
    bench.rotate().await;
}

#[tokio::test]
async fn an_env_file_that_cannot_be_replaced_turns_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    let file = path.to_str().unwrap();
    if !Command::new("chattr")
        .args(["+i", file])
        .status()
        .is_ok_and(|s| s.success())
    {
        println!("skipped: this file system has no immutable files");
        return;
    }
    let ended = bench.run(&ROTATE).await;
    run("chattr", &["-i", file]);
    assert!(matches!(ended.code, ROLLED_BACK | REFUSED), "{ended:?}");
    assert!(ended.stderr.contains(file), "{ended:?}");
    bench.old_set_is_back(&before).await;
    bench.rotate().await;
}

#[tokio::test]
async fn an_env_file_that_is_deleted_in_the_middle_is_back_with_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    for moment in ["backup: done", "recreate: started"] {
        let delete = || fs::remove_file(&path).unwrap();
        let ended = bench.interfere(&ROTATE, vec![at(moment, delete)]).await;
        assert_eq!(ended.code, ROLLED_BACK, "{moment}: {ended:?}");
        bench.old_set_is_back(&before).await;
    }
}

#[tokio::test]
async fn a_database_with_all_connections_taken_is_refused() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let sql =
        "ALTER SYSTEM SET max_connections = 8; ALTER SYSTEM SET superuser_reserved_connections = 0";
    for statement in sql.split("; ") {
        bench.stack.sql(statement).await.unwrap();
    }
    bench.stack.compose(&["restart", "postgres"]).await.unwrap();
    for service in ["postgres", "api", "worker"] {
        bench.stack.healthy(service, LIMIT).await.unwrap();
    }
    let container = bench.stack.container_name("postgres");
    let mut taken: Vec<_> = (0..8)
        .map(|_| {
            let (role, database) = (bench.stack.role(), bench.stack.database());
            let psql = ["exec", &container, "psql", "-U", role, "-d", database];
            let sleep = [&psql[..], &["-c", "SELECT pg_sleep(60)"]].concat();
            Command::new("docker")
                .args(sleep)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    keyroll_testkit::eventually("no connection is free", LIMIT, async || {
        bench.stack.sql("SELECT 1").await.is_err().then_some(())
    })
    .await
    .unwrap();
    let refused = bench.run(&ROTATE).await;
    for one in &mut taken {
        let _ = one.kill();
        let _ = one.wait();
    }
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(
        refused.stderr.contains("no connection is free"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_terminal_that_goes_away_gets_the_old_set_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let running = bench.spawn(&ROTATE);
    running.says("recreate: started").await.unwrap();
    running.hang_up().unwrap();
    let ended = running.wait(LIMIT * 3).await.unwrap();
    assert_eq!(ended.code, ROLLED_BACK, "{ended:?}");
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn nobody_who_reads_what_it_says_is_no_reason_to_stop() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let mut child = bench
        .keyroll
        .command(bench.arguments(&ROTATE))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let ended = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.code(), DONE);
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn wrong_logins_that_a_killed_run_has_used_up_are_no_reason_to_go_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    bench.killed_when(&ROTATE, "verify: started").await;
    // Killed between its wrong login and the right one, which was counted before it was tried.
    let state = rusqlite::Connection::open(bench.home("state/state.db")).unwrap();
    state
        .execute("UPDATE rotations SET wrong_logins = 2", [])
        .unwrap();
    drop(state);
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, DONE, "{resumed:?}");
    bench.runs_new_values(&before).await;
    assert_eq!(bench.login(before.value("ADMIN_PASSWORD")).await, 401);
}

#[tokio::test]
async fn a_clock_that_is_set_back_in_the_middle_is_no_reason_not_to_resume() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench.rotate().await;
    let before = bench.before().await;
    bench.killed_when(&ROTATE, "recreate: started").await;
    // As if everything until here had happened under a clock that was an hour ahead.
    let state = rusqlite::Connection::open(bench.home("state/state.db")).unwrap();
    for (table, column) in [
        ("rotations", "begun_at"),
        ("records", "at"),
        ("versions", "made_at"),
        ("versions", "changed_at"),
        ("kept", "at"),
    ] {
        let ahead = format!(
            "UPDATE {table} SET {column} = strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '+1 hour')"
        );
        assert!(state.execute(&ahead, []).unwrap() > 0, "{table}");
    }
    drop(state);
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, DONE, "{resumed:?}");
    bench.runs_new_values(&before).await;
    bench.trail_says("completed", &[]).await;
    bench.rotate().await;
}
