//! What the engine says about a container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use keyroll_secret::Secret;
use serde_json::Value;

use crate::TestkitError;
use crate::command::{docker, stdout};

/// One container, as `docker inspect` describes it at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Container {
    /// The full identifier.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The compose service it belongs to.
    pub service: String,
    /// The identifier of its image (`sha256:...`).
    pub image_id: String,
    /// `created`, `running`, `restarting`, `exited`, ...
    pub state: String,
    /// How it ended; 0 while it runs.
    pub exit_code: i64,
    /// `starting`, `healthy` or `unhealthy`; nothing without a health check.
    pub health: Option<String>,
    /// When it was started last, as the engine writes times.
    pub started_at: String,
    /// How often the engine started it again by itself.
    pub restarts: u64,
    /// Its process 1 on the host; 0 when it does not run.
    pub pid: u64,
    /// Its environment.
    pub env: BTreeMap<String, Secret>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address on the stack's network, while it runs.
    pub address: Option<IpAddr>,
}

/// All containers of a compose project, running or not, one-off ones included.
pub(crate) async fn of_project(project: &str) -> Result<Vec<Container>, TestkitError> {
    let filter = format!("label=com.docker.compose.project={project}");
    let ids = stdout(&mut docker([
        "ps",
        "-aq",
        "--no-trunc",
        "--filter",
        &filter,
    ]))
    .await?;
    if ids.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut inspect = docker(["inspect", "--type", "container"]);
    inspect.args(ids.split_whitespace());
    let text = stdout(&mut inspect).await?;
    let all: Vec<Value> = serde_json::from_str(&text)
        .map_err(|e| TestkitError::Unexpected(format!("docker inspect: {e}")))?;
    Ok(all.iter().map(read).collect())
}

fn read(json: &Value) -> Container {
    let text = |pointer: &str| {
        json.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let number = |pointer: &str| json.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let labels: BTreeMap<String, String> = json
        .pointer("/Config/Labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    Container {
        id: text("/Id"),
        name: text("/Name").trim_start_matches('/').to_owned(),
        service: labels
            .get("com.docker.compose.service")
            .cloned()
            .unwrap_or_default(),
        image_id: text("/Image"),
        state: text("/State/Status"),
        exit_code: json
            .pointer("/State/ExitCode")
            .and_then(Value::as_i64)
            .unwrap_or(0),
        health: json
            .pointer("/State/Health/Status")
            .and_then(Value::as_str)
            .map(str::to_owned),
        started_at: text("/State/StartedAt"),
        restarts: number("/RestartCount"),
        pid: number("/State/Pid"),
        env: json
            .pointer("/Config/Env")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|pair| pair.as_str()?.split_once('='))
            .map(|(key, value)| (key.to_owned(), Secret::new(value)))
            .collect(),
        labels,
        address: json
            .pointer("/NetworkSettings/Networks")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .find_map(|(_, network)| network["IPAddress"].as_str()?.parse().ok()),
    }
}
