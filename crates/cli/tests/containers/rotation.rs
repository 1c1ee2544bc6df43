//! Rotations that complete, on real containers: what is new, what is dead, what is untouched, and how it is taken back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use crate::common::{Before, Bench, DONE, LIMIT, REFUSED, SECRETS, names_in, owner};
use keyroll_secret::Secret;
use keyroll_testkit::{DbLogin, Door, StackOptions, containers_wanted};
use serde_json::Value;

/// Every reader of env files agrees on it unquoted; in a URL it must be encoded.
const NEEDS_ENCODING: &str = "old/pass@word+with%20signs?";

/// The file is the old one with these secrets replaced wherever they stood, and nothing else.
fn only_these_changed(bench: &Bench, before: &Before, names: &[&str]) {
    let mut expected = String::from_utf8(before.env.clone()).unwrap();
    for name in names {
        let (old, new) = (before.value(name), bench.stack.env(name).unwrap());
        assert!(!old.same_as(&new), "{name} is the old one");
        assert!(
            expected.contains(old.expose()),
            "the test looks for the wrong text"
        );
        expected = expected.replace(
            &format!(":{}@", old.percent_encoded().expose()),
            &format!(":{}@", new.percent_encoded().expose()),
        );
        expected = expected.replace(old.expose(), new.expose());
    }
    let now = fs::read_to_string(bench.stack.env_path()).unwrap();
    assert!(now == expected, "something else changed, or too little");
}

/// Copies a directory of plain files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_full_rotation_puts_the_new_set_in_force_everywhere_and_kills_the_old_one() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().prepare(|root| {
        let env = root.join(".env.production");
        chown(&env, Some(12_345), Some(12_346)).unwrap();
        Ok(())
    });
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let database = bench.stack.container("postgres").await.unwrap();
    let began = bench.stack.sql_value("SELECT now()").await.unwrap();
    let sessions = r#"SELECT "id" FROM "AuthSession" WHERE "revokedAt" IS NULL"#;
    let open = bench.stack.sql(sessions).await.unwrap();
    assert!(!open.is_empty());

    let outcome = bench.rotate().await;

    assert_eq!(text(&outcome, "ending"), "completed", "{outcome}");
    only_these_changed(&bench, &before, &SECRETS);
    assert_eq!(owner(&bench.stack.env_path()), (12_345, 12_346, 0o640));
    let new = bench.in_force();
    bench.runs(&new).await;
    for service in ["api", "worker"] {
        let container = bench.stack.container(service).await.unwrap();
        assert_eq!(container.health.as_deref(), Some("healthy"), "{service}");
        for (key, value) in &container.env {
            let old = before.values.iter().find(|old| value.same_as(old));
            assert!(old.is_none(), "{service} still has the old {key}");
        }
    }
    let kept = bench.stack.container("postgres").await.unwrap();
    assert_eq!(
        (&kept.id, &kept.started_at),
        (&database.id, &database.started_at),
        "the database container was touched"
    );

    // The old set, over the network.
    let old = before.value("POSTGRES_PASSWORD");
    assert_eq!(
        bench.stack.db_login(old, Door::Network).await,
        DbLogin::Refused
    );
    assert_eq!(
        bench.stack.db_login(old, Door::Loopback).await,
        DbLogin::Accepted,
        "loopback trusts everybody: a check there would prove nothing"
    );
    assert_eq!(bench.login(before.value("ADMIN_PASSWORD")).await, 401);
    let tokens = before.tokens.as_ref().unwrap();
    assert_eq!(bench.access(&tokens.access).await, 401);
    assert_eq!(bench.refresh(&tokens.refresh).await, 401);
    for row in &open {
        let query = format!(
            r#"SELECT "revokedAt" IS NOT NULL FROM "AuthSession" WHERE "id" = '{}'"#,
            row[0]
        );
        assert_eq!(bench.stack.sql_value(&query).await.unwrap(), "t");
    }
    let live = bench.tokens().await;
    assert_eq!(bench.access(&live.access).await, 200);
    assert_eq!(bench.refresh(&live.refresh).await, 200);
    let older = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND backend_type = 'client backend' AND backend_start < '{began}'",
        bench.stack.role()
    );
    assert_eq!(
        bench.stack.sql_value(&older).await.unwrap(),
        "0",
        "database sessions from before"
    );
    worker_beats(&bench).await;
    files_are_private(&bench, &before, &new, &outcome);

    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, DONE, "{verify:?}");
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "taken for drift: {plan:?}");
}

/// The worker of now writes to the database.
async fn worker_beats(bench: &Bench) {
    let beat = r#"SELECT max("beatAt") FROM "WorkerHeartbeat""#;
    let last = bench.stack.sql_value(beat).await.unwrap();
    keyroll_testkit::eventually("the worker beats", LIMIT, async || {
        (bench.stack.sql_value(beat).await.unwrap() != last).then_some(())
    })
    .await
    .unwrap();
}

/// What keyroll left: who may read it, and which values are in it.
fn files_are_private(bench: &Bench, before: &Before, new: &[Secret], outcome: &Value) {
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let summary = PathBuf::from(text(outcome, "summary"));
    assert_eq!(summary.parent(), Some(bench.home("summaries").as_path()));
    assert_eq!(mode(&summary), 0o600, "the summary");
    assert_eq!(mode(&bench.home("identity")), 0o600, "the identity");
    let backup = PathBuf::from(text(outcome, "backup"));
    assert_eq!(mode(&backup), 0o700, "the backup");
    let name = backup.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.ends_with("-secret-rotation"), "{name}");
    for file in names_in(&backup) {
        let mode = mode(&backup.join(&file));
        assert_eq!(mode & 0o077, 0, "{file} in the backup");
    }

    let told = fs::read_to_string(&summary).unwrap();
    let admin = &new[3];
    assert!(told.contains(admin.expose()) && told.contains(&bench.email));
    for value in before.values.iter().chain(&new[..3]) {
        assert!(!told.contains(value.expose()), "another secret is told");
    }
    for word in [text(outcome, "rotation"), text(outcome, "backup")] {
        assert!(told.contains(&word), "{word} is not in the summary");
    }
}

/// The head that a summary ends the trail with.
fn head_in(outcome: &Value) -> String {
    let told = fs::read_to_string(text(outcome, "summary")).unwrap();
    let line = told.lines().find(|l| l.starts_with("trail head")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_trail_whose_tail_was_cut_off_does_not_contain_the_summarys_head() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let first = bench.json(&["rotate", "JWT_SECRET", "--yes"]).await;
    let cut_off = bench.home("state-as-it-was");
    copy(&bench.home("state"), &cut_off);
    let second = bench.json(&["rotate", "JWT_SECRET", "--yes"]).await;
    let (first, second) = (head_in(&first), head_in(&second));

    let verify = ["audit", "verify"];
    assert_eq!(bench.run(&verify).await.code, DONE);
    for head in [&first, &second] {
        let run = bench.run(&["audit", "verify", "--head", head]).await;
        assert_eq!(run.code, DONE, "{run:?}");
    }
    let shorter = cut_off.to_str().unwrap();
    let alone = bench
        .run(&["audit", "verify", "--state-dir", shorter])
        .await;
    assert_eq!(alone.code, DONE, "the chain itself holds: {alone:?}");
    let cut = ["audit", "verify", "--state-dir", shorter, "--head", &second];
    let run = bench.run(&cut).await;
    assert_eq!(run.code, Some(1), "{run:?}");

    let list = bench.run(&["audit", "list", "--json"]).await;
    assert_eq!(list.stdout.lines().count(), 2, "one record a rotation");
}

#[tokio::test]
async fn one_secret_alone_leaves_the_others_and_their_consumers_alone() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let worker = bench.stack.container("worker").await.unwrap();
    let verifier = bench.verifier().await;

    bench.json(&["rotate", "JWT_SECRET", "--yes"]).await;

    only_these_changed(&bench, &before, &["JWT_SECRET"]);
    bench.runs(&bench.in_force()).await;
    let now = bench.stack.container("worker").await.unwrap();
    assert_eq!((now.id, now.started_at), (worker.id, worker.started_at));
    assert!(bench.verifier().await.same_as(&verifier));
    assert_eq!(bench.access(&before.tokens.unwrap().access).await, 401);
    let status = bench.json(&["status"]).await;
    assert!(status["unfinished"].is_null(), "{status}");
}

#[tokio::test]
async fn a_completed_rotation_is_taken_back_to_the_old_values_url_encoding_and_all() {
    if !containers_wanted() {
        return;
    }
    let password = Secret::new(NEEDS_ENCODING);
    let options = StackOptions::new().secret("POSTGRES_PASSWORD", password.clone());
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let first = text(&bench.rotate().await, "rotation");
    only_these_changed(&bench, &before, &SECRETS);
    let new = bench.in_force();

    let back = bench.json(&["rollback", &first, "--yes"]).await;

    assert_eq!(text(&back, "ending"), "completed", "{back}");
    assert!(
        fs::read(bench.stack.env_path()).unwrap() == before.env,
        "the file is not byte for byte as it was"
    );
    bench.runs(&before.values).await;
    assert_eq!(
        bench.stack.db_login(&new[2], Door::Network).await,
        DbLogin::Refused
    );
    assert_eq!(bench.login(&new[3]).await, 401);

    // What was taken back is not in force any more, so it cannot be taken back again.
    bench_refuses_rollback(&bench, &first, "rotated again since").await;
}

async fn bench_refuses_rollback(bench: &Bench, rotation: &str, says: &str) {
    let env = fs::read(bench.stack.env_path()).unwrap();
    let run = bench.run(&["rollback", rotation, "--yes"]).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains(says), "{run:?}");
    assert!(fs::read(bench.stack.env_path()).unwrap() == env);
}

#[tokio::test]
async fn a_rollback_is_refused_after_an_incident_after_another_rotation_and_for_an_unknown_name() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let first = bench.json(&["rotate", "JWT_SECRET", "--yes"]).await;
    let leaked = bench.stack.env("JWT_SECRET").unwrap();
    let incident = ["rotate", "JWT_SECRET", "--yes", "--reason", "incident"];
    let second = text(&bench.json(&incident).await, "rotation");

    bench_refuses_rollback(&bench, &text(&first, "rotation"), "rotated again since").await;
    bench_refuses_rollback(&bench, &second, "may have leaked").await;
    let unknown = bench.run(&["rollback", "no-such-rotation", "--yes"]).await;
    assert_eq!(unknown.code, REFUSED, "{unknown:?}");

    let forced = [
        "rollback",
        &second,
        "--yes",
        "--reason",
        "incident",
        "--force-unhealthy",
    ];
    bench.json(&forced).await;
    assert!(bench.stack.env("JWT_SECRET").unwrap().same_as(&leaked));
}

#[tokio::test]
async fn a_role_with_an_md5_verifier_keeps_its_kind() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().md5_password()).await;
    let before = bench.verifier().await;
    assert!(before.expose().starts_with("md5"));

    bench.rotate().await;

    let now = bench.verifier().await;
    assert!(now.expose().starts_with("md5") && !now.same_as(&before));
    bench.runs(&bench.in_force()).await;
}
