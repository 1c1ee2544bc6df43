//! Is what runs the project that the profile describes, is it what its files say, and does it run well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keyroll_journal::{Journal, RotationId};
use keyroll_secret::Redactor;

use super::Findings;
use crate::about::ProjectFact;
use crate::error::{Code, Refusal, RotateError};
use crate::profile::Profile;
use crate::runtime::{Cli, Container, Engine, Hashes, Health, Service};

/// The running project.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) engine: Engine,
    pub(super) cli: Cli,
    pub(super) fact: ProjectFact,
    /// Its containers, one-off ones left out.
    pub(super) containers: Vec<Container>,
    pub(super) resolved: BTreeMap<String, Service>,
    /// Services that are stale by an earlier choice.
    pub(super) stale: Vec<String>,
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn paths(labels: &[String]) -> Vec<PathBuf> {
    labels.iter().map(|p| canonical(Path::new(p))).collect()
}

/// Finds the project by the labels of its containers, and compares them with the profile.
pub(super) async fn discover(
    profile: &Profile,
    id: &RotationId,
    redactor: &Redactor,
    found: &mut Findings,
) -> Result<Seen, RotateError> {
    let socket = &profile.compose.socket;
    let refuse = |what: String, next: &str| -> RotateError {
        Refusal::new(Code::Project, what, next).into()
    };
    let no_engine = |e: String| {
        refuse(
            format!("{}: {e}", socket.display()),
            "start the Docker Engine, or set compose.socket",
        )
    };
    let engine = Engine::connect(socket, id.as_str())
        .map_err(no_engine)?
        .negotiate()
        .await
        .map_err(no_engine)?;
    let all = engine.containers(None).await.map_err(no_engine)?;
    let wanted: Vec<PathBuf> = profile.compose.files.iter().map(|p| canonical(p)).collect();
    let ours = |c: &&Container| paths(&c.config_files).iter().any(|p| wanted.contains(p));
    let mut projects: Vec<&str> = all
        .iter()
        .filter(ours)
        .map(|c| c.project.as_str())
        .collect();
    projects.sort_unstable();
    projects.dedup();
    if let Some(name) = &profile.compose.project {
        projects.retain(|p| p == name);
    }
    let files = listed(&wanted);
    let name = match projects.as_slice() {
        [one] => (*one).to_owned(),
        [] => {
            return Err(refuse(
                format!(
                    "no container was made from {files}{}",
                    profile
                        .compose
                        .project
                        .as_ref()
                        .map(|p| format!(" as project {p}"))
                        .unwrap_or_default()
                ),
                "start the stack first, or correct compose.files and compose.project in the profile; `docker compose ls` shows what runs",
            ));
        }
        many => {
            return Err(refuse(
                format!("{files} runs as several projects: {}", many.join(", ")),
                "name the one that is meant as compose.project in the profile",
            ));
        }
    };
    let containers: Vec<Container> = all
        .into_iter()
        .filter(|c| c.project == name && !c.one_off)
        .collect();
    let first = &containers[0];
    let fact = ProjectFact {
        name: name.clone(),
        working_dir: PathBuf::from(&first.working_dir),
        config_files: first.config_files.iter().map(PathBuf::from).collect(),
        env_files: first.env_files.iter().map(PathBuf::from).collect(),
    };
    compare(profile, &containers, &wanted, found);
    let cli = Cli::new(fact.clone(), socket, id.as_str(), redactor.clone());
    Ok(Seen {
        engine,
        cli,
        fact,
        containers,
        resolved: BTreeMap::new(),
        stale: vec![],
    })
}

/// The labels of the containers against one another, and against the profile.
fn compare(profile: &Profile, containers: &[Container], wanted: &[PathBuf], found: &mut Findings) {
    let first = &containers[0];
    let name = &first.project;
    let files = listed(wanted);
    for container in containers {
        let labels = |c: &Container| {
            (
                c.working_dir.clone(),
                paths(&c.config_files),
                paths(&c.env_files),
            )
        };
        if labels(container) != labels(first) {
            found.refuse(
                Code::Project,
                format!(
                    "{} and {} were started with different compose files, directories or env files",
                    first.name, container.name
                ),
                "bring the whole project up once in the same way, then run keyroll again",
            );
        }
    }
    if paths(&first.config_files) != wanted {
        found.refuse(
            Code::Project,
            format!(
                "project {name} was started from {}, the profile says {files}",
                first.config_files.join(", ")
            ),
            "correct compose.files in the profile",
        );
    }
    let env_files: Vec<PathBuf> = profile
        .compose
        .env_files
        .iter()
        .map(|p| canonical(p))
        .collect();
    if !first.env_files.is_empty() && paths(&first.env_files) != env_files {
        found.refuse(
            Code::Project,
            format!(
                "project {name} was started with --env-file {}, the profile says {}",
                first.env_files.join(", "),
                profile.env_file().display()
            ),
            "correct compose.env_files in the profile",
        );
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

/// [`discover`], and then drift and health.
pub(super) async fn look(
    profile: &Profile,
    id: &RotationId,
    redactor: &Redactor,
    journal: &Journal,
    found: &mut Findings,
) -> Result<Seen, RotateError> {
    let mut seen = discover(profile, id, redactor, found).await?;
    found.stop()?;
    let unreadable = |e: String| -> RotateError {
        Refusal::new(
            Code::Project,
            e,
            "mend the compose files; `docker compose config` shows the error",
        )
        .into()
    };
    let (resolved, hashes) = seen.cli.resolved_with_hashes().await.map_err(unreadable)?;
    seen.resolved = resolved;
    drift(&mut seen, &hashes, journal, found).await?;
    sickness(&seen, found);
    Ok(seen)
}

async fn drift(
    seen: &mut Seen,
    hashes: &Hashes,
    journal: &Journal,
    found: &mut Findings,
) -> Result<(), RotateError> {
    let next = "bring the stack up with the files as they are (`docker compose up -d`), check it, then run keyroll again";
    let remembered = journal.stale()?;
    for (service, wanted) in hashes {
        let Some(container) = seen.containers.iter().find(|c| c.service == *service) else {
            found.refuse(
                Code::Drift,
                format!("service {service} is in the files and has no container"),
                next,
            );
            continue;
        };
        if !wanted.fits(&container.config_hash) {
            let by_choice = remembered.iter().any(|s| {
                s.service == *service && s.container == container.id && s.desired == wanted.full
            });
            if by_choice {
                seen.stale.push(service.clone());
            } else {
                found.refuse(
                    Code::Drift,
                    format!(
                        "{} runs another configuration than its files now say (hash {}, wanted {}): a file was edited since, or another compose version made it",
                        container.name,
                        short(&container.config_hash),
                        short(&wanted.full)
                    ),
                    next,
                );
            }
        }
        let reference = seen
            .resolved
            .get(service)
            .and_then(|s| s.image.clone())
            .unwrap_or_else(|| container.image_ref.clone());
        match seen.engine.image_id(&reference).await {
            Ok(id) if id == container.image_id => {}
            Ok(id) => found.refuse(
                Code::Drift,
                format!(
                    "{} runs image {}, but {reference} now is {}: recreating would deploy it by surprise",
                    container.name,
                    short(container.image_id.trim_start_matches("sha256:")),
                    short(id.trim_start_matches("sha256:"))
                ),
                next,
            ),
            Err(why) => found.refuse(Code::Drift, format!("{}: its image {reference} cannot be looked at: {why}", container.name), next),
        }
    }
    for container in seen
        .containers
        .iter()
        .filter(|c| !hashes.contains_key(&c.service))
    {
        found.refuse(
            Code::Drift,
            format!(
                "{} belongs to a service that the files no longer have",
                container.name
            ),
            next,
        );
    }
    Ok(())
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// A container that ran once, did its work and is not meant to run again.
pub(super) fn is_done(container: &Container) -> bool {
    !container.running
        && container.state == "exited"
        && container.exit_code == 0
        && !container.restarts
}

/// Why a container is not well, if it is not.
pub(super) fn why_sick(container: &Container) -> Option<String> {
    match (container.running, container.health) {
        (false, _) if is_done(container) => None,
        (false, _) => Some(format!(
            "is {} (exit code {})",
            container.state, container.exit_code
        )),
        (true, Health::None | Health::Healthy) => None,
        (true, Health::Starting) => Some("is still starting".to_owned()),
        (true, Health::Unhealthy) => Some("is unhealthy".to_owned()),
    }
}

fn sickness(seen: &Seen, found: &mut Findings) {
    for container in &seen.containers {
        if let Some(why) = why_sick(container) {
            found.refuse(
                Code::Sick,
                format!("{} {why}", container.name),
                "mend the stack first; for an incident there is --reason incident --force-unhealthy",
            );
        }
    }
}
