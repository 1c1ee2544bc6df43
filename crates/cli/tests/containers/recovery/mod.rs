//! One stack that is rotated over and over, killed in between, and looked at with other eyes than keyroll's.
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyroll_secret::Secret;
use keyroll_testkit::{DbLogin, Door, Keyroll, Panel, Run, Running, Stack, StackOptions};
use serde_json::Value;

/// What `production` rotates.
pub(crate) const SECRETS: [&str; 4] = [
    "JWT_SECRET",
    "JWT_REFRESH_SECRET",
    "POSTGRES_PASSWORD",
    "ADMIN_PASSWORD",
];
/// Rotates everything without asking.
pub(crate) const ROTATE: [&str; 3] = ["rotate", "production", "--yes"];
/// Exit codes of keyroll (`keyroll --help`).
pub(crate) const DONE: i32 = 0;
pub(crate) const REFUSED: i32 = 3;
pub(crate) const ROLLED_BACK: i32 = 4;
pub(crate) const STUCK: i32 = 5;

/// The values that an env file held at one moment.
#[derive(Clone)]
pub(crate) struct Held {
    text: String,
    values: Vec<Secret>,
}

impl Held {
    pub(crate) fn value(&self, name: &str) -> &Secret {
        let at = SECRETS.iter().position(|s| *s == name).expect("a secret");
        &self.values[at]
    }

    pub(crate) fn values(&self) -> &[Secret] {
        &self.values
    }

    fn same(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A stack, keyroll's files beside it, and the program.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) keyroll: Keyroll,
    pub(crate) panel: Panel,
    binary: PathBuf,
    email: Secret,
    beside: BTreeSet<OsString>,
}

impl Bench {
    /// Starts a stack. The program is kept under a second name: a build that runs meanwhile replaces the first one.
    pub(crate) async fn start(options: StackOptions) -> Self {
        let stack = Stack::start(options).await.unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_keyroll"));
        let binary = stack.root().with_file_name("keyroll");
        if fs::hard_link(built, &binary).is_err() {
            fs::copy(built, &binary).unwrap();
        }
        Self {
            keyroll: Keyroll::new(&binary).unwrap(),
            panel: stack.panel().unwrap(),
            email: stack.env("ADMIN_EMAIL").unwrap(),
            beside: names_in(stack.root()),
            binary,
            stack,
        }
    }

    /// The program's temporary files go to `tmp` in its home, where a test can see them.
    pub(crate) fn with_temporary_directory(mut self) -> Self {
        let directory = self.keyroll.home().join("tmp");
        fs::create_dir(&directory).unwrap();
        self.keyroll = self.keyroll.env("TMPDIR", directory);
        self
    }

    /// A command for this stack.
    pub(crate) fn arguments(&self, command: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = command.iter().map(Into::into).collect();
        all.extend(self.keyroll.stack_arguments(&self.stack));
        all
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, command: &[&str]) -> Run {
        self.keyroll.run(self.arguments(command)).await.unwrap()
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, command: &[&str]) -> Running {
        self.keyroll.spawn(self.arguments(command)).unwrap()
    }

    /// Runs a command with the fault hook set to `at`, such as `before:7`.
    pub(crate) async fn run_killed(&self, command: &[&str], at: &str) -> Run {
        let hooked = Keyroll::new(&self.binary).unwrap().env("KEYROLL_KILL", at);
        hooked.run(self.arguments(command)).await.unwrap()
    }

    /// Rotates until this is said, and kills it then.
    pub(crate) async fn killed_at(&self, moment: &str) {
        let running = self.spawn(&ROTATE);
        running.says(moment).await.unwrap();
        let killed = running.kill_hard().await.unwrap();
        assert_eq!(killed.signal, Some(9), "{moment}: {killed:?}");
    }

    /// Rotates, and gets stuck: no login works from the recreation on, until it has ended.
    pub(crate) async fn gets_stuck(&self) {
        let fault = self.stack.fault("login-500");
        let seed = self.stack.fault("seed-waits");
        seed.set();
        let running = self.spawn(&ROTATE);
        running.says("recreate: done").await.unwrap();
        fault.set();
        seed.clear();
        let stuck = running.wait(Duration::from_secs(180)).await.unwrap();
        assert_eq!(stuck.code, Some(STUCK), "{stuck:?}");
        fault.clear();
    }

    /// What the env file holds now.
    pub(crate) fn held(&self) -> Held {
        Held {
            text: fs::read_to_string(self.stack.env_path()).unwrap(),
            values: SECRETS
                .iter()
                .map(|name| self.stack.env(name).unwrap())
                .collect(),
        }
    }

    /// The unfinished rotation as `status` tells it.
    pub(crate) async fn unfinished(&self) -> Option<Value> {
        let status = self.run(&["status", "--json"]).await;
        assert_eq!(status.code, Some(DONE), "{status:?}");
        let mut report: Value = serde_json::from_str(&status.stdout).unwrap();
        let unfinished = report["unfinished"].take();
        (!unfinished.is_null()).then_some(unfinished)
    }

    /// What a killed run left, resumed and looked at in full. `before` is what was in force when it began.
    pub(crate) async fn recover(&self, before: &Held, what: &str) -> Recovered {
        if let Some(unfinished) = self.unfinished().await {
            let id = unfinished["rotation"].as_str().unwrap();
            self.refuses_everything_but_resume(id, what).await;
        }
        self.resume(before, what).await
    }

    /// [`Bench::recover`], without trying what must be refused meanwhile.
    pub(crate) async fn resume(&self, before: &Held, what: &str) -> Recovered {
        let between = self.held();
        let unfinished = self.unfinished().await;
        let began = Instant::now();
        let resumed = self.run(&["resume"]).await;
        let took = began.elapsed();
        assert!(
            matches!(resumed.code, Some(DONE | ROLLED_BACK)),
            "{what}: resume ended with {resumed:?}"
        );
        let after = self.held();
        if resumed.code == Some(ROLLED_BACK) {
            assert!(
                after.same(before),
                "{what}: rolled back to another env file"
            );
        } else if unfinished.is_some() {
            assert!(!after.same(before), "{what}: completed with the old file");
        }
        self.one_set_in_force(before, &between, what).await;
        if let Some(id) = unfinished.as_ref().and_then(|u| u["rotation"].as_str()) {
            assert_eq!(marked(id), Vec::<String>::new(), "{what}: left running");
            let trail = self.run(&["audit", "list", "--json"]).await.stdout;
            let records = trail.lines().filter(|line| line.contains(id)).count();
            assert_eq!(records, 1, "{what}: in the trail:\n{trail}");
        }
        Recovered {
            unfinished,
            resumed,
            took,
        }
    }

    async fn refuses_everything_but_resume(&self, id: &str, what: &str) {
        for command in [
            &["plan", "production"][..],
            &["rotate", "JWT_SECRET", "--yes"],
            &["rollback", id, "--yes"],
            &["verify"],
        ] {
            let run = self.run(command).await;
            assert_eq!(run.code, Some(REFUSED), "{what}: {command:?}: {run:?}");
            assert!(
                run.stderr.contains("is not finished") && run.stderr.contains("keyroll resume"),
                "{what}: {command:?}: {run:?}"
            );
        }
    }

    /// Exactly one complete set is in force, the one in the env file: asked of the file, the database, the panel and the
    /// containers. Every other set of `others` is dead.
    pub(crate) async fn one_set_in_force(&self, before: &Held, between: &Held, what: &str) {
        let now = self.held();
        file_holds_one_set(before, &now, what);

        let mut dead: Vec<&Held> = vec![];
        for held in [before, between] {
            if !held.same(&now) && !dead.iter().any(|d| d.same(held)) {
                dead.push(held);
            }
        }
        for held in &dead {
            self.refused(held, what).await;
        }
        let database = now.value("POSTGRES_PASSWORD");
        assert_eq!(
            self.stack.db_login(database, Door::Network).await,
            DbLogin::Accepted,
            "{what}: the database"
        );
        assert_eq!(
            self.login(now.value("ADMIN_PASSWORD")).await,
            200,
            "{what}: the admin"
        );
        self.containers_run(&now, what).await;
        assert_eq!(
            names_in(self.stack.root()),
            self.beside,
            "{what}: left beside the env file"
        );
        assert_eq!(self.unfinished().await, None, "{what}");
        let trail = self.run(&["audit", "verify"]).await;
        assert_eq!(trail.code, Some(DONE), "{what}: {trail:?}");
    }

    async fn refused(&self, held: &Held, what: &str) {
        let database = held.value("POSTGRES_PASSWORD");
        assert_eq!(
            self.stack.db_login(database, Door::Network).await,
            DbLogin::Refused,
            "{what}: the database and the other set"
        );
        assert_eq!(
            self.login(held.value("ADMIN_PASSWORD")).await,
            401,
            "{what}: the admin of the other set"
        );
    }

    async fn login(&self, password: &Secret) -> u16 {
        self.panel
            .login(self.email.expose(), password)
            .await
            .unwrap()
            .status
    }

    async fn containers_run(&self, now: &Held, what: &str) {
        let containers = self.stack.containers().await.unwrap();
        let mut services: Vec<&str> = containers.iter().map(|c| c.service.as_str()).collect();
        services.sort_unstable();
        assert_eq!(
            services,
            ["api", "migrate", "postgres", "worker"],
            "{what}: containers"
        );
        for (service, pairs) in [
            ("api", &SECRETS.map(|s| (s, s))[..]),
            ("worker", &[("PGPASSWORD", "POSTGRES_PASSWORD")]),
        ] {
            let container = containers.iter().find(|c| c.service == service).unwrap();
            assert_eq!(
                container.health.as_deref(),
                Some("healthy"),
                "{what}: {service}"
            );
            assert_eq!(
                container.name,
                self.stack.container_name(service),
                "{what}: compose's own name for a container it was replacing"
            );
            for (key, secret) in pairs {
                assert!(
                    container.env[*key].same_as(now.value(secret)),
                    "{what}: {service} has another {key} than the env file"
                );
            }
        }
        let url = containers
            .iter()
            .find(|c| c.service == "api")
            .map(|c| &c.env["DATABASE_URL"])
            .unwrap();
        let password = now.value("POSTGRES_PASSWORD").percent_encoded();
        assert!(
            url.expose().contains(&format!(":{}@", password.expose())),
            "{what}: the url of api has another password"
        );
    }
}

/// How a recovery went.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// What `status` said before.
    pub(crate) unfinished: Option<Value>,
    pub(crate) resumed: Run,
    /// From the start of the program to its end.
    pub(crate) took: Duration,
}

/// The file is the old one with none or all four values replaced, and the URL holds the password.
fn file_holds_one_set(before: &Held, now: &Held, what: &str) {
    let changed: Vec<&str> = SECRETS
        .into_iter()
        .filter(|name| !before.value(name).same_as(now.value(name)))
        .collect();
    assert!(
        changed.is_empty() || changed == SECRETS,
        "{what}: only {changed:?} changed"
    );
    let mut expected = before.text.clone();
    for name in SECRETS {
        let (old, new) = (before.value(name), now.value(name));
        expected = expected
            .replace(
                old.percent_encoded().expose(),
                new.percent_encoded().expose(),
            )
            .replace(old.expose(), new.expose());
    }
    assert!(expected == now.text, "{what}: something else changed too");
}

/// The names in a directory.
fn names_in(directory: &Path) -> BTreeSet<OsString> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

/// A process that carries a rotation's mark.
pub(crate) fn marked(rotation: &str) -> Vec<String> {
    processes_with(&format!("KEYROLL_ROTATION={rotation}"))
        .into_iter()
        .map(|(pid, _)| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!(
                "{pid} {}",
                String::from_utf8_lossy(&cmdline).replace('\0', " ")
            )
        })
        .collect()
}

/// Living processes with this variable in their environment: number and name.
pub(crate) fn processes_with(variable: &str) -> Vec<(u32, String)> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            // Empty for one that has ended and was not awaited.
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment
                .split(|byte| *byte == 0)
                .any(|v| v == variable.as_bytes())
                .then_some(())?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        })
        .collect()
}
