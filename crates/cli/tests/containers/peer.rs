//! The database is not to be reached from this host, and is reached through another container.
//!
//! Unreachable for real: the host's own packets to it are rejected. Those from container to container do not pass there.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::recovery::{Bench, DONE, REFUSED, ROTATE, marked};
use keyroll_testkit::{DbLogin, Door, Run, Stack, StackOptions, containers_wanted, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// Nothing from this host reaches the database, until dropped.
struct Unreachable {
    rule: Vec<String>,
}

impl Unreachable {
    /// Needs root, and the `iptables` that the engine itself uses.
    async fn from_this_host(stack: &Stack) -> Self {
        let database = stack.container("postgres").await.unwrap();
        let network = format!("{}_default", stack.project());
        let id = docker(&["network", "inspect", "-f", "{{.Id}}", &network]);
        // The bridge is this stack's alone: a rule that a killed test leaves is in nobody's way.
        let rule = [
            "OUTPUT",
            "--out-interface",
            &format!("br-{}", &id[..12]),
            "--destination",
            &database.address.unwrap().to_string(),
            "--jump",
            "REJECT",
        ];
        let rule = rule.map(str::to_owned).to_vec();
        assert!(iptables("--insert", &rule), "{rule:?}");
        let blocked = Self { rule };
        let password = stack.env("POSTGRES_PASSWORD").unwrap();
        let login = stack.db_login(&password, Door::Network).await;
        assert!(
            matches!(login, DbLogin::Unknown(_)),
            "it is still reached: {login:?}"
        );
        blocked
    }
}

impl Drop for Unreachable {
    fn drop(&mut self) {
        iptables("--delete", &self.rule);
    }
}

fn iptables(what: &str, rule: &[String]) -> bool {
    let mut command = Command::new("iptables");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--wait", what]).args(rule);
    command.status().is_ok_and(|status| status.success())
}

fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().unwrap();
    assert!(done.status.success(), "docker {arguments:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn inside(stack: &Stack, service: &str, line: &str) {
    let name = stack.container_name(service);
    docker(&["exec", "-u", "0", &name, "sh", "-ec", line]);
}

fn says(run: &Run, words: &[&str]) {
    for word in words {
        let said = run.stdout.contains(word) || run.stderr.contains(word);
        assert!(said, "{word:?} is not in {run:?}");
    }
}

/// No relay runs in any container.
async fn no_relay_is_left(stack: &Stack) {
    eventually("the relays have ended", LIMIT, async || {
        for service in ["api", "worker", "postgres"] {
            let all = stack.processes(service).await.ok()?;
            let relays = |word: &String| word.contains("/dev/tcp");
            if all.iter().any(|p| p.arguments.iter().any(relays)) {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_rotation_completes_where_only_other_containers_reach_the_database() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    let blocked = Unreachable::from_this_host(&bench.stack).await;

    let done = bench.run(&ROTATE).await;

    assert_eq!(done.code, Some(DONE), "{done:?}");
    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, Some(DONE), "{verify:?}");
    says(
        &verify,
        &[&format!(
            ":5432 through container {}: the password logs in, a made-up one is refused",
            bench.stack.container_name("api")
        )],
    );
    no_relay_is_left(&bench.stack).await;
    drop(blocked);
    bench.one_set_in_force(&before, &before, "through").await;
    let now = bench.held();
    let name = "POSTGRES_PASSWORD";
    assert!(!now.value(name).same_as(before.value(name)));
}

#[tokio::test]
async fn through_another_container_a_wrong_password_is_refused_and_a_path_that_trusts_is_vacuous() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let stack = &bench.stack;
    let _blocked = Unreachable::from_this_host(stack).await;
    let through = format!("through container {}", stack.container_name("api"));

    let role = stack.role();
    let other = format!("ALTER ROLE \"{role}\" PASSWORD 'not-the-one-in-the-env-file';");
    stack.sql(&other).await.unwrap();
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, Some(REFUSED), "{plan:?}");
    says(
        &plan,
        &["  database: ", "the server refused the password", &through],
    );

    let trust = "sed -i 's/^host all all all .*/host all all all trust/' $PGDATA/pg_hba.conf";
    inside(stack, "postgres", trust);
    stack.sql("SELECT pg_reload_conf();").await.unwrap();
    eventually("the check is vacuous", LIMIT, async || {
        let plan = bench.run(&["plan", "production"]).await;
        assert_eq!(plan.code, Some(REFUSED), "{plan:?}");
        let vacuous = plan.stderr.contains("  vacuous: ") && plan.stderr.contains(&through);
        vacuous.then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_first_container_with_a_program_is_taken_at_last_the_databases_own_and_then_all_is_told()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let stack = &bench.stack;
    let _blocked = Unreachable::from_this_host(stack).await;
    let verified_through = async |service: &str| {
        let verify = bench.run(&["verify"]).await;
        assert_eq!(verify.code, Some(DONE), "{verify:?}");
        says(
            &verify,
            &[&format!(
                "through container {}",
                stack.container_name(service)
            )],
        );
    };
    let remove = |service, program: &str| inside(stack, service, &format!("rm {program}"));

    verified_through("api").await;
    remove("api", "/bin/bash");
    verified_through("api").await; // by perl
    remove("api", "/usr/bin/perl");
    verified_through("worker").await;
    remove("worker", "/bin/bash /usr/bin/perl");
    verified_through("postgres").await;
    remove("postgres", "/bin/bash /usr/bin/perl");
    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, Some(1), "{verify:?}");
    says(
        &verify,
        &[
            "could not look",
            "at its own address (",
            ":5432: connection refused), ",
            "at a published port (none is published), ",
            "through a container on its network (",
            &format!("{}: it has none of bash, ", stack.container_name("api")),
            &format!(
                "see `docker logs {}`, and whether database.port is right",
                stack.container_name("postgres")
            ),
        ],
    );
}

/// Holds the row of the stack's role, until dropped.
struct Locked(Child);

impl Locked {
    fn row_of_the_role(stack: &Stack) -> Self {
        let (container, role) = (stack.container_name("postgres"), stack.role());
        let mut psql = Command::new("docker");
        psql.args(["exec", "-i", &container, "psql", "-q", "-U", role]);
        psql.args(["-d", stack.database()]);
        psql.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = psql.spawn().unwrap();
        let lock = format!(
            "BEGIN; SELECT pg_advisory_lock(4711) FROM (SELECT 1 FROM pg_authid WHERE rolname = '{role}' FOR UPDATE) AS r;\n"
        );
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), lock.as_bytes()).unwrap();
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_relay_that_a_killed_keyroll_left_is_ended_by_a_resume() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let stack = &bench.stack;
    let before = bench.held();
    let blocked = Unreachable::from_this_host(stack).await;
    // Relays by themselves end with keyroll. This one does not.
    inside(
        stack,
        "api",
        "mv /bin/bash /bin/relay; printf '#!/bin/sh\\n/bin/relay \"$@\"\\nexec sleep 1000\\n' > /bin/bash; chmod 755 /bin/bash",
    );
    let locked = Locked::row_of_the_role(stack);
    let count = async |what: &str| {
        let sql = format!("SELECT count(*) FROM {what}");
        stack.sql_value(&sql).await.ok()
    };
    eventually("the row is locked", LIMIT, async || {
        let held = "pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND granted";
        (count(held).await? == "1").then_some(())
    })
    .await
    .unwrap();

    let running = bench.spawn(&ROTATE);
    eventually("keyroll waits for the row", LIMIT, async || {
        let waits =
            "pg_stat_activity WHERE application_name LIKE 'keyroll/%' AND wait_event_type = 'Lock'";
        (count(waits).await? == "1").then_some(())
    })
    .await
    .unwrap();
    let killed = running.kill_hard().await.unwrap();
    assert_eq!(killed.signal, Some(9), "{killed:?}");
    drop(locked);
    let between = bench.held();
    let unfinished = bench.unfinished().await.expect("a rotation");
    let rotation = unfinished["rotation"].as_str().unwrap();
    eventually("the relay goes on", LIMIT, async || {
        let left = marked(rotation);
        left.iter().any(|p| p.contains("sleep 1000")).then_some(())
    })
    .await
    .unwrap();

    let resumed = bench.run(&["resume"]).await;

    assert_eq!(resumed.code, Some(DONE), "{resumed:?}");
    assert_eq!(marked(rotation), Vec::<String>::new(), "left running");
    drop(blocked);
    bench.one_set_in_force(&before, &between, "resumed").await;
}
