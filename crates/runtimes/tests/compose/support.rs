//! A small stack of one's own in a scratch directory, and looking at it with other eyes than the crate's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keyroll_runtimes::compose::{Cli, Container, Engine, Project, Surroundings, Wanted};

/// The image that the sandbox is built on; `cargo xtask images` makes it.
pub(crate) const IMAGE: &str = "keyroll-sandbox-base:latest";

/// Whether tests against containers run: then a missing engine fails them.
pub(crate) fn wanted() -> bool {
    let wanted = std::env::var_os("KEYROLL_CONTAINER_TESTS").is_some_and(|v| v == "1");
    if !wanted {
        println!("skipped: container tests run with `cargo xtask test`");
    }
    wanted
}

/// A name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("krt-{what}-{}-{n}", std::process::id())
}

/// A stack, taken down when dropped.
pub(crate) struct Stack {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) options: Vec<String>,
    /// Image references that are removed at the end.
    pub(crate) images: Vec<String>,
}

impl Stack {
    /// Writes `compose.yml` and `.env.production` and starts them with `--env-file`. `IMAGE` in the file is replaced.
    pub(crate) fn start(what: &str, compose: &str, env: &str) -> Self {
        let stack = Self::write(what, compose, env);
        stack.compose(&["up", "-d"]);
        stack
    }

    pub(crate) fn write(what: &str, compose: &str, env: &str) -> Self {
        let name = unique(what);
        let dir = tempfile::Builder::new().prefix("krt-").tempdir().unwrap();
        let options = [
            "-p",
            &name,
            "-f",
            &dir.path().join("infra/compose.yml").to_string_lossy(),
            "--env-file",
            &dir.path().join(".env.production").to_string_lossy(),
        ]
        .map(str::to_owned)
        .into();
        let stack = Self {
            dir,
            name,
            options,
            images: vec![],
        };
        std::fs::create_dir(stack.path("infra")).unwrap();
        stack.put("infra/compose.yml", &compose.replace("IMAGE", IMAGE));
        stack.put(".env.production", env);
        stack
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// An own image reference that names the same image as `IMAGE`, removed at the end.
    pub(crate) fn own_image(&mut self) -> String {
        let reference = format!("{}:1", unique("image"));
        docker(&["tag", IMAGE, &reference]);
        self.images.push(reference.clone());
        reference
    }

    /// `docker compose` of this stack, as an operator would call it.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        let mut all: Vec<&str> = vec!["compose"];
        all.extend(self.options.iter().map(String::as_str));
        all.extend(arguments);
        docker(&all)
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            root: self.dir.path().to_owned(),
            config_files: vec!["infra/compose.yml".into()],
            env_files: vec![".env.production".into()],
            project: None,
        }
    }

    pub(crate) async fn engine(&self) -> Engine {
        engine().await
    }

    pub(crate) async fn cli(&self) -> (Engine, Cli) {
        let engine = engine().await;
        let project = Project::discover(&engine, &self.wanted()).await.unwrap();
        assert_eq!(project.name, self.name);
        let cli = Cli::connect(&engine, project, surroundings())
            .await
            .unwrap();
        (engine, cli)
    }

    pub(crate) async fn containers(&self, engine: &Engine) -> Vec<Container> {
        engine.containers(&self.name).await.unwrap()
    }

    pub(crate) async fn container(&self, engine: &Engine, service: &str) -> Container {
        let all = self.containers(engine).await;
        all.into_iter().find(|c| c.service == service).unwrap()
    }
}

/// A stack of one container that does nothing: itself, the engine, and the container's id.
pub(crate) async fn one_service(what: &str) -> (Stack, Engine, String) {
    const COMPOSE: &str = "services:\n  s: {image: IMAGE, command: [sleep, infinity], init: true, stop_grace_period: 0s}\n";
    let stack = Stack::start(what, COMPOSE, "A=1\n");
    let engine = stack.engine().await;
    let id = stack.container(&engine, "s").await.id;
    (stack, engine, id)
}

impl Drop for Stack {
    fn drop(&mut self) {
        let quiet = |arguments: &[&str]| drop(command(arguments).output());
        let project = format!("label=com.docker.compose.project={}", self.name);
        let listed = command(&["ps", "-aq", "--filter", &project]).output();
        let ids = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for id in ids.unwrap_or_default().split_whitespace() {
            quiet(&["rm", "-f", "-v", id]);
        }
        quiet(&[
            "compose",
            "-p",
            &self.name,
            "down",
            "-v",
            "-t",
            "0",
            "--remove-orphans",
        ]);
        for image in &self.images {
            quiet(&["rmi", "-f", image]);
        }
    }
}

pub(crate) async fn engine() -> Engine {
    let found = Engine::connect(Path::new(Engine::DEFAULT_SOCKET)).await;
    found.expect("KEYROLL_CONTAINER_TESTS=1 needs an engine: `cargo xtask setup`")
}

pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        path: std::env::var_os("PATH").unwrap_or_default(),
        home: std::env::var_os("HOME"),
        docker_config: std::env::var_os("DOCKER_CONFIG"),
        rotation: None,
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).env_clear();
    for name in ["PATH", "HOME", "DOCKER_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// `docker`, whose failure fails the test.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let done = command(arguments).output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(
        done.status.success(),
        "docker {arguments:?}: {}",
        text(&done.stderr)
    );
    text(&done.stdout)
}

/// Looks until it is true, for 20 seconds at most.
pub(crate) async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !look().await {
        assert!(Instant::now() < end, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
