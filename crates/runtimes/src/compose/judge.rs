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

/// The project and the service that are asked about. Nothing of this name is ever started.
const NAME: &str = "keyroll-judge";

impl Cli {
    /// What a service with `env_file: <path>` gets, as compose itself reads the file: quotes, comments, `export`,
    /// interpolation within the file. A name without `=` that the environment does not have is left out, and a reference to
    /// a variable that is not in the file reads as empty. Fails when compose cannot read the file; the error tells file and
    /// line, and nothing of its content.
    pub async fn read_env(&self, path: &Path) -> Result<BTreeMap<String, Secret>, CliError> {
        // A `$` in a path would be taken for a variable.
        let path = absolute(path)?.replace('$', "$$");
        let service = json!({"image": "none", "env_file": [path]});
        self.judge(service, None).await
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
        self.judge(service, Some(path)).await
    }

    async fn judge(
        &self,
        service: Value,
        env_file: Option<&Path>,
    ) -> Result<BTreeMap<String, Secret>, CliError> {
        if let Compose::V1(version) = self.compose() {
            return Err(CliError::TooOld {
                doing: "read an env file".into(),
                version: version.clone(),
            });
        }
        let root = Path::new("/");
        let mut asked = self.bare(NAME, root);
        // An env file that is named keeps compose from reading a `.env` in the directory.
        asked.option(
            "--env-file",
            absolute(env_file.unwrap_or(Path::new("/dev/null")))?,
        );
        asked.option("-f", "-");
        let model = json!({"services": {"judge": service}});
        asked.input = Some(Secret::new(model.to_string()));
        let (stdout, _) = self.ask(asked, &["config", "--format", "json"]).await?;
        let unreadable = || CliError::Unreadable {
            command: "docker compose config".into(),
            reason: "JSON with the service that was asked about was expected".into(),
        };
        let root: Value = serde_json::from_slice(&stdout).map_err(|_| unreadable())?;
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
