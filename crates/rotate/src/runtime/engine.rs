//! The Docker Engine, asked over its socket: containers, events, commands inside them, logs.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{HealthStatusEnum, RestartPolicyNameEnum};
use bollard::query_parameters::{
    EventsOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions, LogsOptions,
    TagImageOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt as _;
use keyroll_secret::Secret;
use tokio::io::AsyncWriteExt as _;

use super::orphans;

const LABEL: &str = "com.docker.compose";

#[derive(Debug, Clone)]
pub(crate) struct Engine {
    docker: Docker,
    mark: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) project: String,
    pub(crate) image_ref: String,
    pub(crate) image_id: String,
    pub(crate) config_hash: String,
    pub(crate) working_dir: String,
    pub(crate) config_files: Vec<String>,
    pub(crate) env_files: Vec<String>,
    pub(crate) one_off: bool,
    pub(crate) running: bool,
    pub(crate) exit_code: i64,
    pub(crate) state: String,
    pub(crate) health: Health,
    pub(crate) restarts: bool,
    pub(crate) env: BTreeMap<String, Secret>,
    pub(crate) networks: Vec<(String, IpAddr)>,
}

/// How a command in a container ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) exit_code: i64,
    pub(crate) stderr: String,
}

fn said(error: &bollard::errors::Error) -> String {
    format!("Docker Engine: {error}")
}

impl Engine {
    pub(crate) fn connect(socket: &Path, mark: &str) -> Result<Self, String> {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), 120, API_DEFAULT_VERSION)
            .map_err(|e| said(&e))?;
        Ok(Self {
            docker,
            mark: mark.to_owned(),
        })
    }

    /// Speaks the version that the engine knows.
    pub(crate) async fn negotiate(self) -> Result<Self, String> {
        let docker = self
            .docker
            .negotiate_version()
            .await
            .map_err(|e| said(&e))?;
        Ok(Self {
            docker,
            mark: self.mark,
        })
    }

    /// All containers that compose made, running or not; of one project, or of all.
    pub(crate) async fn containers(&self, project: Option<&str>) -> Result<Vec<Container>, String> {
        let label = project.map_or_else(
            || format!("{LABEL}.project"),
            |p| format!("{LABEL}.project={p}"),
        );
        self.list(Some(label)).await
    }

    /// Every running container, whoever made it.
    pub(crate) async fn everything(&self) -> Result<Vec<Container>, String> {
        self.list(None).await
    }

    async fn list(&self, label: Option<String>) -> Result<Vec<Container>, String> {
        let filters = label.map(|l| HashMap::from([("label".to_owned(), vec![l])]));
        let options = ListContainersOptions {
            all: filters.is_some(),
            filters,
            ..Default::default()
        };
        let list = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|e| said(&e))?;
        let ids = list.into_iter().filter_map(|c| c.id);
        let inspected = futures_util::future::join_all(ids.map(|id| self.inspect(id))).await;
        inspected
            .into_iter()
            .filter_map(Result::transpose)
            .collect()
    }

    async fn inspect(&self, id: String) -> Result<Option<Container>, String> {
        let seen = match self.docker.inspect_container(&id, None).await {
            Ok(seen) => seen,
            // Gone between listing and looking.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 404, ..
            }) => return Ok(None),
            Err(error) => return Err(said(&error)),
        };
        let config = seen.config.unwrap_or_default();
        let labels = config.labels.unwrap_or_default();
        let label = |name: &str| {
            labels
                .get(&format!("{LABEL}.{name}"))
                .cloned()
                .unwrap_or_default()
        };
        let list = |name: &str| {
            label(name)
                .split(',')
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let state = seen.state.unwrap_or_default();
        let health = match state.health.and_then(|h| h.status) {
            Some(HealthStatusEnum::STARTING) => Health::Starting,
            Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
            _ => Health::None,
        };
        let restart = seen
            .host_config
            .and_then(|h| h.restart_policy)
            .and_then(|p| p.name);
        let env = config.env.unwrap_or_default().into_iter();
        let env = env
            .filter_map(|e| {
                e.split_once('=')
                    .map(|(k, v)| (k.to_owned(), Secret::new(v)))
            })
            .collect();
        let networks = seen
            .network_settings
            .and_then(|n| n.networks)
            .unwrap_or_default();
        let mut networks: Vec<(String, IpAddr)> = networks
            .into_iter()
            .filter_map(|(name, n)| Some((name, n.ip_address?.parse().ok()?)))
            .collect();
        networks.sort();
        Ok(Some(Container {
            id,
            name: seen
                .name
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
            service: label("service"),
            project: label("project"),
            image_ref: config.image.unwrap_or_default(),
            image_id: seen.image.unwrap_or_default(),
            config_hash: label("config-hash"),
            working_dir: label("project.working_dir"),
            config_files: list("project.config_files"),
            env_files: list("project.environment_file"),
            one_off: label("oneoff") == "True",
            running: state.running.unwrap_or(false) && !state.restarting.unwrap_or(false),
            exit_code: state.exit_code.unwrap_or(0),
            state: state.status.map(|s| s.to_string()).unwrap_or_default(),
            health,
            restarts: matches!(
                restart,
                Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED)
            ),
            env,
            networks,
        }))
    }

    /// What an image reference means now.
    pub(crate) async fn image_id(&self, reference: &str) -> Result<String, String> {
        let image = self
            .docker
            .inspect_image(reference)
            .await
            .map_err(|e| said(&e))?;
        image
            .id
            .ok_or_else(|| format!("image {reference} has no id"))
    }

    /// Makes an image reference mean this image again.
    pub(crate) async fn tag(&self, image_id: &str, reference: &str) -> Result<(), String> {
        // A colon after the last slash starts the tag; one before it is a registry's port.
        let split = reference
            .rfind(':')
            .filter(|colon| reference.rfind('/').is_none_or(|slash| slash < *colon));
        let (repo, tag) = split.map_or((reference, "latest"), |colon| {
            (&reference[..colon], &reference[colon + 1..])
        });
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
        };
        self.docker
            .tag_image(image_id, Some(options))
            .await
            .map_err(|e| said(&e))
    }

    /// Runs a command in a container. Its standard output goes to `sink`; `input` is written to it and closed.
    pub(crate) async fn exec(
        &self,
        container: &str,
        command: &[String],
        mut input: impl Input,
        mut sink: impl Write,
        limit: Duration,
    ) -> Result<Done, String> {
        let work = async {
            let options = CreateExecOptions {
                attach_stdin: Some(input.any()),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                env: Some(vec![format!("KEYROLL_ROTATION={}", self.mark)]),
                cmd: Some(command.to_vec()),
                ..Default::default()
            };
            let exec = self
                .docker
                .create_exec(container, options)
                .await
                .map_err(|e| said(&e))?;
            let start = StartExecOptions {
                output_capacity: Some(256 * 1024),
                ..Default::default()
            };
            let started = self
                .docker
                .start_exec(&exec.id, Some(start))
                .await
                .map_err(|e| said(&e))?;
            let StartExecResults::Attached {
                mut output,
                input: mut stdin,
            } = started
            else {
                return Err("Docker Engine: the command was not attached to".to_owned());
            };
            let feed = async {
                while let Some(piece) = input.next().await? {
                    stdin
                        .write_all(&piece)
                        .await
                        .map_err(|e| format!("the command's input was closed: {e}"))?;
                }
                let _ = stdin.shutdown().await;
                Ok::<(), String>(())
            };
            let drain = async {
                let mut stderr = Vec::new();
                while let Some(piece) = output.next().await {
                    match piece.map_err(|e| said(&e))? {
                        LogOutput::StdErr { message } if stderr.len() < 16 * 1024 => {
                            stderr.extend_from_slice(&message);
                        }
                        LogOutput::StdOut { message } | LogOutput::Console { message } => {
                            // The sink is a file; writing in between keeps the order and holds nothing in memory.
                            tokio::task::block_in_place(|| sink.write_all(&message))
                                .map_err(|e| e.to_string())?;
                        }
                        _ => {}
                    }
                }
                Ok::<Vec<u8>, String>(stderr)
            };
            let (taken, drained) = tokio::join!(feed, drain);
            let stderr = String::from_utf8_lossy(&drained?).trim().to_owned();
            let exit_code = self
                .docker
                .inspect_exec(&exec.id)
                .await
                .map_err(|e| said(&e))?
                .exit_code
                .unwrap_or(-1);
            if exit_code == 0 {
                taken?;
            }
            Ok(Done { exit_code, stderr })
        };
        if let Ok(done) = tokio::time::timeout(limit, work).await {
            done
        } else {
            // The client is gone, the command in the container is not: it must not act later.
            let left: Vec<_> = orphans::find(&self.mark)
                .into_iter()
                .filter(orphans::Orphan::in_container)
                .collect();
            orphans::end(&left, Duration::from_secs(10)).await?;
            Err(format!(
                "`{}` did not end within {} s, and was ended",
                command.join(" "),
                limit.as_secs()
            ))
        }
    }

    /// Waits until something happens to one of the project's containers, or until the time is over.
    pub(crate) fn changes(&self, project: &str) -> impl futures_util::Stream<Item = ()> + use<> {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            (
                "label".to_owned(),
                vec![format!("{LABEL}.project={project}")],
            ),
        ]);
        let options = EventsOptions {
            filters: Some(filters),
            ..Default::default()
        };
        Box::pin(self.docker.clone().events(Some(options)).map(drop))
    }

    /// The last lines that a container wrote since a time in seconds.
    pub(crate) async fn logs(
        &self,
        container: &str,
        since: i64,
        tail: usize,
    ) -> Result<Vec<String>, String> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            since: i32::try_from(since).unwrap_or(0),
            tail: tail.to_string(),
            ..Default::default()
        };
        let mut logs = Box::pin(self.docker.logs(container, Some(options)));
        let mut text = String::new();
        while let Some(piece) = logs.next().await {
            text.push_str(&piece.map_err(|e| said(&e))?.to_string());
        }
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The names of the project's volumes and networks, to show that none was made. Other projects make theirs meanwhile.
    pub(crate) async fn volumes_and_networks(&self, project: &str) -> Result<Vec<String>, String> {
        let filters = HashMap::from([(
            "label".to_owned(),
            vec![format!("{LABEL}.project={project}")],
        )]);
        let volumes = self
            .docker
            .list_volumes(Some(ListVolumesOptions {
                filters: Some(filters.clone()),
            }))
            .await
            .map_err(|e| said(&e))?;
        let networks = self
            .docker
            .list_networks(Some(ListNetworksOptions {
                filters: Some(filters),
            }))
            .await
            .map_err(|e| said(&e))?;
        let volumes = volumes
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|v| format!("volume {}", v.name));
        let networks = networks
            .into_iter()
            .filter_map(|n| n.name)
            .map(|n| format!("network {n}"));
        let mut all: Vec<String> = volumes.chain(networks).collect();
        all.sort();
        Ok(all)
    }
}

/// What a command reads.
pub(crate) trait Input: Send {
    /// Whether there is anything.
    fn any(&self) -> bool;
    /// The next piece; none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, String>> + Send;
}

/// Nothing to read.
pub(crate) struct Empty;

impl Input for Empty {
    fn any(&self) -> bool {
        false
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
}

/// A line, then whatever comes through a channel.
pub(crate) struct Fed {
    pub(crate) first: Option<Vec<u8>>,
    pub(crate) rest: Option<tokio::sync::mpsc::Receiver<Result<Vec<u8>, String>>>,
}

impl Input for Fed {
    fn any(&self) -> bool {
        true
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        match &mut self.rest {
            Some(rest) => rest.recv().await.transpose(),
            None => Ok(None),
        }
    }
}
