//! What a database does wrong in the middle of a rotation, and before it.

use crate::common::{Bench, DONE, GOING_BACK, Held, LIMIT, ROTATE, at, docker, went_back};
use keyroll_testkit::{DbLogin, Door, StackOptions, containers_wanted};

#[tokio::test]
async fn a_standby_that_takes_no_changes_is_refused_and_rotates_once_it_is_promoted() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench.inside("postgres", "touch \"$PGDATA/standby.signal\"");
    bench.stack.compose(&["restart", "postgres"]).await.unwrap();
    let well = async || {
        for service in ["postgres", "api", "worker"] {
            bench.stack.healthy(service, LIMIT).await.unwrap();
        }
    };
    well().await;
    bench.refuses(&ROTATE, "database", &["in recovery"]).await;

    bench.stack.sql("SELECT pg_promote()").await.unwrap();
    well().await;
    bench.rotate().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_before_its_commit_keeps_the_old_password_and_after_it_the_new_one()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let terminate = |pid: &str| format!("SELECT pg_terminate_backend({pid})");

    let held = bench.hold_the_role();
    let running = bench.spawn(&ROTATE);
    let alter = bench.waits_for("Lock").await;
    bench.stack.sql(&terminate(&alter)).await.unwrap();
    let run = running.wait(LIMIT).await.unwrap();
    drop(held);
    went_back(&run);
    bench.old_set_is_back(&before).await;

    // A commit that is on the disk, and is not answered as long as no standby has it too.
    let held = bench.hold_the_role();
    let running = bench.spawn(&ROTATE);
    bench.waits_for("Lock").await;
    let standby = |names: &str| {
        [
            format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"),
            "SELECT pg_reload_conf()".to_owned(),
        ]
        .join(";\n")
    };
    bench.stack.sql(&standby("nobody")).await.unwrap();
    drop(held);
    let commit = bench.waits_for("SyncRep").await;
    bench.stack.sql(&terminate(&commit)).await.unwrap();
    bench.stack.sql(&standby("")).await.unwrap();
    let run = running.wait(LIMIT).await.unwrap();
    assert_eq!(run.code, DONE, "{run:?}");
    bench.runs_new_values(&before).await;
    let old = before.value("POSTGRES_PASSWORD");
    assert_eq!(
        bench.stack.db_login(old, Door::Network).await,
        DbLogin::Refused
    );
}

#[tokio::test]
async fn a_database_server_that_crashes_or_falls_silent_in_the_alter_keeps_the_old_password() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;

    // One of its processes killed: the server ends all others, and recovers from its log.
    let held = bench.hold_the_role();
    let running = bench.spawn(&ROTATE);
    let alter = bench.waits_for("Lock").await;
    bench.inside("postgres", &format!("kill -9 {alter}"));
    let run = running.wait(LIMIT).await.unwrap();
    drop(held);
    went_back(&run);
    bench.old_set_is_back(&before).await;

    let held = bench.hold_the_role();
    let name = bench.stack.container_name("postgres");
    let running = bench.spawn(&ROTATE);
    bench.waits_for("Lock").await;
    docker(&["pause", &name]);
    running.says(GOING_BACK).await.unwrap();
    docker(&["unpause", &name]);
    drop(held);
    let run = running.wait(LIMIT).await.unwrap();
    went_back(&run);
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn a_long_transaction_that_holds_the_role_or_a_session_turns_the_rotation_back_and_a_short_one_is_waited_for()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;

    // Held until the rotation has ended: going back needs neither lock, for nothing landed.
    let held = bench.hold_the_role();
    let run = bench.run(&ROTATE).await;
    drop(held);
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench
        .trail_says("compensated", &["database-password", "lock timeout"])
        .await;

    let open = "SELECT 1 FROM \"AuthSession\" WHERE \"revokedAt\" IS NULL FOR UPDATE";
    let mut held = None;
    let lock = || held = Some(bench.hold(open));
    let run = bench
        .interfere(&ROTATE, vec![at("recreate: done", lock)])
        .await;
    drop(held);
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench
        .trail_says("compensated", &["app-sessions", "lock timeout"])
        .await;

    let held = bench.hold_the_role();
    let seed = bench.stack.fault("seed-waits");
    seed.set();
    let running = bench.spawn(&ROTATE);
    bench.waits_for("Lock").await;
    drop(held);
    running.says("recreate: done").await.unwrap();
    let held = bench.hold(open);
    seed.clear();
    bench.waits_for("Lock").await;
    drop(held);
    let run = running.wait(LIMIT).await.unwrap();
    assert_eq!(run.code, DONE, "{run:?}");
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn a_dump_that_hangs_or_is_killed_or_is_of_a_wrong_version_ends_before_anything_changed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let containers = bench.stack.containers().await.unwrap();

    let held = bench.hold_a_table().await;
    let limit = ["--set", "limits.dump_seconds=3"];
    let run = bench.run(&[&ROTATE[..], &limit].concat()).await;
    went_back(&run);
    bench.trail_says("compensated", &["backup", "3s"]).await;

    let running = bench.spawn(&ROTATE);
    let dump = bench.dump_waits().await;
    bench.inside("postgres", &format!("kill -9 {dump}"));
    let run = running.wait(LIMIT).await.unwrap();
    went_back(&run);
    bench.trail_says("compensated", &["backup"]).await;
    drop(held);

    let real = "/usr/lib/postgresql/15/bin/pg_dump";
    let says = "pg_dump: error: aborting because of server version mismatch";
    bench.inside(
        "postgres",
        &format!(
            "mv {real} {real}.real; printf '#!/bin/sh\\necho \"{says}\" >&2; exit 1\\n' >{real}; chmod +x {real}"
        ),
    );
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    bench
        .trail_says("compensated", &["server version mismatch"])
        .await;
    bench.inside("postgres", &format!("mv {real}.real {real}"));

    bench.old_set_is_back(&before).await;
    bench.same_containers(&containers).await;
}

#[tokio::test]
async fn a_dump_that_goes_on_after_keyroll_was_killed_is_ended_by_a_resume_which_completes() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let held = bench.hold_a_table().await;
    let running = bench.spawn(&ROTATE);
    let orphan = bench.dump_waits().await;
    let killed = running.kill_hard().await.unwrap();
    assert_eq!(killed.signal, Some(9));
    assert_eq!(bench.dump_waits().await, orphan, "it does not notice");

    let running = bench.spawn(&["resume"]);
    running
        .says("ending what the killed run left")
        .await
        .unwrap();
    running.says("backup: started").await.unwrap();
    let there = format!("[ -e /proc/{orphan} ] || echo gone");
    assert_eq!(bench.inside("postgres", &there).trim(), "gone");
    drop(held);
    let run = running.wait(LIMIT).await.unwrap();
    assert_eq!(run.code, DONE, "{run:?}");
    bench.runs_new_values(&before).await;
}

impl Bench {
    /// Holds a table that the application does not use, so that a dump can neither read it nor end.
    async fn hold_a_table(&self) -> Held {
        let table = "CREATE TABLE IF NOT EXISTS unused (n int)";
        self.stack.sql(table).await.unwrap();
        self.hold("LOCK TABLE unused IN ACCESS EXCLUSIVE MODE")
    }

    /// The number of the `pg_dump` that waits for a table, as its container knows it.
    async fn dump_waits(&self) -> String {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'";
        let waits = async || self.stack.sql_value(waits).await.ok();
        keyroll_testkit::eventually("pg_dump waits", LIMIT, waits)
            .await
            .unwrap();
        let find = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = pg_dump ] && echo ${p#/proc/}; done; true";
        let found = self.inside("postgres", find);
        found.lines().next().expect("pg_dump").to_owned()
    }
}
