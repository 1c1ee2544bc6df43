//! A container, as the engine describes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, RestartPolicyNameEnum,
};
use jiff::Timestamp;
use keyroll_secret::Secret;

use super::labels;

/// A container. Everything that can hold a secret's value is a [`Secret`].
#[derive(Debug, Clone)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The service it belongs to; its own name when compose did not make it.
    pub service: String,
    /// The compose project; empty when compose did not make it.
    pub project: String,
    /// Its number within the service, from 1.
    pub number: u32,
    /// Made by `compose run`, not by `compose up`.
    pub one_off: bool,
    /// The image as the configuration names it (`postgres:15`).
    pub image_ref: String,
    /// The image that it was made from (`sha256:…`).
    pub image_id: String,
    /// compose's hash of the service's configuration when it was made.
    pub config_hash: Option<String>,
    /// The version of compose that made it. 2.x.y, or 1.x.y without labels for env files.
    pub compose_version: Option<String>,
    /// The project directory that compose used.
    pub working_dir: Option<PathBuf>,
    /// The compose files, in order. Absolute when compose 2 made it; compose 1 writes them as they were typed.
    pub config_files: Vec<PathBuf>,
    /// What was given as `--env-file`, in order; empty when nothing was, and compose read `.env` if there was one.
    pub env_files: Vec<PathBuf>,
    /// Services it depends on, as compose kept them when it was made. `--no-deps` drops some before 2.29.3.
    pub depends_on: BTreeSet<String>,
    /// Whether it runs.
    pub state: State,
    /// What its health check says.
    pub health: Health,
    /// What the engine does when it ends.
    pub restart: Restart,
    /// How often the engine has restarted it.
    pub restart_count: u64,
    /// Its environment, the image's own variables included. Of a variable that is there twice the last counts.
    pub env: BTreeMap<String, Secret>,
    /// Entry point and command, word by word.
    pub command: Vec<Secret>,
    /// The command of its health check, word by word.
    pub healthcheck: Vec<Secret>,
    /// All labels.
    pub labels: BTreeMap<String, Secret>,
    /// Name of each network with the container's address there, by name. Empty when it does not run.
    pub networks: Vec<(String, IpAddr)>,
    /// Ports published on the host.
    pub published: Vec<Published>,
    /// Names of its volumes, anonymous ones too.
    pub volumes: BTreeSet<String>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last started; `None` if never.
    pub started_at: Option<Timestamp>,
    /// Its first process as the host sees it, while it runs.
    pub pid: Option<i32>,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, and never started.
    Created,
    /// It runs.
    Running,
    /// It runs and is frozen.
    Paused,
    /// It ended and the engine is about to start it again.
    Restarting,
    /// It ended, with this exit code.
    Exited(i64),
    /// It is being removed, or could not be.
    Dead,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is none.
    None,
    /// Not yet known.
    Starting,
    /// Well.
    Healthy,
    /// It failed as often as its retries allow.
    Unhealthy,
}

/// What the engine does when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    No,
    /// Starts it again when its exit code is not 0.
    OnFailure,
    /// Starts it again.
    Always,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Address and port on the host; `0.0.0.0` and `::` mean every address.
    pub host: SocketAddr,
    /// Port in the container.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl Container {
    /// A job that has done its work: exited with 0, and the engine does not start it again.
    pub fn is_done(&self) -> bool {
        self.state == State::Exited(0) && self.restart != Restart::Always
    }

    /// From the engine's answer; `None` when it lacks an id or a name.
    pub(crate) fn read(found: ContainerInspectResponse) -> Option<Self> {
        let config = found.config.unwrap_or_default();
        let label = config.labels.unwrap_or_default();
        let get = |name: &str| label.get(name).filter(|v| !v.is_empty()).cloned();
        let state = found.state.unwrap_or_default();
        let networks = found.network_settings.unwrap_or_default();
        let name = found.name?.trim_start_matches('/').to_owned();
        Some(Self {
            id: found.id?,
            service: get(labels::SERVICE).unwrap_or_else(|| name.clone()),
            project: get(labels::PROJECT).unwrap_or_default(),
            name,
            number: get(labels::NUMBER)
                .and_then(|n| n.parse().ok())
                .unwrap_or(1),
            one_off: get(labels::ONE_OFF).is_some_and(|v| v == "True"),
            image_ref: config.image.unwrap_or_default(),
            image_id: found.image.unwrap_or_default(),
            config_hash: get(labels::CONFIG_HASH),
            compose_version: get(labels::VERSION),
            working_dir: get(labels::WORKING_DIR).map(PathBuf::from),
            config_files: labels::paths(get(labels::CONFIG_FILES).as_deref()),
            env_files: labels::paths(get(labels::ENV_FILES).as_deref()),
            depends_on: labels::dependencies(get(labels::DEPENDS_ON).as_deref()),
            state: State::read(state.status, state.exit_code),
            health: Health::read(state.health.and_then(|h| h.status)),
            restart: Restart::read(
                found
                    .host_config
                    .and_then(|h| h.restart_policy)
                    .and_then(|p| p.name),
            ),
            restart_count: found
                .restart_count
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0),
            env: environment(config.env.unwrap_or_default()),
            command: secrets(
                config
                    .entrypoint
                    .into_iter()
                    .flatten()
                    .chain(config.cmd.into_iter().flatten()),
            ),
            healthcheck: secrets(
                config
                    .healthcheck
                    .and_then(|h| h.test)
                    .into_iter()
                    .flatten(),
            ),
            labels: label
                .into_iter()
                .map(|(key, value)| (key, Secret::new(value)))
                .collect(),
            networks: addresses(networks.networks),
            published: published(networks.ports),
            volumes: found
                .mounts
                .into_iter()
                .flatten()
                .filter_map(|m| m.name)
                .collect(),
            created_at: found.created.as_deref().and_then(time),
            started_at: state.started_at.as_deref().and_then(time),
            pid: state
                .pid
                .and_then(|p| i32::try_from(p).ok())
                .filter(|p| *p > 0),
        })
    }
}

impl State {
    fn read(status: Option<ContainerStateStatusEnum>, exit_code: Option<i64>) -> Self {
        match status {
            Some(ContainerStateStatusEnum::CREATED) => Self::Created,
            Some(ContainerStateStatusEnum::RUNNING) => Self::Running,
            Some(ContainerStateStatusEnum::PAUSED) => Self::Paused,
            Some(ContainerStateStatusEnum::RESTARTING) => Self::Restarting,
            Some(ContainerStateStatusEnum::EXITED) => Self::Exited(exit_code.unwrap_or(-1)),
            _ => Self::Dead,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("made, never started"),
            Self::Running => f.write_str("running"),
            Self::Paused => f.write_str("paused"),
            Self::Restarting => f.write_str("restarting"),
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Dead => f.write_str("dead"),
        }
    }
}

impl Health {
    fn read(status: Option<HealthStatusEnum>) -> Self {
        match status {
            Some(HealthStatusEnum::STARTING) => Self::Starting,
            Some(HealthStatusEnum::HEALTHY) => Self::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => Self::Unhealthy,
            _ => Self::None,
        }
    }
}

impl Restart {
    fn read(name: Option<RestartPolicyNameEnum>) -> Self {
        match name {
            Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED) => {
                Self::Always
            }
            Some(RestartPolicyNameEnum::ON_FAILURE) => Self::OnFailure,
            _ => Self::No,
        }
    }
}

fn environment(lines: Vec<String>) -> BTreeMap<String, Secret> {
    lines
        .into_iter()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), Secret::new(value)))
        })
        .collect()
}

fn secrets(words: impl Iterator<Item = String>) -> Vec<Secret> {
    words.map(Secret::new).collect()
}

fn addresses(
    found: Option<HashMap<String, bollard::models::EndpointSettings>>,
) -> Vec<(String, IpAddr)> {
    let mut all: Vec<(String, IpAddr)> = found
        .into_iter()
        .flatten()
        .filter_map(|(name, end)| {
            let v4 = end.ip_address.filter(|a| !a.is_empty());
            let text = v4.or(end.global_ipv6_address)?;
            Some((name, text.parse().ok()?))
        })
        .collect();
    all.sort();
    all
}

fn published(found: Option<bollard::models::PortMap>) -> Vec<Published> {
    let mut all: Vec<Published> = found
        .into_iter()
        .flatten()
        .flat_map(|(inside, outside)| {
            let (port, protocol) = inside.split_once('/').unwrap_or((&inside, "tcp"));
            let (port, protocol) = (port.parse::<u16>().ok(), protocol.to_owned());
            outside
                .into_iter()
                .flatten()
                .filter_map(move |binding| {
                    let ip: IpAddr = match binding.host_ip.as_deref() {
                        None | Some("") => IpAddr::from([0, 0, 0, 0]),
                        Some(text) => text.parse().ok()?,
                    };
                    Some(Published {
                        host: SocketAddr::new(ip, binding.host_port?.parse().ok()?),
                        port: port?,
                        protocol: protocol.clone(),
                    })
                })
                .collect::<Vec<_>>()
        })
        .collect();
    all.sort_by_key(|p| (p.port, p.host));
    all
}

/// RFC 3339; the engine's zero time means never.
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|t| t.as_second() > 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A running container of service `service` in project `p`, as compose 2.26 makes it.
    pub(crate) fn sample(service: &str) -> Container {
        let found: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "Id": format!("{service}0").repeat(8),
            "Name": format!("/p-{service}-1"),
            "Image": "sha256:aa",
            "Created": "2026-11-24T00:06:47.123456789Z",
            "RestartCount": 0,
            "State": {"Status": "running", "Pid": 99, "ExitCode": 0,
                      "StartedAt": "2026-11-24T00:06:48Z", "FinishedAt": "0001-01-01T00:00:00Z"},
            "HostConfig": {"RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}},
            "Mounts": [{"Type": "volume", "Name": "v", "Destination": "/v"}, {"Type": "bind", "Source": "/x"}],
            "Config": {"Image": "app:1", "Env": ["A=one", "B=x=y", "A=zwei"], "Cmd": ["run", "it"],
                "Labels": {
                    labels::PROJECT: "p", labels::SERVICE: service, labels::NUMBER: "1", labels::ONE_OFF: "False",
                    labels::CONFIG_HASH: "hash", labels::VERSION: "2.26.1", labels::WORKING_DIR: "/srv/app/infra",
                    labels::CONFIG_FILES: "/srv/app/infra/c.yml", labels::ENV_FILES: "/srv/app/.env.production",
                    labels::DEPENDS_ON: "db:service_healthy:false,job:service_completed_successfully:false"}},
            "NetworkSettings": {
                "Networks": {"p_b": {"IPAddress": "172.18.0.3"}, "p_a": {"IPAddress": "172.19.0.2"}, "off": {"IPAddress": ""}},
                "Ports": {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "53/udp": null}}
        }))
        .unwrap();
        Container::read(found).unwrap()
    }

    #[test]
    fn the_engines_answer_is_read_in_full() {
        let c = sample("api");
        assert_eq!(
            (c.name.as_str(), c.number, c.one_off),
            ("p-api-1", 1, false)
        );
        assert_eq!(
            (c.state, c.health, c.restart),
            (State::Running, Health::None, Restart::Always)
        );
        assert_eq!(c.env["A"].expose(), "zwei", "the last of two counts");
        assert_eq!(c.env["B"].expose(), "x=y");
        assert_eq!(c.config_files, [PathBuf::from("/srv/app/infra/c.yml")]);
        assert_eq!(c.env_files, [PathBuf::from("/srv/app/.env.production")]);
        assert_eq!(c.depends_on, BTreeSet::from(["db".into(), "job".into()]));
        assert_eq!(c.volumes, BTreeSet::from(["v".to_owned()]));
        assert_eq!(
            c.networks.len(),
            2,
            "a network without an address is left out"
        );
        assert_eq!(c.networks[0].0, "p_a");
        assert_eq!(c.published.len(), 1);
        assert_eq!(c.published[0].host, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(c.started_at, "2026-11-24T00:06:48Z".parse().ok());
        assert_eq!(c.pid, Some(99));
    }

    #[test]
    fn a_container_prints_without_its_values() {
        let shown = format!("{:?}", sample("api"));
        assert!(!shown.contains("zwei") && shown.contains("Secret(..)"));
    }
}
