//! Rotations that do not end in one go: stuck after the point of no return, given up by an operator, with a damaged trail, or
//! with an engine that is down when they are resumed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use crate::common::{
    Before, Bench, DONE, GOING_BACK, LIMIT, REFUSED, ROTATE, STUCK, UNFINISHED, USAGE, at, docker,
};
use keyroll_secret::Secret;
use keyroll_testkit::{Run, StackOptions, containers_wanted};
use serde_json::Value;

const FAULT: Option<i32> = Some(1);
const ABANDONED: Option<i32> = Some(8);

impl Bench {
    fn database(&self) -> rusqlite::Connection {
        let path = self.home("state").join("state.db");
        let database = rusqlite::Connection::open(path).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        database
    }

    fn execute(&self, sql: &str) {
        self.database().execute_batch(sql).unwrap();
    }

    /// The unfinished rotation's name.
    async fn unfinished(&self) -> Option<String> {
        let status = self.json(&["status"]).await;
        Some(status["unfinished"]["rotation"].as_str()?.to_owned())
    }

    /// What the trail's records say.
    async fn trail(&self) -> Vec<Value> {
        let list = self.run(&["audit", "list", "--json"]).await;
        let records = list.stdout.lines().map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["body"].take()
        });
        records.collect()
    }

    /// How the trail says that this rotation ended, each time it did.
    async fn told(&self, rotation: &str) -> Vec<String> {
        let own = self.trail().await.into_iter();
        let own = own.filter(|body| body["rotation"] == rotation);
        own.map(|body| {
            let how = body["ending"].as_str().or(body["kind"].as_str());
            how.unwrap().to_owned()
        })
        .collect()
    }

    /// Which versions the trail says were revealed.
    async fn revealed(&self) -> Vec<String> {
        let own = self.trail().await.into_iter();
        let own = own.filter(|body| body["kind"] == "reveal");
        own.map(|body| body["version"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A version of the database password, through a file that root alone can read.
    async fn revealed_value(&self, which: &[&str]) -> Secret {
        let file = self.home("revealed");
        let to_file = ["--to-file", file.to_str().unwrap()];
        let command = [&["reveal", "POSTGRES_PASSWORD"], which, &to_file].concat();
        let run = self.run(&command).await;
        assert_eq!(run.code, DONE, "{run:?}");
        let value = Secret::new(fs::read_to_string(&file).unwrap());
        assert!(!format!("{run:?}").contains(value.expose()));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        fs::remove_file(&file).unwrap();
        value
    }

    /// State of each version of a rotation, and whether its value is still there.
    fn versions(&self, rotation: &str) -> Vec<(String, String, bool)> {
        let database = self.database();
        let mut found = database
            .prepare("SELECT secret, state, sealed IS NOT NULL FROM versions WHERE rotation = ?1")
            .unwrap();
        let rows = found.query_map([rotation], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The hash that the application would store for another password of the admin.
    async fn admin_hash_of(&self, password: &str) -> String {
        let before = self.stack.admin_hash().await.unwrap();
        let (api, password) = (
            self.stack.container_name("api"),
            format!("ADMIN_PASSWORD={password}"),
        );
        docker(&["exec", "-e", &password, &api, "npm", "run", "prisma:seed"]);
        let hash = self.stack.admin_hash().await.unwrap();
        assert_ne!(hash, before);
        self.set_admin_hash(&before);
        hash
    }

    /// Over the server's socket, which asks for no password: it works wherever a rotation is.
    fn set_admin_hash(&self, hash: &str) {
        let update =
            format!(r#"UPDATE "User" SET "passwordHash" = '{hash}' WHERE "role" = 'ADMIN'"#);
        let (name, stack) = (self.stack.container_name("postgres"), &self.stack);
        let login = ["-U", stack.role(), "-d", stack.database()];
        docker(&[&["exec", &name, "psql"], &login[..], &["-c", &update]].concat());
    }

    async fn killed_at(&self, command: &[&str], text: &str) -> String {
        self.killed_when(command, text).await;
        self.unfinished().await.expect("it is unfinished")
    }
}

/// It is on the new set, and says so, with what is left.
fn stuck_with(run: &Run, left: &str) {
    assert_eq!(run.code, STUCK, "{run:?}");
    for word in [
        "after the point of no return",
        "the new set is in force and proven",
        left,
        "keyroll resume",
    ] {
        assert!(run.stdout.contains(word), "{word:?} is not in {run:?}");
    }
    assert!(!run.stdout.contains("neither set"), "{run:?}");
}

// After the point of no return.

#[tokio::test]
async fn a_summary_that_cannot_be_written_leaves_the_new_set_proven_and_a_resume_completes_it() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.in_force();
    let summaries = bench.home("summaries");
    let run = bench
        .interfere(
            &ROTATE,
            vec![at("backup: done", || {
                fs::remove_dir_all(&summaries).unwrap();
                fs::write(&summaries, "in the way").unwrap();
            })],
        )
        .await;
    stuck_with(&run, "what is left is summary");
    let rotation = bench.unfinished().await.expect("stuck is unfinished");
    assert_eq!(bench.told(&rotation).await, ["completed", "stuck"]);
    let now = bench.in_force();
    assert!(now.iter().zip(&before).all(|(n, b)| !n.same_as(b)));
    bench.runs(&now).await;

    let again = bench.run(&["resume"]).await;
    stuck_with(&again, "what is left is summary");
    assert_eq!(bench.told(&rotation).await, ["completed", "stuck", "stuck"]);

    fs::remove_file(&summaries).unwrap();
    fs::create_dir(&summaries).unwrap();
    let done = bench.json(&["resume"]).await;
    assert_eq!(done["ending"], "completed", "{done}");
    assert!(fs::exists(done["summary"].as_str().unwrap()).unwrap());
    assert_eq!(bench.told(&rotation).await.last().unwrap(), "completed");
    bench.trail_says("completed", &[]).await;
    let next = bench.run(&["plan", "production"]).await;
    assert_eq!(next.code, DONE, "{next:?}");
}

#[tokio::test]
async fn a_trail_that_takes_no_record_leaves_the_new_set_proven_and_a_resume_tells_everything() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let full =
        "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    // It makes the journal, and writes nothing into the trail.
    let planned = bench.run(&["plan", "production"]).await;
    assert_eq!(planned.code, DONE, "{planned:?}");
    bench.execute(full);
    let run = bench.run(&ROTATE).await;
    stuck_with(&run, "what is left is trail, summary");
    assert!(run.stderr.contains("the trail has no record"), "{run:?}");
    let rotation = bench.unfinished().await.expect("stuck is unfinished");
    assert_eq!(bench.told(&rotation).await, [""; 0]);

    bench.execute("DROP TRIGGER full");
    let done = bench.json(&["resume"]).await;
    assert_eq!(done["ending"], "completed", "{done}");
    assert!(fs::exists(done["summary"].as_str().unwrap()).unwrap());
    assert_eq!(bench.told(&rotation).await, ["stuck", "completed"]);
    bench.trail_says("completed", &[]).await;
    bench.runs(&bench.in_force()).await;
}

// Giving up.

#[tokio::test]
async fn a_rotation_that_is_stuck_because_the_admin_changed_the_password_can_be_abandoned() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let own = "the-admins-own-2f8c61d0";
    let hash_of_own = bench.admin_hash_of(own).await;
    let before = bench.before().await;
    let fault = bench.stack.fault("page-500");
    let run = bench
        .interfere(
            &ROTATE,
            vec![
                at("recreate: done", || fault.set()),
                at(GOING_BACK, || {
                    fault.clear();
                    bench.set_admin_hash(&hash_of_own);
                }),
            ],
        )
        .await;
    assert_eq!(run.code, STUCK, "{run:?}");
    assert!(
        run.stdout.contains("neither set could be proven"),
        "{run:?}"
    );
    let rotation = bench.unfinished().await.expect("stuck is unfinished");
    let again = bench.run(&ROTATE).await;
    assert_eq!(again.code, REFUSED, "{again:?}");
    says_what_is_in_force(&bench, &rotation).await;
    reveals(&bench, &before).await;

    is_not_given_up_unconfirmed(&bench, &rotation).await;
    let give_up = [
        &["abandon", &rotation, "--because", "ticket 7"][..],
        &["--yes", "--confirm-abandon", &rotation],
    ];
    let run = bench.run(&give_up.concat()).await;
    assert_eq!(run.code, ABANDONED, "{run:?}");
    assert_eq!(env_file_lines(&bench, &run.stdout, "the old value"), 4);
    assert_eq!(run.stdout.matches("old and new are sealed").count(), 4);
    for word in ["Abandoned", "state.db", "7 days later", "backup     /"] {
        assert!(run.stdout.contains(word), "{word:?} is not in {run:?}");
    }
    for value in before.values.iter().chain(&[Secret::new(own)]) {
        assert!(
            !format!("{run:?}").contains(value.expose()),
            "a value was told"
        );
    }
    assert_eq!(bench.told(&rotation).await, ["stuck", "abandoned"]);
    bench
        .trail_says("abandoned", &["ticket 7", &rotation])
        .await;
    assert_eq!(bench.unfinished().await, None);
    let own_versions = bench.versions(&rotation);
    let retired = own_versions.iter().filter(|(_, s, _)| s == "retired");
    assert_eq!(retired.count(), 4, "{own_versions:?}");
    assert!(own_versions.iter().all(|(.., sealed)| *sealed));
    let twice = bench.run(&give_up.concat()).await;
    assert_eq!(twice.code, REFUSED, "{twice:?}");
    let nothing = bench.run(&["resume"]).await;
    assert_eq!(nothing.code, DONE, "{nothing:?}");

    // A right login, which also resets the count of wrong ones.
    assert_eq!(bench.login(&Secret::new(own)).await, 200);
    let file = bench.home("admins-own");
    fs::write(&file, own).unwrap();
    let password = ["--current-admin-password-file", file.to_str().unwrap()];
    let next = bench.run(&[&ROTATE[..], &password].concat()).await;
    assert_eq!(next.code, DONE, "{next:?}");
    bench.runs(&bench.in_force()).await;

    // What was in force before is not what the abandoned rotation had made, which is still to be had.
    let old = before.value("POSTGRES_PASSWORD");
    let previous = bench.revealed_value(&["--version", "previous"]).await;
    assert!(previous.same_as(old));
    let of_it = ["--version", "pending", "--rotation", &rotation];
    let never = bench.revealed_value(&of_it).await;
    assert!(!never.same_as(old) && !never.same_as(&bench.in_force()[2]));
}

/// Each word of the command is needed.
async fn is_not_given_up_unconfirmed(bench: &Bench, rotation: &str) {
    let because = ["--because", "ticket 7"];
    let confirmed = ["--yes", "--confirm-abandon"];
    let mine = ["abandon", rotation];
    for (command, code) in [
        ([&mine[..], &confirmed, &[rotation]].concat(), USAGE),
        ([&mine[..], &because].concat(), USAGE),
        ([&mine[..], &["--yes"], &because].concat(), USAGE),
        (
            [&mine[..], &because, &confirmed, &["another"]].concat(),
            USAGE,
        ),
        (
            [
                &["abandon", "another"],
                &because[..],
                &confirmed,
                &["another"],
            ]
            .concat(),
            REFUSED,
        ),
    ] {
        let run = bench.run(&command).await;
        assert_eq!(run.code, code, "{command:?}: {run:?}");
        assert_eq!(bench.unfinished().await.as_deref(), Some(rotation));
    }
}

/// Lines that say so of the env file.
fn env_file_lines(bench: &Bench, told: &str, holds: &str) -> usize {
    let file = bench.stack.env_path();
    let file = file.to_str().unwrap();
    let lines = told.lines();
    lines
        .filter(|l| l.contains(file) && l.contains(holds))
        .count()
}

/// A stuck rotation on the old set but for the admin, who has another password: each place by its own view, and the ways out.
async fn says_what_is_in_force(bench: &Bench, rotation: &str) {
    let show = bench.json(&["show"]).await;
    assert_eq!(show["rotation"], rotation);
    let unfinished = &show["unfinished"];
    assert_eq!(unfinished["phase"], "stuck");
    let views = unfinished["in_force"].as_array().unwrap();
    let holds = |secret: &str, place: &str| -> Vec<&str> {
        let at = |v: &&Value| v["secret"] == secret && v["place"].as_str().unwrap().contains(place);
        let found = views.iter().filter(at);
        found.map(|v| v["holds"].as_str().unwrap()).collect()
    };
    let role = format!("role {}", bench.stack.role());
    for (secret, place, expected) in [
        ("POSTGRES_PASSWORD", "env.production", "old"),
        ("POSTGRES_PASSWORD", "api", "old"),
        ("POSTGRES_PASSWORD", "worker", "old"),
        ("POSTGRES_PASSWORD", role.as_str(), "old"),
        ("JWT_SECRET", "api", "old"),
        ("ADMIN_PASSWORD", "env.production", "old"),
        ("ADMIN_PASSWORD", bench.email.as_str(), "another"),
    ] {
        assert_eq!(holds(secret, place), [expected], "{secret} {place}: {show}");
    }
    let typed = unfinished["next"].as_array().unwrap();
    let typed: Vec<&str> = typed
        .iter()
        .map(|n| n["command"].as_str().unwrap())
        .collect();
    assert_eq!(typed.len(), 3, "{typed:?}");
    for told in ["show", "status"] {
        let run = bench.run(&[told]).await;
        assert_eq!(run.code, DONE, "{run:?}");
        for word in typed.iter().chain(&[
            "in force where, by whose view",
            "another value, neither old nor new",
            "undone",
        ]) {
            assert!(run.stdout.contains(word), "{word:?} is not in {run:?}");
        }
    }
}

/// Each version, into a file that root alone can read or onto a terminal; never into a pipe, and each time with a record.
async fn reveals(bench: &Bench, before: &Before) {
    let file = bench.home("revealed");
    let to_file = ["--to-file", file.to_str().unwrap()];
    let reveal = |version| ["reveal", "POSTGRES_PASSWORD", "--version", version];
    let piped = bench.run(&reveal("current")).await;
    assert_eq!(piped.code, USAGE, "{piped:?}");
    let absent = bench
        .run(&[&reveal("previous")[..], &to_file].concat())
        .await;
    assert_eq!(absent.code, REFUSED, "{absent:?}");
    assert!(!file.exists(), "nothing was revealed, and a file is left");
    assert_eq!(bench.revealed().await, [""; 0]);

    for (version, old) in [("current", true), ("pending", false)] {
        let value = bench.revealed_value(&["--version", version]).await;
        assert_eq!(value.same_as(before.value("POSTGRES_PASSWORD")), old);
        assert!(value.expose().len() >= 32);
    }
    fs::write(&file, "mine").unwrap();
    let there = bench
        .run(&[&reveal("current")[..], &to_file].concat())
        .await;
    assert_eq!(there.code, FAULT, "it would replace a file: {there:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    fs::remove_file(&file).unwrap();
    let shown = bench.terminal(&reveal("current")).reads_to_its_end();
    assert!(
        shown.contains(before.value("POSTGRES_PASSWORD").expose()),
        "the terminal does not have the value"
    );
    assert_eq!(bench.revealed().await, ["current", "pending", "current"]);
}

#[tokio::test]
async fn without_an_engine_a_resume_says_that_the_rotation_is_unfinished_and_it_can_be_abandoned_on_the_new_file()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let socket = bench.home("docker.sock");
    symlink("/var/run/docker.sock", &socket).unwrap();
    let through = format!("compose.socket={}", socket.display());
    let command = [&ROTATE[..], &["--set", &through]].concat();
    let rotation = bench.killed_at(&command, "recreate: started").await;
    fs::remove_file(&socket).unwrap();

    let run = bench.run(&["resume"]).await;
    assert_eq!(run.code, UNFINISHED, "{run:?}");
    for word in [&rotation, "is unfinished", "docker.sock", "keyroll resume"] {
        assert!(run.stderr.contains(word), "{word:?} is not in {run:?}");
    }
    assert!(!run.stderr.contains("nothing was changed"), "{run:?}");

    let run = bench
        .run(&[
            "abandon",
            &rotation,
            "--because",
            "no engine",
            "--yes",
            "--confirm-abandon",
            &rotation,
        ])
        .await;
    assert_eq!(run.code, ABANDONED, "{run:?}");
    assert!(run.stdout.contains("docker.sock"), "{run:?}");
    assert_eq!(env_file_lines(&bench, &run.stdout, "the new value"), 4);
    assert_eq!(run.stdout.matches("old and new are sealed").count(), 4);
    let current = |(_, state, sealed): &(String, String, bool)| state == "current" && *sealed;
    let versions = bench.versions(&rotation);
    assert_eq!(
        versions.iter().filter(|v| current(v)).count(),
        4,
        "{versions:?}"
    );

    // What the operator does by hand: the containers on the file as it is. That seeds the admin too.
    bench.stack.up().await.unwrap();
    for service in ["postgres", "api", "worker"] {
        bench.stack.healthy(service, LIMIT).await.unwrap();
    }
    bench.rotate().await;
    bench.runs(&bench.in_force()).await;
}

// A damaged trail.

#[tokio::test]
async fn a_damaged_trail_keeps_nothing_new_from_being_refused_and_no_rotation_from_being_finished()
{
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Refusals are told in the trail.
    for _ in 0..2 {
        let refused = bench.run(&["rotate", "NO_SUCH_SECRET", "--yes"]).await;
        assert_eq!(refused.code, REFUSED, "{refused:?}");
    }
    let rotation = bench.killed_at(&ROTATE, "env-file: done").await;
    bench.execute(
        "UPDATE audit SET record = replace(record, 'NO_SUCH', 'WHO_ELSE') WHERE sequence = 1",
    );

    let run = bench.run(&["resume"]).await;
    assert_eq!(
        run.code, FAULT,
        "completed, and the trail is at fault: {run:?}"
    );
    assert!(run.stdout.contains("Completed"), "{run:?}");
    let twice = run.stderr.matches("broken at its first record").count();
    assert_eq!(twice, 2, "said before and after: {run:?}");
    assert_eq!(bench.unfinished().await, None);
    assert_eq!(bench.told(&rotation).await, ["completed"]);
    bench.runs(&bench.in_force()).await;

    for command in [&ROTATE[..], &["plan", "production"], &["resume"]] {
        let refused = bench.run(command).await;
        assert_eq!(refused.code, REFUSED, "{refused:?}");
        assert!(
            refused.stderr.contains("keyroll audit verify"),
            "{refused:?}"
        );
    }
}
