//! `docker compose`, called with nothing of keyroll's own environment: an exported variable would beat the env file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use keyroll_secret::{Redactor, Secret};
use serde_json::Value;
use tokio::process::Command;

use crate::about::ProjectFact;

#[derive(Debug, Clone)]
pub(crate) struct Cli {
    project: ProjectFact,
    socket: PathBuf,
    mark: String,
    redactor: Redactor,
}

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
        Self { project, socket: socket.to_owned(), mark: mark.to_owned(), redactor }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("KEYROLL_ROTATION", &self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .arg("compose");
        command
    }

    fn on_project(&self, env_files: &[PathBuf]) -> Command {
        let mut command = self.command();
        command.args(["--ansi", "never", "--progress", "quiet"]);
        command.arg("-p").arg(&self.project.name).arg("--project-directory").arg(&self.project.working_dir);
        for file in &self.project.config_files {
            command.arg("-f").arg(file);
        }
        for file in env_files {
            command.arg("--env-file").arg(file);
        }
        command
    }

    async fn run(&self, mut command: Command, limit: Duration) -> Result<Vec<u8>, String> {
        let child = command.spawn().map_err(|e| format!("docker could not be started: {e}"))?;
        let output = match tokio::time::timeout(limit, child.wait_with_output()).await {
            Ok(output) => output.map_err(|e| format!("docker compose: {e}"))?,
            Err(_) => return Err(format!("docker compose did not end within {} s", limit.as_secs())),
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(self.redactor.clean(&format!("docker compose: {}: {}", output.status, tail.join(" | "))))
    }

    /// The configuration hash that compose wants for each service now.
    pub(crate) async fn hashes(&self) -> Result<BTreeMap<String, String>, String> {
        let mut command = self.on_project(&self.project.env_files);
        command.args(["config", "--hash", "*"]);
        let out = self.run(command, Duration::from_secs(60)).await?;
        let text = String::from_utf8_lossy(&out);
        Ok(text.lines().filter_map(|l| l.split_once(' ')).map(|(s, h)| (s.to_owned(), h.trim().to_owned())).collect())
    }

    /// Every service as compose resolves it; with another file in the place of the first `--env-file`, if one is given.
    pub(crate) async fn resolved(&self, env_file: Option<&Path>) -> Result<BTreeMap<String, Service>, String> {
        let mut env_files = self.project.env_files.clone();
        if let Some(path) = env_file {
            match env_files.first_mut() {
                Some(first) => path.clone_into(first),
                None => env_files.push(path.to_owned()),
            }
        }
        let mut command = self.on_project(&env_files);
        command.args(["config", "--format", "json"]);
        let out = zeroize::Zeroizing::new(self.run(command, Duration::from_secs(60)).await?);
        services(&out)
    }

    /// An env file as compose itself reads it.
    pub(crate) async fn read_env(&self, path: &Path) -> Result<BTreeMap<String, Secret>, String> {
        let scratch = tempfile::Builder::new().prefix("keyroll-").tempdir().map_err(|e| format!("no scratch directory: {e}"))?;
        let file = scratch.path().join("compose.json");
        let spec = serde_json::json!({"services": {"reader": {"image": "none", "env_file": [path]}}});
        std::fs::write(&file, spec.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut command = self.command();
        command.arg("-p").arg("keyroll-reader").arg("--project-directory").arg(scratch.path());
        command.arg("-f").arg(&file).args(["config", "--format", "json"]);
        let out = zeroize::Zeroizing::new(self.run(command, Duration::from_secs(60)).await?);
        let mut services = services(&out)?;
        Ok(services.remove("reader").map(|s| s.environment).unwrap_or_default())
    }

    /// Makes these services' containers anew, and nothing else: no other service, volume, network or image.
    pub(crate) async fn up(&self, services: &[String], build: bool, limit: Duration) -> Result<(), String> {
        let mut command = self.on_project(&self.project.env_files);
        command.args(["up", "-d", "--no-deps", "--force-recreate"]);
        command.args(if build { ["--build"].as_slice() } else { ["--no-build", "--pull", "never"].as_slice() });
        command.args(services);
        self.run(command, limit).await.map(drop)
    }
}

fn services(json: &[u8]) -> Result<BTreeMap<String, Service>, String> {
    let value: Value = serde_json::from_slice(json).map_err(|e| format!("docker compose config: no JSON: {e}"))?;
    let services = value["services"].as_object().ok_or("docker compose config: no services")?;
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
            (name.clone(), Service { environment, image, rest })
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
