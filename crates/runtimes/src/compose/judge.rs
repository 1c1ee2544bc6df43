//! compose as the judge of an env file: what it really reads, before the file is put in its place.
//!
//! Two roles: a service's `env_file:`, and `--env-file` (or `.env`), whose variables replace `${…}` in the compose file. Both
//! are read by one parser (compose-go `dotenv`); they differ where the environment has the same name: it wins over
//! `--env-file`, and loses against `env_file:`.
//!
//! `docker compose config --environment` would tell the second role's values at once, but came after 2.26. So compose gets a
//! file of one service on its standard input, which holds the path of the env file or the names of variables, no value.

use std::collections::BTreeMap;
use std::path::Path;

use keyroll_secret::Secret;
use serde_json::{Value, json};

use super::cli::{Cli, Compose};
use super::error::CliError;
use super::resolved::{scalar, wipe};
use super::v1;

/// The project and the service that are asked about. Nothing of this name is ever started.
const NAME: &str = "keyroll-judge";

impl Cli {
    /// What a service with `env_file: <path>` gets, as compose itself reads the file: quotes, comments, `export`,
    /// interpolation within the file. A name without `=` that the environment does not have is left out, and a reference to
    /// a variable that is not in the file reads as empty. Fails when compose cannot read the file; the error tells file and
    /// line, and nothing of its content.
    pub async fn read_env(&self, path: &Path) -> Result<BTreeMap<String, Secret>, CliError> {
        // A `$` in a path would be taken for a variable.
        let written = absolute(path)?.replace('$', "$$");
        let service = json!({"image": "none", "env_file": [written]});
        self.judge(service, path, None).await
    }

    /// What `${KEY}` stands for when `path` is given as `--env-file`, for each of `keys`; a key that is not there is left
    /// out. The few variables of [`Surroundings`](super::Surroundings) win over the file, as in every call.
    pub async fn interpolated(
        &self,
        path: &Path,
        keys: impl IntoIterator<Item = &str>,
    ) -> Result<BTreeMap<String, Secret>, CliError> {
        let keys: Vec<&str> = keys.into_iter().collect();
        let service = json!({"image": "none", "environment": keys});
        self.judge(service, path, Some(path)).await
    }

    async fn judge(
        &self,
        service: Value,
        path: &Path,
        env_file: Option<&Path>,
    ) -> Result<BTreeMap<String, Secret>, CliError> {
        let v1 = matches!(self.compose(), Compose::V1(_));
        let mut asked = self.bare(NAME, Path::new("/"));
        // An env file that is named keeps compose from reading a `.env` in the directory. Version 1 refuses a device.
        let nothing = if v1 { path } else { Path::new("/dev/null") };
        asked.option("--env-file", absolute(env_file.unwrap_or(nothing))?);
        asked.option("-f", "-");
        let model = json!({"version": "3.8", "services": {"judge": service}});
        asked.input = Some(Secret::new(model.to_string()));
        let stdout = if v1 {
            let (stdout, stderr) = self.ask(asked, &["config"]).await?;
            // It drops the statement, warns, and goes on.
            if let Some(warning) = stderr.lines().find(|l| l.contains("could not parse")) {
                return Err(CliError::Failed {
                    command: "docker-compose config".into(),
                    status: "a warning".into(),
                    said: format!("{}: {}", path.display(), self.said(warning)),
                });
            }
            v1::to_json(&stdout, NAME).unwrap_or_else(|| Secret::new(""))
        } else {
            let (stdout, _) = self.ask(asked, &["config", "--format", "json"]).await?;
            Secret::new(String::from_utf8_lossy(&stdout))
        };
        let unreadable = || CliError::Unreadable {
            command: "docker compose config".into(),
            reason: "JSON with the service that was asked about was expected".into(),
        };
        let root: Value = serde_json::from_str(stdout.expose()).map_err(|_| unreadable())?;
        let service = root["services"]["judge"]
            .as_object()
            .ok_or_else(unreadable)?;
        let environment = service.get("environment").and_then(Value::as_object);
        let read = environment
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), scalar(value)?)))
            .collect();
        wipe(root);
        Ok(read)
    }
}

fn absolute(path: &Path) -> Result<String, CliError> {
    let not_run = |reason: String| CliError::NotRun {
        command: "docker compose config".into(),
        reason: format!("{}: {reason}", path.display()),
    };
    let full = std::path::absolute(path).map_err(|e| not_run(e.to_string()))?;
    full.into_os_string()
        .into_string()
        .map_err(|_| not_run("the path is not UTF-8, and compose files are".into()))
}
