//! A rotation is killed with SIGKILL right before and right after each commit of its journal, and resumed.
//!
//! Before a commit the effect may have landed and its outcome is not recorded; after it the intent is recorded and nothing was
//! done. Either way one command must bring the stack to one complete set, without being told what happened.
//!
//! Built with `--features fault-injection` only; `cargo xtask test` does.

#[path = "containers/node/mod.rs"]
mod node;
#[path = "containers/recovery/mod.rs"]
mod recovery;

use keyroll_testkit::{StackOptions, containers_wanted, full_wanted};
use recovery::{Bench, DONE, REFUSED, ROLLED_BACK, ROTATE};
use serde_json::Value;

const KILLED: Option<i32> = Some(9);
/// No rotation commits so often; a loop that comes here never found the end.
const TOO_MANY: u64 = 200;

/// Kills a rotation at every `step`th commit from `first`, until one ends by itself; resumes and looks each time.
async fn kill_forward(moment: &str, first: u64, step: u64) {
    let bench = Bench::start(StackOptions::new()).await;
    let mut number = first;
    let mut resumed = [0, 0];
    loop {
        assert!(number < TOO_MANY, "the end was never reached");
        let before = bench.held();
        let at = format!("{moment}:{number}");
        let begun = std::time::Instant::now();
        let killed = bench.run_killed(&ROTATE, &at).await;
        if killed.signal != KILLED {
            assert_eq!(killed.code, Some(DONE), "{at}: {killed:?}");
            break;
        }
        let rotated = begun.elapsed();
        let recovered = bench.recover(&before, &at).await;
        println!(
            "{at}: killed after {rotated:.1?}, well again after {:.1?}, {:?}",
            begun.elapsed(),
            recovered.resumed.code
        );
        resumed[usize::from(recovered.resumed.code == Some(ROLLED_BACK))] += 1;
        number += step;
    }
    println!(
        "{number} commits; {} went on, {} went back",
        resumed[0], resumed[1]
    );
    assert!(number > 20, "the hook is not there, or counts wrongly");
    assert_eq!(resumed[1], 0, "a crash alone is no failure");
}

/// Every third commit in a plain run; all of them in a full one, from both sides.
fn stride() -> u64 {
    if full_wanted() { 1 } else { 3 }
}

#[tokio::test]
async fn killed_right_before_a_record_of_the_journal_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    kill_forward("before", 1, stride()).await;
}

#[tokio::test]
async fn killed_right_after_a_record_of_the_journal_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    kill_forward("after", stride(), stride()).await;
}

#[tokio::test]
async fn killed_around_a_record_of_a_rotation_that_goes_back_it_resumes_to_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let seed = bench.stack.fault("seed-exit1");
    let (mut turned_back, mut went_on) = (0, 0);
    let full = full_wanted();
    // The seed fails after the thirtieth commit or so.
    let mut number = if full { 1 } else { 25 };
    loop {
        assert!(number < TOO_MANY, "the end was never reached");
        let moments: &[&str] = match (full, number % 4) {
            (true, _) => &["before", "after"],
            (false, 1) => &["before"],
            (false, _) => &["after"],
        };
        let mut ended = false;
        for moment in moments {
            let before = bench.held();
            seed.set();
            let at = format!("{moment}:{number}");
            let killed = bench.run_killed(&ROTATE, &at).await;
            if killed.signal != KILLED {
                assert_eq!(killed.code, Some(ROLLED_BACK), "{at}: {killed:?}");
                ended = true;
                break;
            }
            // What has turned back goes back although the reason is gone; what has not meets the reason again.
            if killed.stderr.contains("going back") {
                seed.clear();
                turned_back += 1;
            } else {
                went_on += 1;
            }
            let recovered = bench.recover(&before, &at).await;
            if recovered.unfinished.is_some() {
                assert_eq!(
                    recovered.resumed.code,
                    Some(ROLLED_BACK),
                    "{at}: {:?}",
                    recovered.resumed
                );
            }
        }
        if ended {
            break;
        }
        number += if full { 1 } else { 2 };
    }
    println!("{number} commits; killed {turned_back} times while it went back, {went_on} before");
    assert!(turned_back > 5, "it was never killed while it went back");
}

#[tokio::test]
async fn a_rotation_that_is_killed_again_whenever_it_resumes_still_ends_completed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    let killed = bench.run_killed(&ROTATE, "after:3").await;
    assert_eq!(killed.signal, KILLED, "{killed:?}");
    let rotation = bench.unfinished().await.expect("a rotation")["rotation"].clone();
    let mut kills = 1;
    // Each gets a little further than the one before.
    for number in (2..TOO_MANY).step_by(3) {
        let at = format!("before:{number}");
        let again = bench.run_killed(&["resume"], &at).await;
        if again.signal != KILLED {
            assert_eq!(again.code, Some(DONE), "{at}: {again:?}");
            break;
        }
        kills += 1;
        let unfinished = bench.unfinished().await;
        if let Some(unfinished) = &unfinished {
            assert_eq!(unfinished["rotation"], rotation, "{at}");
        }
    }
    println!("killed {kills} times");
    assert!(kills > 3, "it was not killed while it resumed");
    let recovered = bench.recover(&before, "in the end").await;
    assert!(recovered.unfinished.is_none());
    let now = bench.held();
    assert!(!now.value("JWT_SECRET").same_as(before.value("JWT_SECRET")));
}

#[tokio::test]
async fn killed_right_after_its_ending_a_rotation_that_had_been_stuck_is_closed_and_told_by_its_own_code()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    bench.gets_stuck().await;
    let rotation = bench.unfinished().await.expect("stuck")["rotation"].clone();
    let rotation = rotation.as_str().unwrap();

    // Resumed, the baseline's undo intended, undone, ended. What is left is to retire the pending versions and to tell.
    let killed = bench.run_killed(&["resume"], "after:4").await;
    assert_eq!(killed.signal, KILLED, "{killed:?}");
    assert_eq!(
        bench.unfinished().await,
        None,
        "it had not ended: {killed:?}"
    );
    let told = async || {
        let list = bench.run(&["audit", "list"]).await;
        let lines = list.stdout.lines();
        lines
            .filter_map(|l| l.split_whitespace().nth(4).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["Stuck"], "not told yet");

    let closed = bench.run(&["resume"]).await;
    assert_eq!(closed.code, Some(ROLLED_BACK), "{closed:?}");
    assert!(closed.stdout.contains(rotation), "{closed:?}");
    assert_eq!(told().await, ["Stuck", "Compensated"]);
    bench.one_set_in_force(&before, &before, "closed").await;
    let again = bench.run(&["resume"]).await;
    assert_eq!(again.code, Some(DONE), "{again:?}");
    assert_eq!(told().await, ["Stuck", "Compensated"], "told once");
}

const HASH: &str = "payments.flutterwave.webhookHash";

/// The rows of the present and the previous hash.
async fn hashes(bench: &Bench) -> [Option<String>; 2] {
    let mut found = [None, None];
    for (at, end) in ["", "_previous"].iter().enumerate() {
        let sql = format!(r#"SELECT "value" FROM "Setting" WHERE "key" = '{HASH}{end}'"#);
        let rows = bench.stack.sql(&sql).await.unwrap();
        found[at] = rows.into_iter().next().and_then(|r| r.into_iter().next());
    }
    found
}

/// Whether the journal knows of an open window.
async fn window_is_known(bench: &Bench) -> bool {
    window_of(bench, "FLUTTERWAVE_WEBHOOK_HASH").await
}

async fn window_of(bench: &Bench, secret: &str) -> bool {
    let status = bench.run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let mut all = status["secrets"].as_array().unwrap().iter();
    let own = all.find(|s| s["name"] == secret);
    !own.unwrap()["window"].is_null()
}

/// Kills this command around its `number`th commit, from alternate sides, and resumes it. Whether it had an end of its own.
async fn kill_at(bench: &Bench, command: &[&str], number: u64, begun: &mut bool) -> bool {
    let moment = ["before", "after"][usize::from(number.is_multiple_of(2))];
    let killed = bench
        .run_killed(command, &format!("{moment}:{number}"))
        .await;
    if killed.signal != KILLED {
        assert_eq!(killed.code, Some(DONE), "{number}: {killed:?}");
        return true;
    }
    *begun = bench.unfinished().await.is_some();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, Some(DONE), "{number}: {resumed:?}");
    false
}

#[tokio::test]
async fn killed_around_a_record_a_rotation_of_settings_and_the_end_of_its_window_resume_to_one_pair_of_rows()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Odd, so that it comes from both sides.
    let stride = if full_wanted() { 1 } else { 3 };
    let value = |n: u64| format!("a-hash-of-the-dashboard-{n}");
    let first = value(0);
    let insert = format!(r#"INSERT INTO "Setting" ("key", "value") VALUES ('{HASH}', '{first}')"#);
    bench.stack.sql(&insert).await.unwrap();
    let (mut old, mut number, mut ended) = ([Some(first), None], 1, false);
    while !ended {
        let given = format!("FLUTTERWAVE_WEBHOOK_HASH={}", value(number));
        let command = [
            "rotate",
            "FLUTTERWAVE_WEBHOOK_HASH",
            "--yes",
            "--replace-grace",
            "--value",
            &given,
        ];
        let mut begun = true;
        ended = kill_at(&bench, &command, number, &mut begun).await;
        let new = [Some(value(number)), old[0].clone()];
        let now = hashes(&bench).await;
        assert!(
            now == new || (!begun && now == old),
            "{number}: {now:?}, not {old:?} or {new:?}"
        );
        assert_eq!(
            window_is_known(&bench).await,
            now[1].is_some(),
            "{number}: {now:?}"
        );
        old = now;
        number += stride;
    }
    println!("{number} commits of a rotation");
    assert!(number > 12, "the hook is not there, or counts wrongly");

    (number, ended) = (1, false);
    while !ended {
        let before = hashes(&bench).await;
        let command = ["finalize", "FLUTTERWAVE_WEBHOOK_HASH", "--yes"];
        let mut begun = true;
        ended = kill_at(&bench, &command, number, &mut begun).await;
        let now = hashes(&bench).await;
        let closed = [before[0].clone(), None];
        assert!(
            now == closed || (!begun && now == before),
            "{number}: {now:?}"
        );
        assert_eq!(
            window_is_known(&bench).await,
            now[1].is_some(),
            "{number}: {now:?}"
        );
        if now == closed && !ended {
            // The next window.
            let given = format!("FLUTTERWAVE_WEBHOOK_HASH={}", value(1000 + number));
            let command = [
                "rotate",
                "FLUTTERWAVE_WEBHOOK_HASH",
                "--yes",
                "--value",
                &given,
            ];
            let rotated = bench.run(&command).await;
            assert_eq!(rotated.code, Some(DONE), "{number}: {rotated:?}");
        }
        number += stride;
    }
    println!("{number} commits of a finalize");
    assert!(number > 8, "the hook is not there, or counts wrongly");
}

#[tokio::test]
async fn killed_around_a_record_a_token_that_is_given_another_value_is_the_one_that_the_application_has()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = node::Node::open(&bench.stack, bench.keyroll.home()).await;
    node.providers.known().proxmox.regenerates = true;
    let command = node.with(&["rotate", node::SECRET, "--yes", "--regenerate"]);
    let stride = if full_wanted() { 1 } else { 3 };
    let (mut number, mut ended) = (1, false);
    while !ended {
        ended = kill_at(&bench, &command, number, &mut true).await;
        // By the node's own view.
        node.in_use(&bench.stack).await;
        assert_eq!(node.tokens().len(), 1, "{number}");
        number += stride;
    }
    assert!(number > 8, "the hook is not there, or counts wrongly");
}

#[tokio::test]
async fn killed_around_a_record_no_token_is_lost_or_left_that_the_journal_does_not_know() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = node::Node::open(&bench.stack, bench.keyroll.home()).await;
    let stride = if full_wanted() { 1 } else { 3 };
    for command in ["rotate", "finalize"] {
        let command = node.with(&[command, node::SECRET, "--yes"]);
        let (mut number, mut ended) = (1, false);
        while !ended {
            let mut begun = true;
            ended = kill_at(&bench, &command, number, &mut begun).await;
            let used = node.in_use(&bench.stack).await;
            let mut others = node.tokens();
            others.remove(&used);
            // The one before, or one that was made and waits: both are in the journal by their names.
            assert!(others.len() <= 1, "{number}: {used} and {others:?}");
            if others.is_empty() || !window_of(&bench, node::SECRET).await {
                // Made and not used, or nothing begun: the next one goes on from here.
            } else if !ended && command[0] == "rotate" {
                let done = bench
                    .run(&node.with(&["finalize", node::SECRET, "--yes"]))
                    .await;
                assert_eq!(done.code, Some(DONE), "{number}: {done:?}");
                assert_eq!(node.tokens().len(), 1, "{number}");
            }
            if !ended && command[0] == "finalize" && !window_of(&bench, node::SECRET).await {
                let done = bench
                    .run(&node.with(&["rotate", node::SECRET, "--yes"]))
                    .await;
                assert_eq!(done.code, Some(DONE), "{number}: {done:?}");
            }
            number += stride;
        }
        println!("{number} commits of {}", command[0]);
    }
    assert_eq!(node.tokens().len(), 1, "{:?}", node.tokens());
}

/// A restore is killed around each commit of its own, then the same command runs again.
async fn kill_a_restore(part: &str, damage: impl AsyncFn(&Bench)) {
    let bench = Bench::start(StackOptions::new()).await;
    let rotated = bench.run(&[&ROTATE[..], &["--json"]].concat()).await;
    let rotated: Value = serde_json::from_str(&rotated.stdout).unwrap();
    let rotation = rotated["rotation"].as_str().unwrap();
    let what = format!("--restore-{part}");
    let command = [
        "rollback",
        rotation,
        &what,
        "--yes",
        "--confirm-restore",
        rotation,
    ];
    let before = bench.held();
    let moments = (1..=3).flat_map(|n| [format!("before:{n}"), format!("after:{n}")]);
    let mut finished = 0;
    for at in moments {
        damage(&bench).await;
        let recorded = restores(&bench).await;
        let killed = bench.run_killed(&command, &at).await;
        assert_eq!(killed.signal, KILLED, "{at}: {killed:?}");
        let status = bench.run(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let open = !status["unfinished_restore"].is_null();
        // Before the first commit nothing was begun, after the last one everything is done.
        let expected = at != "before:1" && at != "after:3";
        assert_eq!(open, expected, "{at}: {status}");
        let plan = bench.run(&["plan", "production"]).await;
        let refused = plan.code == Some(REFUSED) && plan.stderr.contains("  unfinished: ");
        assert_eq!(refused, open, "{at}: {plan:?}");
        if at == "before:3" && part == "database" {
            // As if it had been killed right after the databases changed places.
            bench
                .stack
                .compose(&["stop", "api", "worker"])
                .await
                .unwrap();
        }
        if at != "after:3" {
            let again = bench.run(&[&command[..], &["--json"]].concat()).await;
            assert_eq!(again.code, Some(DONE), "{at}: {again:?}");
        }
        let now = restores(&bench).await;
        assert_eq!(now.len(), recorded.len() + 1, "{at}: {now:?}");
        finished += usize::from(now.last().unwrap().contains("\"begun\""));
        bench.one_set_in_force(&before, &before, &at).await;
        let verify = bench.run(&["verify"]).await;
        assert_eq!(verify.code, Some(DONE), "{at}: {verify:?}");
    }
    println!("{finished} were finished by another run");
    let beside = r"SELECT count(*) FROM pg_database WHERE datname LIKE '%\_keyroll\_%'";
    assert_eq!(bench.stack.sql_value(beside).await.unwrap(), "0");
    let kept = r"SELECT count(*) FROM pg_database WHERE datname LIKE '%\_replaced\_%'";
    let expected = if part == "database" { "6" } else { "0" };
    assert_eq!(bench.stack.sql_value(kept).await.unwrap(), expected);
}

async fn restores(bench: &Bench) -> Vec<String> {
    let all = bench.run(&["audit", "list", "--json"]).await.stdout;
    let restores = all.lines().filter(|line| line.contains("\"restore\""));
    restores.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_restored_database_that_was_killed_around_a_record_is_restored_once() {
    if !containers_wanted() {
        return;
    }
    kill_a_restore("database", async |bench| {
        let sql = r#"DROP TABLE IF EXISTS "AuditLog"; SELECT 1"#;
        bench.stack.sql(sql).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn restored_files_that_were_killed_around_a_record_are_recorded_once() {
    if !containers_wanted() {
        return;
    }
    kill_a_restore("files", async |bench| {
        let path = bench.stack.root().join("package.json");
        std::fs::write(path, "damaged").unwrap();
    })
    .await;
}
