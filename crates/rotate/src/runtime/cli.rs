//! `docker compose`, called with nothing of keyroll's own environment: an exported variable would beat the env file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use keyroll_secret::{Redactor, Secret};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::about::ProjectFact;

/// Time for a command that only reads files.
const QUICK: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Cli {
    project: ProjectFact,
    socket: PathBuf,
    mark: String,
    redactor: Redactor,
}

/// The configuration hash that compose wants for a service: as a plain `up` makes it, and as `up --no-deps` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) full: String,
    alone: String,
}

impl Wanted {
    /// Whether a container with this hash is as it should be.
    pub(crate) fn fits(&self, hash: &str) -> bool {
        self.full == hash || self.alone == hash
    }
}

/// The wanted hashes by service.
pub(crate) type Hashes = BTreeMap<String, Wanted>;

/// A service as compose resolved it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) environment: BTreeMap<String, Secret>,
    pub(crate) image: Option<String>,
    /// Everything else that compose says about it, with `$$` taken for `$`.
    pub(crate) rest: Value,
}

impl Cli {
    pub(crate) fn new(project: ProjectFact, socket: &Path, mark: &str, redactor: Redactor) -> Self {
        Self {
            project,
            socket: socket.to_owned(),
            mark: mark.to_owned(),
            redactor,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("KEYROLL_ROTATION", &self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for keyroll to hear; it would end compose in the middle.
            .process_group(0)
            .kill_on_drop(true)
            .arg("compose");
        command
    }

    fn on_project(&self, env_files: &[PathBuf]) -> Command {
        let mut command = self.command();
        command.args(["--ansi", "never", "--progress", "quiet"]);
        command
            .arg("-p")
            .arg(&self.project.name)
            .arg("--project-directory")
            .arg(&self.project.working_dir);
        for file in &self.project.config_files {
            command.arg("-f").arg(file);
        }
        for file in env_files {
            command.arg("--env-file").arg(file);
        }
        command
    }

    async fn run(&self, command: Command, limit: Duration) -> Result<Vec<u8>, String> {
        self.feed(command, &[], limit).await
    }

    /// Runs a command with this on its standard input, to its end.
    async fn feed(
        &self,
        mut command: Command,
        input: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, String> {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .map_err(|e| format!("docker could not be started: {e}"))?;
        let stdin = child.stdin.take();
        let work = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A child that ends early says why by its status.
                    let _ = stdin.write_all(input).await;
                }
            };
            tokio::join!(feed, child.wait_with_output()).1
        };
        let output = match tokio::time::timeout(limit, work).await {
            Ok(output) => output.map_err(|e| format!("docker compose: {e}"))?,
            Err(_) => {
                return Err(format!(
                    "docker compose did not end within {} s",
                    limit.as_secs()
                ));
            }
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(self.redactor.clean(&format!(
            "docker compose: {}: {}",
            output.status,
            tail.join(" | ")
        )))
    }

    /// The configuration hash that compose wants for each service now.
    pub(crate) async fn hashes(&self) -> Result<Hashes, String> {
        let config = self.config(&self.project.env_files).await?;
        self.hashes_of(&config).await
    }

    /// The hashes of a configuration as [`Cli::config`] printed it.
    ///
    /// `config --hash` on the files themselves leaves out what `env_file` brings (seen on 2.26.1), so its hashes differ from
    /// those that `up` writes on containers. On the resolved configuration they agree. And `up --no-deps` forgets
    /// `depends_on` before it makes the hash on versions where that is a part of it.
    async fn hashes_of(&self, config: &[u8]) -> Result<Hashes, String> {
        let mut alone: Value = serde_json::from_slice(config)
            .map_err(|e| format!("docker compose config: no JSON: {e}"))?;
        for service in alone["services"]
            .as_object_mut()
            .into_iter()
            .flat_map(|s| s.values_mut())
        {
            if let Some(service) = service.as_object_mut() {
                service.remove("depends_on");
            }
        }
        let alone = Zeroizing::new(alone.to_string().into_bytes());
        let (full, alone) = tokio::join!(self.hash(config), self.hash(&alone));
        let (full, mut alone) = (full?, alone?);
        let both = |(service, hash): (String, String)| {
            let alone = alone.remove(&service).unwrap_or_else(|| hash.clone());
            (service, Wanted { full: hash, alone })
        };
        Ok(full.into_iter().map(both).collect())
    }

    async fn hash(&self, config: &[u8]) -> Result<BTreeMap<String, String>, String> {
        let mut command = self.command();
        command.args(["--ansi", "never", "-p", &self.project.name]);
        command
            .arg("--project-directory")
            .arg(&self.project.working_dir);
        command.args(["-f", "-", "config", "--hash", "*"]);
        let out = self.feed(command, config, QUICK).await?;
        let text = String::from_utf8_lossy(&out);
        Ok(text
            .lines()
            .filter_map(|l| l.split_once(' '))
            .map(|(s, h)| (s.to_owned(), h.trim().to_owned()))
            .collect())
    }

    /// Every service as compose resolves it, and the configuration hash that it wants for each.
    pub(crate) async fn resolved_with_hashes(
        &self,
    ) -> Result<(BTreeMap<String, Service>, Hashes), String> {
        let config = self.config(&self.project.env_files).await?;
        Ok((services(&config)?, self.hashes_of(&config).await?))
    }

    /// The whole configuration, resolved, as JSON. Holds secrets.
    async fn config(&self, env_files: &[PathBuf]) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut command = self.on_project(env_files);
        command.args(["config", "--format", "json"]);
        self.run(command, QUICK).await.map(Zeroizing::new)
    }

    /// Every service as compose resolves it; with another file in the place of the first `--env-file`, if one is given.
    pub(crate) async fn resolved(
        &self,
        env_file: Option<&Path>,
    ) -> Result<BTreeMap<String, Service>, String> {
        let mut env_files = self.project.env_files.clone();
        if let Some(path) = env_file {
            match env_files.first_mut() {
                Some(first) => path.clone_into(first),
                None => env_files.push(path.to_owned()),
            }
        }
        services(&self.config(&env_files).await?)
    }

    /// An env file as compose itself reads it.
    pub(crate) async fn read_env(&self, path: &Path) -> Result<BTreeMap<String, Secret>, String> {
        let scratch = tempfile::Builder::new()
            .prefix("keyroll-")
            .tempdir()
            .map_err(|e| format!("no scratch directory: {e}"))?;
        let file = scratch.path().join("compose.json");
        let spec =
            serde_json::json!({"services": {"reader": {"image": "none", "env_file": [path]}}});
        std::fs::write(&file, spec.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut command = self.command();
        command
            .arg("-p")
            .arg("keyroll-reader")
            .arg("--project-directory")
            .arg(scratch.path());
        command
            .arg("-f")
            .arg(&file)
            .args(["config", "--format", "json"]);
        let out = Zeroizing::new(self.run(command, QUICK).await?);
        let mut services = services(&out)?;
        Ok(services
            .remove("reader")
            .map(|s| s.environment)
            .unwrap_or_default())
    }

    /// Makes these services' containers anew, and nothing else: no other service, volume, network or image.
    pub(crate) async fn up(
        &self,
        services: &[String],
        build: bool,
        limit: Duration,
    ) -> Result<(), String> {
        let mut command = self.on_project(&self.project.env_files);
        command.args(["up", "-d", "--no-deps", "--force-recreate"]);
        command.args(if build {
            ["--build"].as_slice()
        } else {
            ["--no-build", "--pull", "never"].as_slice()
        });
        command.args(services);
        self.run(command, limit).await.map(drop)
    }
}

fn services(json: &[u8]) -> Result<BTreeMap<String, Service>, String> {
    let value: Value =
        serde_json::from_slice(json).map_err(|e| format!("docker compose config: no JSON: {e}"))?;
    let services = value["services"]
        .as_object()
        .ok_or("docker compose config: no services")?;
    Ok(services
        .iter()
        .map(|(name, service)| {
            let mut rest = service.clone();
            undouble(&mut rest);
            let environment = rest["environment"].as_object().cloned().unwrap_or_default();
            if let Some(object) = rest.as_object_mut() {
                object.remove("environment");
            }
            let environment = environment
                .into_iter()
                .filter_map(|(key, value)| Some((key, Secret::new(value.as_str()?))))
                .collect();
            let image = rest["image"].as_str().map(str::to_owned);
            (
                name.clone(),
                Service {
                    environment,
                    image,
                    rest,
                },
            )
        })
        .collect())
}

/// Compose prints every `$` doubled, so that its output could be read again.
fn undouble(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("$$", "$"),
        Value::Array(all) => all.iter_mut().for_each(undouble),
        Value::Object(all) => all.values_mut().for_each(undouble),
        _ => {}
    }
}
