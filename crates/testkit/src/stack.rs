//! One running deployment.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyroll_secret::Secret;

use crate::command::{docker, docker_compose, output, stdout};
use crate::port::Port;
use crate::proxy::{self, Proxy};
use crate::{
    Container, Fault, Panel, Process, StackOptions, TestkitError, container, eventually,
    remove_project, sweep, tree,
};

/// How long compose may take to bring everything up, in seconds.
const UP_LIMIT: u16 = 90;
/// What compose calls a project whose compose file is in `infra/deploy`.
const FROM_DIRECTORY: &str = "deploy";
/// The line of the compose file after which the database's command goes.
const POSTGRES_IMAGE: &str = "    image: keyroll-sandbox-postgres:15\n";
/// The line of the compose file before which another service goes.
const AFTER_SERVICES: &str = "volumes:\n  postgres-data:\n";
/// The image every panel starts from.
const PANEL_IMAGE: &str = "keyroll-sandbox-panel:1";

/// A running deployment. Dropping it removes its containers, volume, network and files, which blocks for a second or so.
#[derive(Debug)]
pub struct Stack {
    project: String,
    root: PathBuf,
    port: u16,
    proxy: Option<Proxy>,
    role: String,
    database: String,
    env_files: Vec<PathBuf>,
    options: Kept,
    scratch: Option<Scratch>,
    left: bool,
}

/// The options that matter after the start.
#[derive(Debug)]
struct Kept {
    named_by_compose: bool,
    own_panel_image: bool,
    compose_v1: bool,
}

/// The scratch directory and its lock; the files are open, and locked, as long as the stack lives.
#[derive(Debug)]
struct Scratch {
    directory: PathBuf,
    lock: PathBuf,
    held: Vec<File>,
}

impl Stack {
    /// Starts a stack and waits until all its services are healthy: about 5 seconds. Stacks run side by side, also from several
    /// processes. What was started is removed again when the start fails.
    pub async fn start(options: StackOptions) -> Result<Self, TestkitError> {
        let random = random_hex()?;
        let port = Port::near(&random[..4])?;
        let (root, project, scratch) = if let Some((root, project)) = &options.place {
            (root.clone(), project.clone(), None)
        } else {
            let name = format!("keyroll-test-{}", &random[4..12]);
            let mut scratch = Scratch::make(&name)?;
            let project = if options.project_from_directory {
                scratch.held.push(hold_directory_name().await?);
                FROM_DIRECTORY.to_owned()
            } else {
                name
            };
            scratch.remember(&project)?;
            (scratch.directory.join("panel"), project, Some(scratch))
        };
        let mut stack = Self {
            project,
            root,
            port: port.number,
            proxy: None,
            role: String::new(),
            database: String::new(),
            env_files: Vec::new(),
            options: Kept {
                named_by_compose: options.project_from_directory,
                own_panel_image: options.own_panel_image,
                compose_v1: options.compose_v1,
            },
            scratch,
            left: false,
        };
        if let Some(scratch) = &mut stack.scratch {
            scratch.held.push(port.into_lock());
        }
        stack.write(options).await
    }

    /// Writes the files and starts.
    async fn write(mut self, options: StackOptions) -> Result<Self, TestkitError> {
        tree::write(&self.root, self.port, &options.chosen)?;
        let env_path = self.env_path();
        self.env_files.push(env_path.clone());
        if self.options.own_panel_image {
            let tag = sweep::own_tag(&self.project);
            stdout(&mut docker(["tag", PANEL_IMAGE, &tag])).await?;
            edit(&env_path, |text| {
                Ok(tree::with_value(text, "PANEL_IMAGE", &tag))
            })?;
        }
        for (key, value) in &options.env {
            edit(&env_path, |text| Ok(tree::with_value(text, key, value)))?;
        }
        for (path, content) in &options.env_files {
            let path = self.root.join(path);
            fs::write(&path, content).map_err(TestkitError::io(&path))?;
            self.env_files.push(path);
        }
        let mut compose_edits = options.compose_edits;
        if let Some(lookup) = options.proxy {
            let port = Port::near(&random_hex()?[..4])?;
            let proxy = Proxy::write(&self.root, port.number, lookup)?;
            let service = format!("{}{AFTER_SERVICES}", proxy.service());
            compose_edits.insert(0, (AFTER_SERVICES.to_owned(), service));
            self.proxy = Some(proxy);
            if let Some(scratch) = &mut self.scratch {
                scratch.held.push(port.into_lock());
            }
        }
        if !options.postgres_arguments.is_empty() {
            let arguments = options.postgres_arguments.join(" ");
            compose_edits.push((
                POSTGRES_IMAGE.to_owned(),
                format!("{POSTGRES_IMAGE}    command: postgres {arguments}\n"),
            ));
        }
        if !options.every_second {
            compose_edits.push(("interval: 1s".to_owned(), "interval: 2s".to_owned()));
        }
        for (from, to) in &compose_edits {
            edit(&self.compose_path(), |text| {
                if text.contains(from) {
                    Ok(text.replace(from, to))
                } else {
                    Err(TestkitError::Unexpected(format!(
                        "the compose file does not contain {from:?}"
                    )))
                }
            })?;
        }
        for change in options.prepare {
            change(&self.root)?;
        }
        self.role = self.env_text("POSTGRES_USER")?;
        self.database = self.env_text("POSTGRES_DB")?;

        self.up().await?;
        if options.md5_password {
            let password = self.env_text("POSTGRES_PASSWORD")?.replace('\'', "''");
            let role = &self.role;
            // Whatever the server logs, not this one statement.
            self.sql(&format!(
                "SET log_statement = 'none'; SET password_encryption = 'md5'; ALTER ROLE \"{role}\" PASSWORD '{password}';"
            ))
            .await?;
        }
        Ok(self)
    }

    /// Starts, or starts again, what the compose file describes, and waits until it is healthy.
    pub async fn up(&self) -> Result<(), TestkitError> {
        let limit = UP_LIMIT.to_string();
        let mut command = vec!["up", "-d"];
        if !self.options.compose_v1 {
            command.extend(["--wait", "--wait-timeout", &limit]);
        }
        let started = self.compose(&command).await;
        if let Err(TestkitError::Command { what, said }) = started {
            let logs = self
                .compose(&["logs", "--no-color", "--tail", "20"])
                .await
                .unwrap_or_default();
            return Err(TestkitError::Command {
                what,
                said: format!("{said}\n{logs}"),
            });
        }
        started?;
        if self.options.compose_v1 {
            self.all_healthy(Duration::from_secs(UP_LIMIT.into()))
                .await?;
        }
        Ok(())
    }

    /// Waits for what version 1 of compose does not wait for: every container with a health check.
    async fn all_healthy(&self, limit: Duration) -> Result<(), TestkitError> {
        // Not by `eventually`: a future with an async closure in it cannot be moved between threads yet.
        let end = Instant::now() + limit;
        loop {
            let containers = self.containers().await?;
            let well = |c: &Container| matches!(c.health.as_deref(), None | Some("healthy"));
            if containers.iter().all(well) {
                return Ok(());
            }
            if Instant::now() >= end {
                let what = "every service is healthy".to_owned();
                return Err(TestkitError::NotInTime { what, limit });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The compose project's name.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The root of the deployment, where `.env.production` is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The env file.
    pub fn env_path(&self) -> PathBuf {
        self.root.join(tree::ENV_FILE)
    }

    /// The compose file.
    pub fn compose_path(&self) -> PathBuf {
        self.root.join(tree::COMPOSE_FILE)
    }

    /// Where the panel is reached, such as `http://127.0.0.1:20001`, or its proxy, such as `https://panel.example.com:20001`.
    pub fn base_url(&self) -> String {
        self.proxy
            .as_ref()
            .map_or_else(|| self.own_url(), Proxy::url)
    }

    /// Where the panel itself listens.
    fn own_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a profile has to say for [`Self::base_url`] to be reached, as `key=value`: nothing without a proxy.
    pub(crate) fn way_to_the_panel(&self) -> impl Iterator<Item = OsString> {
        self.proxy.iter().flat_map(|proxy| {
            [
                format!("http.ca_file={}", proxy.authority.display()).into(),
                format!("http.connect_to={}", proxy::ADDRESS).into(),
            ]
        })
    }

    /// The database role that the stack uses.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The value of a key as the env files have it now; of several files the last one counts.
    pub fn env(&self, key: &str) -> Result<Secret, TestkitError> {
        for path in self.env_files.iter().rev() {
            let text = fs::read_to_string(path).map_err(TestkitError::io(path))?;
            if let Some(value) = tree::value(&text, key) {
                return Ok(value);
            }
        }
        Err(TestkitError::Unexpected(format!(
            "{key} is in no env file of {}",
            self.root.display()
        )))
    }

    fn env_text(&self, key: &str) -> Result<String, TestkitError> {
        self.env(key).map(|value| value.expose().to_owned())
    }

    /// A client of the panel, through its proxy if it has one.
    pub fn panel(&self) -> Result<Panel, TestkitError> {
        match &self.proxy {
            Some(proxy) => Panel::behind(proxy),
            None => self.panel_itself(),
        }
    }

    /// A client of the panel past its proxy.
    pub fn panel_itself(&self) -> Result<Panel, TestkitError> {
        Panel::new(self.own_url())
    }

    /// A switch for something that the panel gets wrong. `login-500`, `health-503`, `page-500`, `seed-noop`, `seed-exit1`,
    /// `seed-hang`, `seed-waits`, `start-fail`, `worker-start-fail`, `refresh-accept-any`, `access-accept-any`.
    ///
    /// # Panics
    ///
    /// For any other name.
    pub fn fault(&self, name: &str) -> Fault {
        Fault::new(&self.root.join(tree::FAULTS), name)
    }

    /// The arguments with which compose means this stack, before its command.
    pub fn compose_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if !self.options.named_by_compose {
            arguments.extend(["-p".to_owned(), self.project.clone()]);
        }
        for path in &self.env_files {
            arguments.extend(["--env-file".to_owned(), path.display().to_string()]);
        }
        arguments.extend(["-f".to_owned(), self.compose_path().display().to_string()]);
        arguments
    }

    /// Runs a compose command on the stack with a scrubbed environment; returns its standard output.
    pub async fn compose(&self, arguments: &[&str]) -> Result<String, TestkitError> {
        let mut compose = if self.options.compose_v1 {
            docker_compose(None::<&str>)
        } else {
            docker(["compose"])
        };
        compose
            .args(self.compose_arguments())
            .args(arguments)
            .current_dir(&self.root);
        stdout(&mut compose).await
    }

    /// All containers of the stack, also those that ended.
    pub async fn containers(&self) -> Result<Vec<Container>, TestkitError> {
        container::of_project(&self.project).await
    }

    /// The container of a service: the one that runs, if there are several.
    pub async fn container(&self, service: &str) -> Result<Container, TestkitError> {
        let mut found = self.containers().await?;
        found.retain(|c| c.service == service);
        found.sort_by_key(|c| c.state != "running");
        found.into_iter().next().ok_or_else(|| {
            TestkitError::Unexpected(format!("no container of {service} in {}", self.project))
        })
    }

    /// The name that compose gives the container of a service.
    pub fn container_name(&self, service: &str) -> String {
        let gap = if self.options.compose_v1 { '_' } else { '-' };
        format!("{}{gap}{service}{gap}1", self.project)
    }

    /// Waits until the container of a service is healthy.
    pub async fn healthy(&self, service: &str, limit: Duration) -> Result<(), TestkitError> {
        self.health_becomes(service, "healthy", limit).await
    }

    /// Waits until the engine finds the container of a service `healthy`, `unhealthy` or `starting`.
    pub async fn health_becomes(
        &self,
        service: &str,
        health: &str,
        limit: Duration,
    ) -> Result<(), TestkitError> {
        eventually(&format!("{service} is {health}"), limit, async || {
            let container = self.container(service).await.ok()?;
            (container.health.as_deref() == Some(health)).then_some(())
        })
        .await
    }

    /// What a service's container has written so far, standard output first.
    pub async fn logs(&self, service: &str) -> Result<String, TestkitError> {
        let name = self.container_name(service);
        let (out, err) = output(&mut docker(["logs", &name]), b"").await?;
        Ok(out + &err)
    }

    /// Everything that runs in a service's container now, also what `docker exec` started there.
    pub async fn processes(&self, service: &str) -> Result<Vec<Process>, TestkitError> {
        let name = self.container_name(service);
        let text = stdout(&mut docker(["top", &name, "-eo", "pid,args"])).await?;
        Ok(text
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some(Process {
                    pid: words.next()?.parse().ok()?,
                    arguments: words.map(str::to_owned).collect(),
                })
            })
            .collect())
    }

    /// Runs the seed in the running api container, as an operator would. Returns what it said.
    pub async fn seed(&self) -> Result<String, TestkitError> {
        let name = self.container_name("api");
        stdout(&mut docker(["exec", &name, "npm", "run", "prisma:seed"])).await
    }

    /// Moves the tag of the panel's image to a new image, as a build or a pull would. Nothing runs it yet. The stack needs
    /// [`StackOptions::own_panel_image`].
    pub async fn rebuild_panel_image(&self) -> Result<(), TestkitError> {
        if !self.options.own_panel_image {
            return Err(TestkitError::Unexpected(
                "all stacks share this panel image; start with own_panel_image()".to_owned(),
            ));
        }
        let recipe = format!("FROM {PANEL_IMAGE}\nLABEL rebuilt={}\n", random_hex()?);
        let tag = sweep::own_tag(&self.project);
        let mut build = docker(["build", "-q", "-t", &tag, "-"]);
        // The newer builder is a plugin of its own, which a bare machine lacks.
        build.env("DOCKER_BUILDKIT", "0");
        output(&mut build, recipe.as_bytes()).await.map(drop)
    }

    /// Lets the stack go on running after this value is gone.
    pub fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Some(scratch) = &self.scratch {
            sweep::remove_files(&self.project, &scratch.directory, &scratch.lock);
        } else {
            remove_project(&self.project);
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

impl Scratch {
    fn make(name: &str) -> Result<Self, TestkitError> {
        let directory = sweep::stacks().join(name);
        let lock = directory.with_extension("lock");
        fs::create_dir_all(&directory).map_err(TestkitError::io(&directory))?;
        let file = File::create_new(&lock).map_err(TestkitError::io(&lock))?;
        file.lock().map_err(TestkitError::io(&lock))?;
        Ok(Self {
            directory,
            lock,
            held: vec![file],
        })
    }

    /// Writes down which project is to be swept, before anything of it is there.
    fn remember(&mut self, project: &str) -> Result<(), TestkitError> {
        let lock = &self.lock;
        match self.held.first_mut() {
            Some(file) => file
                .write_all(project.as_bytes())
                .map_err(TestkitError::io(lock)),
            None => Ok(()),
        }
    }
}

/// Waits for the one project name that compose makes from the directory.
async fn hold_directory_name() -> Result<File, TestkitError> {
    let path = sweep::sandbox().join("deploy.lock");
    let waiting = path.clone();
    let file = tokio::task::spawn_blocking(move || {
        let file = File::create(&waiting)?;
        file.lock()?;
        Ok(file)
    })
    .await
    .unwrap_or_else(|e| Err(std::io::Error::other(e)))
    .map_err(TestkitError::io(&path))?;
    sweep::sweep()?;
    if container::of_project(FROM_DIRECTORY).await?.is_empty() {
        Ok(file)
    } else {
        Err(TestkitError::Unexpected(format!(
            "a compose project {FROM_DIRECTORY:?} that is not of the sandbox exists on this machine"
        )))
    }
}

fn edit(
    path: &Path,
    change: impl FnOnce(&str) -> Result<String, TestkitError>,
) -> Result<(), TestkitError> {
    let text = fs::read_to_string(path).map_err(TestkitError::io(path))?;
    fs::write(path, change(&text)?).map_err(TestkitError::io(path))
}

/// 32 random hex digits, from the kernel.
fn random_hex() -> Result<String, TestkitError> {
    let path = "/proc/sys/kernel/random/uuid";
    let uuid = fs::read_to_string(path).map_err(TestkitError::io(path))?;
    Ok(uuid.trim().replace('-', ""))
}
