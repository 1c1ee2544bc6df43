//! Files and data brought back from a rotation's backup, on a real stack.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Bench, DONE, LIMIT, REFUSED, USAGE, append, names_in, restore};
use keyroll_testkit::{StackOptions, containers_wanted, eventually};
use serde_json::Value;

const USER: &str = r#"SELECT count(*) FROM "User""#;
const REVOKED: &str = r#"SELECT count(*) FROM "AuthSession" WHERE "revokedAt" IS NOT NULL"#;
const LIKE_OURS: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE";

/// The rotation's id and its backup.
fn of(rotated: &Value) -> (String, PathBuf) {
    let text = |key: &str| rotated[key].as_str().unwrap().to_owned();
    (text("rotation"), text("backup").into())
}

async fn count(bench: &Bench, sql: &str) -> u64 {
    bench.stack.sql_value(sql).await.unwrap().parse().unwrap()
}

/// Databases whose name matches, such as `%\_replaced\_%`.
async fn databases(bench: &Bench, like: &str) -> u64 {
    count(bench, &format!("{LIKE_OURS} '{like}'")).await
}

/// The new set is in force and everything is well.
async fn well(bench: &Bench) {
    for service in ["postgres", "api", "worker"] {
        bench.stack.healthy(service, LIMIT).await.unwrap();
    }
    let admin = bench.stack.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(bench.login(&admin).await, 200, "the admin's login");
    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, DONE, "{verify:?}");
}

fn damage(directory: &Path, part: &str) {
    let file = directory.join(part);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
}

/// What the trail says of restores.
async fn restores(bench: &Bench) -> Vec<Value> {
    let all = bench.run(&["audit", "list", "--json"]).await.stdout;
    let records = all.lines().map(|line| serde_json::from_str(line).unwrap());
    let restore =
        |record: &Value| record["body"]["kind"] == "restore" || record["kind"] == "restore";
    records.filter(restore).collect()
}

/// Runs a restore, and kills it as soon as neither consumer runs.
async fn killed_while_the_consumers_are_stopped(bench: &Bench, command: &[&str]) {
    let running = bench.spawn(command);
    eventually("the consumers are stopped", LIMIT, async || {
        for service in ["api", "worker"] {
            let container = bench.stack.container(service).await.ok()?;
            if container.state != "exited" {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
    let killed = running.kill_hard().await.unwrap();
    assert_eq!(killed.signal, Some(9), "{killed:?}");
    let changed = databases(bench, r"%\_replaced\_%").await;
    println!("killed with {changed} databases replaced");
}

/// Everybody who could do harm is told of the unfinished restore, and of the command that finishes it.
async fn is_told_of(bench: &Bench, rotation: &str, part: &str) {
    let command = format!("keyroll rollback {rotation} --restore-{part}");
    let status = bench.run(&["status"]).await;
    assert!(status.stdout.contains(&command), "{status:?}");
    let status = bench.json(&["status"]).await;
    let unfinished = &status["unfinished_restore"];
    assert_eq!(unfinished["rotation"], rotation, "{status}");
    assert_eq!(unfinished["parts"], serde_json::json!([part]), "{status}");
    for refused in [
        &["plan", "production"][..],
        &["rotate", "JWT_SECRET", "--yes"],
        &["rollback", rotation, "--yes"],
        &["resume"],
    ] {
        let run = bench.run(refused).await;
        assert_eq!(run.code, REFUSED, "{refused:?}: {run:?}");
        assert!(
            run.stderr.contains("  unfinished: ") && run.stderr.contains(&command),
            "{refused:?}: {run:?}"
        );
    }
}

#[tokio::test]
async fn damaged_files_come_back_and_the_env_file_stays() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let compose = bench.stack.compose_path();
    let package = bench.stack.root().join("package.json");
    let (good_compose, good_package) = (fs::read(&compose).unwrap(), fs::read(&package).unwrap());
    let (rotation, _) = of(&bench.rotate().await);
    append(&compose, "\nthis: is: no: yaml\n");
    let damaged = fs::read(&compose).unwrap();
    fs::remove_file(&package).unwrap();
    append(&bench.stack.env_path(), "\n# a note of the operator\n");
    let env = fs::read(bench.stack.env_path()).unwrap();

    let command = restore(&rotation, "--restore-files");
    for too_little in [&command[..3], &command[..4]] {
        let run = bench.run(too_little).await;
        assert_eq!(run.code, USAGE, "{run:?}");
        assert!(run.stderr.contains("--confirm-restore"), "{run:?}");
    }
    let mut other = command;
    other[5] = "another";
    assert_eq!(bench.run(&other).await.code, USAGE);
    assert!(fs::read(&compose).unwrap() == damaged && !package.exists());

    let report = bench.json(&command).await;
    assert!(fs::read(&compose).unwrap() == good_compose, "compose file");
    assert!(fs::read(&package).unwrap() == good_package, "package.json");
    assert!(
        fs::read(bench.stack.env_path()).unwrap() == env,
        "the env file"
    );
    assert_eq!(report["files"]["written"].as_array().unwrap().len(), 2);
    let saved = report["files"]["replaced_saved_to"].as_str().unwrap();
    assert!(
        names_in(Path::new(saved)).contains(&"replaced.tar.gz.age".to_owned()),
        "what was replaced is saved"
    );
    well(&bench).await;
    bench.trail_says("restore", &[&rotation, "files"]).await;

    let again = bench.json(&command).await;
    assert_eq!(again["files"]["written"].as_array().unwrap().len(), 0);
    assert_eq!(again["files"]["replaced_saved_to"], Value::Null);
}

#[tokio::test]
async fn a_dropped_table_comes_back_with_the_password_in_force_and_no_open_session() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let database = bench.stack.database().to_owned();
    let sql = format!(
        "INSERT INTO \"AuditLog\" (action, actor) SELECT 'kept', 'x' FROM generate_series(1, 1000); \
         ALTER DATABASE \"{database}\" SET work_mem TO '7MB'; SELECT 1;"
    );
    bench.stack.sql(&sql).await.unwrap();
    let old = bench.tokens().await;
    let (rotation, _) = of(&bench.rotate().await);
    let now = bench.tokens().await;
    let sql = r#"DROP TABLE "AuditLog"; SELECT 1"#;
    bench.stack.sql(sql).await.unwrap();

    let report = bench.json(&restore(&rotation, "--restore-database")).await;
    assert_eq!(report["well"], true, "{report}");
    let kept = count(
        &bench,
        r#"SELECT count(*) FROM "AuditLog" WHERE action = 'kept'"#,
    )
    .await;
    assert_eq!(kept, 1000, "the rows of the dropped table");
    assert_eq!(
        bench.stack.sql_value("SHOW work_mem").await.unwrap(),
        "7MB",
        "a setting of the database"
    );
    well(&bench).await;
    for tokens in [&old, &now] {
        assert_eq!(bench.refresh(&tokens.refresh).await, 401, "a session");
    }
    assert!(count(&bench, REVOKED).await >= 1, "the dump had one open");
    let admin = report["database"]["admin"].as_str().unwrap();
    assert!(admin.contains("taken over"), "{admin}");
    let name = report["database"]["kept_as"].as_str().unwrap();
    assert_eq!(databases(&bench, name).await, 1, "the replaced one is kept");
    assert_eq!(databases(&bench, r"%\_keyroll\_%").await, 0);
    bench.trail_says("restore", &[&rotation, "database"]).await;
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "the next rotation is possible: {plan:?}");
}

#[tokio::test]
async fn where_the_admins_row_is_gone_the_seed_puts_the_password_in_force() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let (rotation, _) = of(&bench.rotate().await);
    let sql = r#"DROP TABLE "AuthSession", "User"; SELECT 1"#;
    bench.stack.sql(sql).await.unwrap();
    let report = bench.json(&restore(&rotation, "--restore-database")).await;
    let admin = report["database"]["admin"].as_str().unwrap();
    assert!(admin.contains("prisma:seed"), "{admin}");
    assert!(count(&bench, USER).await >= 1);
    well(&bench).await;
}

#[tokio::test]
async fn a_damaged_or_exchanged_backup_is_refused_and_nothing_changes() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let (first, first_backup) = of(&bench.rotate().await);
    let (second, second_backup) = of(&bench.rotate().await);
    damage(&second_backup, "database.dump.age");
    let compose = bench.stack.compose_path();
    append(&compose, "\n# edited\n");
    let before = fs::read(&compose).unwrap();
    // Whole by itself, but of another rotation.
    fs::rename(&first_backup, first_backup.with_extension("aside")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&second_backup, &first_backup])
        .status();
    assert!(copied.unwrap().success());
    for rotation in [&first, &second] {
        for what in ["--restore-files", "--restore-database"] {
            let run = bench.run(&restore(rotation, what)).await;
            assert_eq!(run.code, REFUSED, "{run:?}");
            assert!(run.stderr.contains("  backup: "), "{run:?}");
        }
    }
    assert!(fs::read(&compose).unwrap() == before, "the compose file");
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 0);
    assert_eq!(databases(&bench, r"%\_keyroll\_%").await, 0);
    well(&bench).await;
}

#[tokio::test]
async fn a_restore_killed_in_the_middle_of_the_dump_changes_nothing_and_runs_again() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Enough for pg_restore to be met at work.
    let sql = "CREATE TABLE bulk AS SELECT n, md5(n::text) || md5((n + 1)::text) AS t FROM generate_series(1, 600000) n; \
               CREATE INDEX ON bulk (t); SELECT 1;";
    bench.stack.sql(sql).await.unwrap();
    let (rotation, _) = of(&bench.rotate().await);
    let sql = "DELETE FROM bulk WHERE n > 10; SELECT 1;";
    bench.stack.sql(sql).await.unwrap();

    let command = restore(&rotation, "--restore-database");
    let running = bench.spawn(&command);
    eventually("pg_restore works", Duration::from_secs(60), async || {
        let beside = r"SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '%\_keyroll\_%' AND state = 'active'";
        let at_work = bench.stack.sql_value(beside).await.ok()?;
        (at_work != "0").then_some(())
    })
    .await
    .unwrap();
    let killed = running.kill_hard().await.unwrap();
    assert_eq!(killed.signal, Some(9), "{killed:?}");
    assert_eq!(count(&bench, "SELECT count(*) FROM bulk").await, 10);
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 0);
    well(&bench).await;

    let report = bench.json(&command).await;
    assert_eq!(report["well"], true, "{report}");
    assert_eq!(count(&bench, "SELECT count(*) FROM bulk").await, 600_000);
    assert_eq!(databases(&bench, r"%\_keyroll\_%").await, 0);
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 1);
    well(&bench).await;
}

#[tokio::test]
async fn a_dump_that_cannot_be_restored_leaves_the_database_and_the_consumers_as_they_are() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let (rotation, _) = of(&bench.rotate().await);
    let started = bench.stack.container("api").await.unwrap().started_at;
    bench.inside(
        "postgres",
        r#"p=$(command -v pg_restore); rm "$p"
           printf '#!/bin/sh\ncat >/dev/null; echo no room >&2; exit 1\n' >"$p"; chmod 755 "$p""#,
    );
    let run = bench.run(&restore(&rotation, "--restore-database")).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    for word in ["no room", "as it was", "--restore-database"] {
        assert!(run.stderr.contains(word), "{word}: {run:?}");
    }
    assert_eq!(databases(&bench, r"%\_keyroll\_%").await, 0);
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 0);
    let now = bench.stack.container("api").await.unwrap().started_at;
    assert_eq!(now, started, "the api was not even stopped");
    well(&bench).await;
}

#[tokio::test]
async fn a_restore_killed_while_the_consumers_are_stopped_is_finished_by_the_same_command() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let (rotation, _) = of(&bench.rotate().await);
    let sql = r#"DROP TABLE "AuditLog"; SELECT 1"#;
    bench.stack.sql(sql).await.unwrap();
    let command = restore(&rotation, "--restore-database");
    killed_while_the_consumers_are_stopped(&bench, &command).await;
    is_told_of(&bench, &rotation, "database").await;
    let files = bench.run(&restore(&rotation, "--restore-files")).await;
    assert_eq!(
        files.code, REFUSED,
        "it goes on with another part: {files:?}"
    );

    let report = bench.json(&command).await;
    assert_eq!(report["well"], true, "{report}");
    count(&bench, r#"SELECT count(*) FROM "AuditLog""#).await;
    assert_eq!(databases(&bench, r"%\_keyroll\_%").await, 0);
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 1);
    let records = restores(&bench).await;
    assert_eq!(records.len(), 1, "{records:?}");
    well(&bench).await;
    let status = bench.json(&["status"]).await;
    assert_eq!(status["unfinished_restore"], Value::Null);
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "the next rotation is possible: {plan:?}");
}

#[tokio::test]
async fn a_consumer_that_the_rotation_did_not_recreate_runs_again_after_a_killed_restore() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let rotated = bench.json(&["rotate", "JWT_SECRET", "--yes"]).await;
    let (rotation, _) = of(&rotated);
    let command = restore(&rotation, "--restore-database");
    killed_while_the_consumers_are_stopped(&bench, &command).await;
    let worker = bench.stack.container("worker").await.unwrap();
    let ended = (worker.state.as_str(), worker.exit_code);
    assert_eq!(ended, ("exited", 0), "else it would be started anyway");

    let report = bench.json(&command).await;
    assert_eq!(report["well"], true, "{report}");
    assert_eq!(databases(&bench, r"%\_replaced\_%").await, 1);
    assert_eq!(restores(&bench).await.len(), 1);
    well(&bench).await;
}

#[tokio::test]
async fn an_interrupted_restore_that_is_not_gone_on_with_leaves_the_consumers_running() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let (rotation, backup) = of(&bench.rotate().await);
    let command = restore(&rotation, "--restore-database");
    killed_while_the_consumers_are_stopped(&bench, &command).await;
    damage(&backup, "database.dump.age");
    let again = bench.run(&command).await;
    if databases(&bench, r"%\_replaced\_%").await == 0 {
        assert_eq!(again.code, REFUSED, "{again:?}");
        assert!(restores(&bench).await.is_empty());
    } else {
        assert_eq!(again.code, DONE, "{again:?}");
    }
    let status = bench.json(&["status"]).await;
    assert_eq!(status["unfinished_restore"], Value::Null);
    well(&bench).await;
}
