//! Canaries: no value of a secret is anywhere but where it belongs, while a rotation runs and after it.
//!
//! A watcher looks at every process of the machine, over and over, and remembers argument lists and environments; it also reads
//! the env file each time, so that also the values of a rotation that goes back are known in the end. Then everything that was
//! seen or written is searched for every value, plain and as it may be encoded. A process that lives for less than a look takes
//! (some milliseconds) can be missed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::canary::{self, Needles, Watcher};
use crate::recovery::{Bench, DONE, REFUSED, ROLLED_BACK, ROTATE};
use keyroll_secret::Secret;
use keyroll_testkit::{Run, Stack, StackOptions, TestkitError, containers_wanted};

/// Known values, of this stack alone: keyroll refuses when a container of another one has the same, and one may have outlived a
/// test that was killed. The database's password needs encoding in the URL, so that both forms are searched.
fn old(tag: &str) -> [(&'static str, String); 6] {
    [
        ("POSTGRES_PASSWORD", "old/Database@Canary+7f3a:"),
        ("JWT_SECRET", "old-access-key-canary-51c07de2b8-"),
        ("JWT_REFRESH_SECRET", "old-refresh-key-canary-9930aa41c6-"),
        ("ADMIN_PASSWORD", "old-admin-canary-e08b617d25-"),
        ("PROXMOX_TOKEN_SECRET", "kept-proxmox-canary-3d1f55c09a-"),
        (
            "BACKUP_ENCRYPTION_KEY",
            "kept-backup-key-canary-c47720fe13-",
        ),
    ]
    .map(|(name, value)| (name, format!("{value}{tag}-{}", std::process::id())))
}

/// A stack with known values whose database logs every statement, with its parameters.
async fn bench(tag: &str) -> (Bench, Needles) {
    let mut options = StackOptions::new()
        .postgres_arguments("-c log_statement=all")
        .postgres_arguments("-c log_min_duration_statement=0")
        .postgres_arguments("-c log_connections=on")
        .postgres_arguments("-c log_parameter_max_length_on_error=-1");
    let mut needles = Needles::default();
    for (name, value) in old(tag) {
        needles.add(name, &Secret::new(&value));
        options = options.secret(name, Secret::new(value));
    }
    let bench = Bench::start(options).await.with_temporary_directory();
    (bench, needles)
}

fn quiet(needles: &Needles, what: &str, run: &Run) {
    needles.absent(&format!("standard output of {what}"), run.stdout.as_bytes());
    needles.absent(&format!("standard error of {what}"), run.stderr.as_bytes());
}

/// Everything that keyroll keeps: no value in it but the admin's password in summaries; nobody else may read it.
fn kept(needles: &Needles, home: &Path) {
    let mut files = 0;
    for part in ["state", "identity", "backups", "summaries", "tmp"] {
        canary::walk(&home.join(part), &mut |path, metadata| {
            let mode = metadata.permissions().mode() & 0o777;
            let made_by_keyroll = part != "tmp" && path != home.join("summaries");
            let most = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert!(
                !made_by_keyroll || mode == most,
                "{} has mode {mode:o}",
                path.display()
            );
            if metadata.is_file() {
                files += 1;
                let bytes = fs::read(path).unwrap();
                let allowed = (part == "summaries").then_some("ADMIN_PASSWORD");
                needles.absent_but(&path.display().to_string(), &bytes, allowed);
            }
        });
    }
    assert!(files > 0, "nothing was searched");
}

/// What the containers wrote.
async fn logs(needles: &Needles, stack: &Stack) -> Result<(), TestkitError> {
    for service in ["postgres", "migrate", "api", "worker"] {
        let text = stack.logs(service).await?;
        needles.absent(&format!("the log of {service}"), text.as_bytes());
        if service == "postgres" {
            assert!(text.contains("statement:"), "statements are logged");
            assert!(
                !text.contains("SCRAM-SHA-256$"),
                "a verifier is in the server's log:\n{}",
                text.lines()
                    .filter(|l| l.contains("SCRAM-SHA-256$"))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
    }
    Ok(())
}

/// Every command that reads, plain and as JSON.
async fn reading_commands(needles: &Needles, bench: &Bench) {
    for command in [
        &["plan", "production"][..],
        &["status"],
        &["verify"],
        &["audit", "list"],
        &["audit", "verify"],
    ] {
        for json in [None, Some("--json")] {
            let command: Vec<&str> = command.iter().copied().chain(json).collect();
            let run = bench.run(&command).await;
            assert_eq!(run.code, Some(DONE), "{command:?}: {run:?}");
            quiet(needles, &format!("{command:?}"), &run);
        }
    }
}

/// Rotates under the eyes of a watcher; searches everything. The answer is what to search for from now on.
async fn rotate(bench: &Bench, needles: &mut Needles, json: bool, code: i32) -> Run {
    let watcher = Watcher::start(bench.stack.env_path(), bench.keyroll.home().join("tmp"));
    let mut command = ROTATE.to_vec();
    command.extend(json.then_some("--json"));
    let run = bench.run(&command).await;
    let seen = watcher.stop();
    assert_eq!(run.code, Some(code), "{run:?}");
    assert!(seen.looks > 50, "only {} looks", seen.looks);
    let before = needles.len();
    seen.learn(needles);
    assert!(
        needles.len() > before,
        "the new values were seen in the env file"
    );
    seen.search(needles);
    quiet(needles, "rotate", &run);
    kept(needles, bench.keyroll.home());
    logs(needles, &bench.stack).await.unwrap();
    run
}

#[tokio::test]
async fn a_completed_rotation_leaves_no_value_anywhere_but_the_admins_in_the_summary() {
    if !containers_wanted() {
        return;
    }
    let (bench, mut needles) = bench("completed").await;
    rotate(&bench, &mut needles, false, DONE).await;

    let summaries = bench.keyroll.home().join("summaries");
    let mut summary = String::new();
    canary::walk(&summaries, &mut |path, metadata| {
        if metadata.is_file() {
            summary += &fs::read_to_string(path).unwrap();
        }
    });
    let held = bench.held();
    assert!(
        summary.contains(held.value("ADMIN_PASSWORD").expose()),
        "the operator needs it"
    );
    assert!(
        !summary.contains("old-admin-canary"),
        "and not the dead one"
    );
    reading_commands(&needles, &bench).await;

    rotate(&bench, &mut needles, true, DONE).await;
}

#[tokio::test]
async fn a_rotation_that_goes_back_leaves_no_value_anywhere() {
    if !containers_wanted() {
        return;
    }
    let (bench, mut needles) = bench("back").await;
    let seed = bench.stack.fault("seed-exit1");
    seed.set();
    for json in [false, true] {
        rotate(&bench, &mut needles, json, ROLLED_BACK).await;
    }
    seed.clear();
    reading_commands(&needles, &bench).await;
}

#[tokio::test]
async fn a_killed_rotation_leaves_no_plain_value_but_beside_the_env_file() {
    if !containers_wanted() {
        return;
    }
    let (bench, mut needles) = bench("killed").await;
    let watcher = Watcher::start(bench.stack.env_path(), bench.keyroll.home().join("tmp"));
    let running = bench.spawn(&ROTATE);
    running.says("recreate: started").await.unwrap();
    let run = running.kill_hard().await.unwrap();
    // The write-ahead log is still there: nothing closed the database.
    assert!(bench.keyroll.home().join("state").is_dir());
    let mut logs_seen = false;
    canary::walk(&bench.keyroll.home().join("state"), &mut |path, _| {
        logs_seen |= path.to_string_lossy().ends_with("-wal");
    });
    assert!(logs_seen, "the write-ahead log is searched too");
    let resumed = bench.run(&["resume"]).await;
    let seen = watcher.stop();
    seen.learn(&mut needles);
    seen.search(&needles);
    assert_eq!(resumed.code, Some(DONE), "{resumed:?}");
    quiet(&needles, "the killed run", &run);
    quiet(&needles, "resume", &resumed);
    kept(&needles, bench.keyroll.home());
    logs(&needles, &bench.stack).await.unwrap();
}

#[tokio::test]
async fn refusals_and_errors_name_no_value() {
    if !containers_wanted() {
        return;
    }
    let (bench, mut needles) = bench("errors").await;
    let path = bench.stack.env_path();
    let whole = fs::read_to_string(&path).unwrap();
    for (name, value) in [
        ("wrong", "wrong-canary-a91c27"),
        ("broken", "broken-canary-77d0e4"),
        ("hash", "hash-canary-5b6c"),
    ] {
        needles.add(name, &Secret::new(value));
    }
    let all = old("errors");
    let old = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
    let line = |name: &str| format!("{name}={}\n", old(name));
    let encoded = Secret::new(old("POSTGRES_PASSWORD")).percent_encoded();
    for (what, text) in [
        (
            "another database password than the one that runs",
            whole
                .replace(old("POSTGRES_PASSWORD"), "wrong-canary-a91c27")
                .replace(encoded.expose(), "wrong-canary-a91c27"),
        ),
        (
            "another admin password than the one that runs",
            whole.replace(
                &line("ADMIN_PASSWORD"),
                "ADMIN_PASSWORD=wrong-canary-a91c27\n",
            ),
        ),
        (
            "a quote that is never closed",
            whole.replace(&line("JWT_SECRET"), "JWT_SECRET=\"broken-canary-77d0e4\n"),
        ),
        (
            "a name in braces that is none",
            format!("{whole}EXTRA=${{broken-canary-77d0e4 !}}\n"),
        ),
        (
            "a line that is no assignment",
            format!("{whole}broken-canary-77d0e4 broken-canary-77d0e4\n"),
        ),
        (
            "a value that two parsers read differently",
            whole.replace(
                &line("JWT_SECRET"),
                "JWT_SECRET=wrong-canary-a91c27#hash-canary-5b6c\n",
            ),
        ),
        (
            "a secret twice",
            format!("{whole}JWT_SECRET=wrong-canary-a91c27\n"),
        ),
    ] {
        fs::write(&path, text).unwrap();
        for command in [
            &["plan", "production"][..],
            &["rotate", "production", "--yes", "--json"],
        ] {
            let run = bench.run(command).await;
            assert_eq!(run.code, Some(REFUSED), "{what}: {run:?}");
            quiet(&needles, what, &run);
        }
        quiet(&needles, what, &bench.run(&["verify"]).await);
    }
    fs::write(&path, &whole).unwrap();

    // The env file is what runs, and the database knows another password.
    bench
        .stack
        .sql("SET log_statement = 'none'; SET log_min_duration_statement = -1; ALTER ROLE panel PASSWORD 'wrong-canary-a91c27';")
        .await
        .unwrap();
    for command in [&ROTATE[..], &["plan", "production", "--json"], &["verify"]] {
        let run = bench.run(command).await;
        assert_ne!(run.code, Some(DONE), "{run:?}");
        quiet(&needles, "a database with another password", &run);
    }
    kept(&needles, bench.keyroll.home());
    logs(&needles, &bench.stack).await.unwrap();
}
