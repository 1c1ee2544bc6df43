//! A stack, keyroll beside it, and ways to say "everything is as it was" with other eyes than keyroll's.
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part"
)]

mod terminal;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyroll_secret::Secret;
use keyroll_testkit::{
    Container, DbLogin, Door, Keyroll, Panel, Run, Running, Stack, StackOptions, Tokens, eventually,
};
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
pub(crate) const DONE: Option<i32> = Some(0);
pub(crate) const USAGE: Option<i32> = Some(2);
pub(crate) const REFUSED: Option<i32> = Some(3);
pub(crate) const ROLLED_BACK: Option<i32> = Some(4);
pub(crate) const STUCK: Option<i32> = Some(5);
pub(crate) const ROLLED_BACK_AFTER_INCIDENT: Option<i32> = Some(6);
pub(crate) const UNFINISHED: Option<i32> = Some(7);
/// The line with which a rotation turns back.
pub(crate) const GOING_BACK: &str = "going back to the old set";
/// How long anything that a test waits for may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A running stack and the program.
pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) keyroll: Keyroll,
    pub(crate) panel: Panel,
    pub(crate) email: String,
}

/// Everything that a refused or taken back rotation must leave as it was.
pub(crate) struct Before {
    pub(crate) env: Vec<u8>,
    pub(crate) values: Vec<Secret>,
    owner: (u32, u32, u32),
    inode: u64,
    containers: Vec<(String, String, String)>,
    verifier: Secret,
    admin_hash: Secret,
    pub(crate) tokens: Option<Tokens>,
}

impl Before {
    pub(crate) fn value(&self, name: &str) -> &Secret {
        let at = SECRETS.iter().position(|s| *s == name).expect("a secret");
        &self.values[at]
    }
}

/// What happens when a text appears in what keyroll says.
pub(crate) struct Moment<'a> {
    at: &'static str,
    what: Box<dyn FnMut() + 'a>,
}

/// Does `what` as soon as keyroll has said `at`.
pub(crate) fn at<'a>(at: &'static str, what: impl FnMut() + 'a) -> Moment<'a> {
    Moment {
        at,
        what: Box::new(what),
    }
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
            email: stack.env("ADMIN_EMAIL").unwrap().expose().to_owned(),
            stack,
        }
    }

    /// A command for this stack.
    pub(crate) fn arguments(&self, command: &[&str]) -> Vec<OsString> {
        // What a test says itself comes last, and wins.
        let (name, rest) = command.split_first().expect("a command");
        let mut all: Vec<OsString> = vec![name.into()];
        for pair in self.keyroll.stack_arguments(&self.stack).chunks(2) {
            if pair[0] == "--set" || !rest.iter().any(|own| pair[0] == *own) {
                all.extend_from_slice(pair);
            }
        }
        all.extend(rest.iter().map(Into::into));
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

    /// Runs a command, and kills it as soon as it says this.
    pub(crate) async fn killed_when(&self, command: &[&str], says: &str) {
        let running = self.spawn(command);
        running.says(says).await.unwrap();
        running.kill_hard().await.unwrap();
    }

    /// Runs a command that must end with 0, and reads its JSON.
    pub(crate) async fn json(&self, command: &[&str]) -> Value {
        let run = self.run(&[command, &["--json"]].concat()).await;
        assert_eq!(run.code, DONE, "{command:?}: {run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Rotates, and does things on the way, each once, in this order.
    pub(crate) async fn interfere(&self, command: &[&str], moments: Vec<Moment<'_>>) -> Run {
        let running = self.spawn(command);
        for mut moment in moments {
            running.says(moment.at).await.unwrap();
            running.suspend().unwrap();
            (moment.what)();
            running.proceed().unwrap();
        }
        running.wait(Duration::from_secs(180)).await.unwrap()
    }

    /// Rotates everything, which must complete; what keyroll answers.
    pub(crate) async fn rotate(&self) -> Value {
        self.json(&ROTATE).await
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.keyroll.home().join(name)
    }

    pub(crate) async fn login(&self, password: &Secret) -> u16 {
        self.panel
            .login(&self.email, password)
            .await
            .unwrap()
            .status
    }

    pub(crate) async fn tokens(&self) -> Tokens {
        let password = self.stack.env("ADMIN_PASSWORD").unwrap();
        let reply = self.panel.login(&self.email, &password).await.unwrap();
        reply.tokens.expect("the admin logs in")
    }

    /// Looks at everything, and opens a session whose fate can be watched.
    pub(crate) async fn before(&self) -> Before {
        let tokens = self.tokens().await;
        let mut before = self.before_without_login().await;
        before.tokens = Some(tokens);
        before
    }

    pub(crate) async fn before_without_login(&self) -> Before {
        Before {
            env: fs::read(self.stack.env_path()).unwrap(),
            values: self.in_force(),
            owner: owner(&self.stack.env_path()),
            inode: fs::symlink_metadata(self.stack.env_path()).unwrap().ino(),
            containers: self.container_ids().await,
            verifier: self.verifier().await,
            admin_hash: Secret::new(self.stack.admin_hash().await.unwrap()),
            tokens: None,
        }
    }

    /// The values that the env file holds now.
    pub(crate) fn in_force(&self) -> Vec<Secret> {
        let names = SECRETS.iter();
        names.map(|name| self.stack.env(name).unwrap()).collect()
    }

    pub(crate) async fn verifier(&self) -> Secret {
        Secret::new(self.stack.stored_verifier().await.unwrap())
    }

    async fn container_ids(&self) -> Vec<(String, String, String)> {
        let containers = self.stack.containers().await.unwrap().into_iter();
        let mut all: Vec<_> = containers
            .map(|c| (c.service, c.id, c.started_at))
            .collect();
        all.sort();
        all
    }

    /// No container was recreated since, and none was added or taken away.
    pub(crate) async fn same_containers(&self, since: &[Container]) {
        let now = self.stack.containers().await.unwrap();
        assert_eq!(now.len(), since.len(), "containers");
        for (then, now) in since.iter().zip(&now) {
            assert_eq!(then.id, now.id, "{} was recreated", now.name);
        }
    }

    /// A refusal changed nothing: file (not even rewritten), containers (not even restarted), database, no backup.
    pub(crate) async fn nothing_changed(&self, before: &Before) {
        let now = self.before_without_login().await;
        assert!(now.env == before.env, "the env file changed");
        assert_eq!(
            (now.owner, now.inode),
            (before.owner, before.inode),
            "the env file was rewritten"
        );
        assert_eq!(now.containers, before.containers, "containers");
        assert!(now.verifier.same_as(&before.verifier), "the verifier");
        assert!(now.admin_hash.same_as(&before.admin_hash), "the admin");
        let backups = fs::read_dir(self.home("backups")).into_iter().flatten();
        assert_eq!(backups.count(), 0, "a backup was begun");
    }

    /// A command is refused with this code, says all of `says`, and changes nothing.
    pub(crate) async fn refuses(&self, command: &[&str], code: &str, says: &[&str]) {
        let before = self.before_without_login().await;
        self.refuses_since(&before, command, code, says).await;
    }

    pub(crate) async fn refuses_since(
        &self,
        before: &Before,
        command: &[&str],
        code: &str,
        says: &[&str],
    ) {
        let run = self.run(command).await;
        assert_eq!(run.code, REFUSED, "{run:?}");
        assert!(
            run.stderr.contains("refused, nothing was changed")
                && run.stderr.contains(&format!("  {code}: ")),
            "not refused as {code}: {run:?}"
        );
        for word in says {
            assert!(run.stderr.contains(word), "{word:?} is not in {run:?}");
        }
        for value in &before.values {
            assert!(!run.stderr.contains(value.expose()), "a value was told");
        }
        self.nothing_changed(before).await;
    }

    /// The stack is on the old set in every respect, well, and can be rotated next.
    pub(crate) async fn old_set_is_back(&self, before: &Before) {
        assert!(
            fs::read(self.stack.env_path()).unwrap() == before.env,
            "the env file is not byte for byte as before"
        );
        self.old_set_but_for_the_file(before).await;
    }

    /// The same where an operator edited the env file meanwhile.
    pub(crate) async fn old_set_but_for_the_file(&self, before: &Before) {
        assert_eq!(owner(&self.stack.env_path()), before.owner, "owner, mode");
        for service in ["postgres", "api", "worker"] {
            self.stack.healthy(service, LIMIT).await.unwrap();
        }
        self.runs(&before.values).await;
        assert!(
            self.verifier().await.same_as(&before.verifier),
            "the verifier is not the old one verbatim"
        );
        assert_eq!(
            self.stack.admin_hash().await.unwrap(),
            before.admin_hash.expose(),
            "the admin's hash"
        );
        let postgres = |all: &[(String, String, String)]| {
            let found = all.iter().find(|(service, ..)| service == "postgres");
            found.map(|(_, id, _)| id.clone())
        };
        assert_eq!(
            postgres(&self.container_ids().await),
            postgres(&before.containers),
            "the database container"
        );
        if let Some(tokens) = &before.tokens {
            assert_eq!(self.access(&tokens.access).await, 200, "an old session");
            assert_eq!(self.refresh(&tokens.refresh).await, 200, "an old session");
        }
        let beside: Vec<_> = names_in(self.stack.root());
        assert!(
            !beside
                .iter()
                .any(|n| n.contains("keyroll") || n.contains(".env.production.")),
            "left beside the env file: {beside:?}"
        );
        let plan = self.run(&["plan", "production"]).await;
        assert_eq!(plan.code, DONE, "the next rotation is possible: {plan:?}");
    }

    /// Every value is another than before, and they are in force.
    pub(crate) async fn runs_new_values(&self, before: &Before) {
        let new = self.in_force();
        for (name, (old, new)) in SECRETS.iter().zip(before.values.iter().zip(&new)) {
            assert!(!old.same_as(new), "{name} is the old one");
        }
        self.runs(&new).await;
    }

    /// These values, and no others, are in force: containers, database, admin.
    pub(crate) async fn runs(&self, values: &[Secret]) {
        let [access, refresh, database, admin] = values else {
            panic!("four values");
        };
        let api = self.stack.container("api").await.unwrap();
        for (key, value) in SECRETS.iter().zip(values) {
            assert!(api.env[*key].same_as(value), "api has another {key}");
        }
        let inside = format!(":{}@", database.percent_encoded().expose());
        assert!(
            api.env["DATABASE_URL"].expose().contains(&inside),
            "api has another password in DATABASE_URL"
        );
        let worker = self.stack.container("worker").await.unwrap();
        assert!(worker.env["PGPASSWORD"].same_as(database), "worker");
        assert_eq!(
            self.stack.db_login(database, Door::Network).await,
            DbLogin::Accepted
        );
        assert_eq!(self.login(admin).await, 200, "the admin's login");
        let _ = (access, refresh);
    }

    pub(crate) async fn access(&self, token: &Secret) -> u16 {
        self.panel.page("/profile", Some(token)).await.unwrap()
    }

    pub(crate) async fn refresh(&self, token: &Secret) -> u16 {
        self.panel.refresh(token).await.unwrap().status
    }

    /// The last rotation's record in the trail: how it ended and why.
    pub(crate) async fn trail_says(&self, ending: &str, words: &[&str]) {
        let verify = self.run(&["audit", "verify"]).await;
        assert_eq!(verify.code, DONE, "{verify:?}");
        let all = self.run(&["audit", "list", "--json"]).await;
        let line = all.stdout.lines().last().expect("a record");
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(
            record.to_string().to_lowercase().contains(ending),
            "{record}"
        );
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {record}");
        }
        let sequence = record["sequence"].to_string();
        let show = self.run(&["audit", "show", &sequence]).await;
        assert_eq!(show.code, DONE, "{show:?}");
    }

    /// Opens a transaction that has done this and goes no further, such as taking a lock.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        let (name, stack) = (self.stack.container_name("postgres"), &self.stack);
        let psql = ["exec", "-i", &name, "psql", "-qAt", "-U", stack.role()];
        let mut child = Command::new("docker")
            .args([&psql[..], &["-d", stack.database()]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = format!("BEGIN;\n{sql};\n\\echo held\n");
        let input = child.stdin.as_mut().unwrap();
        input.write_all(begin.as_bytes()).unwrap();
        let said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let held = said.map_while(Result::ok).any(|line| line == "held");
        assert!(held, "{sql}: psql left");
        Held(child)
    }

    /// The row of the role's password, locked by somebody else.
    pub(crate) fn hold_the_role(&self) -> Held {
        let role = self.stack.role();
        self.hold(&format!("ALTER ROLE \"{role}\" CONNECTION LIMIT -1"))
    }

    /// The server process of a session of keyroll's, once it waits for this: `Lock`, `SyncRep`.
    pub(crate) async fn waits_for(&self, what: &str) -> String {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'keyroll/%' AND '{what}' IN (wait_event, wait_event_type)"
        );
        let waits = async || self.stack.sql_value(&sql).await.ok();
        eventually("keyroll waits", LIMIT, waits).await.unwrap()
    }

    /// Runs a shell line inside a service's container, as root; returns what it printed.
    pub(crate) fn inside(&self, service: &str, line: &str) -> String {
        docker(&[
            "exec",
            "-u",
            "0",
            &self.stack.container_name(service),
            "sh",
            "-ec",
            line,
        ])
    }
}

/// A transaction of somebody else's, open until dropped.
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of its input psql leaves, and the server rolls back.
        drop(self.0.stdin.take());
        let end = Instant::now() + LIMIT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs docker, which must succeed; returns what it printed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    run("docker", arguments)
}

/// Runs a program, which must succeed; returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Brings back what a rotation's backup has, without asking.
pub(crate) fn restore<'a>(rotation: &'a str, what: &'a str) -> [&'a str; 6] {
    [
        "rollback",
        rotation,
        what,
        "--yes",
        "--confirm-restore",
        rotation,
    ]
}

/// It went back, and said so.
pub(crate) fn went_back(run: &Run) {
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert!(run.stdout.contains("Compensated"), "{run:?}");
    assert!(run.stderr.contains(GOING_BACK), "{run:?}");
}

/// A file system of its own on a directory, until dropped.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Needs root, as the engine does.
    pub(crate) fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size},mode=0700");
        let path = at.to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path]);
        Self(at)
    }

    /// The same over a directory whose content comes along.
    pub(crate) fn take_over(at: &Path, size: &str) -> Self {
        let aside = at.with_extension("aside");
        let (path, kept) = (at.to_str().unwrap(), aside.to_str().unwrap());
        run("cp", &["-a", path, kept]);
        let mounted = Self::mount(at.to_owned(), size);
        run("cp", &["-a", &format!("{kept}/."), path]);
        fs::remove_dir_all(&aside).unwrap();
        mounted
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Mounts it anew with these options, such as `ro`.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.path()]);
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Takes what [`Tmpfs::fill`] put there away.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A container that is removed when dropped.
pub(crate) struct Stranger(pub(crate) String);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.0]).output();
    }
}

pub(crate) fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Appends to a file as an editor would: in place.
pub(crate) fn append(path: &Path, text: &str) {
    let old = fs::read_to_string(path).unwrap();
    fs::write(path, old + text).unwrap();
}
