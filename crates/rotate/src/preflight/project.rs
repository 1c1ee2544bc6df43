//! Is what runs the project that the profile describes, is it what its files say, and does it run well.

use keyroll_journal::{Journal, RotationId};
use keyroll_runtimes::compose::{
    Cli, Container, DiscoverError, Drift, DriftKind, Engine, Project, Resolved, StaleByChoice,
    Wanted, sickness,
};
use keyroll_secret::Redactor;

use super::Findings;
use crate::about::ProjectFact;
use crate::error::{Code, Refusal, RotateError};
use crate::profile::Profile;
use crate::stack;

/// The running project.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) engine: Engine,
    pub(super) cli: Cli,
    pub(super) fact: ProjectFact,
    /// Its containers, those of `compose run` left out.
    pub(super) containers: Vec<Container>,
    /// Everything else on the engine.
    pub(super) others: Vec<Container>,
    pub(super) resolved: Resolved,
    /// Services that are stale by an earlier choice.
    pub(super) stale: Vec<String>,
}

/// Finds the project by the labels of its containers, and compares them with the profile.
pub(super) async fn discover(
    profile: &Profile,
    id: &RotationId,
    redactor: &Redactor,
) -> Result<Seen, RotateError> {
    let refuse = |what: String, next: &str| -> RotateError {
        Refusal::new(Code::Project, what, next).into()
    };
    let engine = stack::engine(&profile.compose.socket, redactor)
        .await
        .map_err(|e| {
            refuse(
                e.to_string(),
                "start the Docker Engine, or set compose.socket in the profile",
            )
        })?;
    let wanted = Wanted {
        root: profile.root.clone(),
        config_files: profile.compose.files.clone(),
        env_files: profile.compose.env_files.clone(),
        project: profile.compose.project.clone(),
    };
    let not_found = |e: DiscoverError| {
        refuse(
            e.to_string(),
            "see [compose] in the profile; `docker compose ls -a` shows what runs",
        )
    };
    // All of them, also to see who else uses a secret.
    let everything = engine.all_containers().await;
    let everything = everything.map_err(|e| not_found(e.into()))?;
    let project = Project::among(&everything, &wanted).map_err(not_found)?;
    let no_compose = |e: &dyn std::error::Error| {
        refuse(e.to_string(), "`docker compose config` shows what is wrong")
    };
    let cli = stack::compose(&engine, project.clone(), id, redactor)
        .await
        .map_err(|e| no_compose(&e))?;
    let resolved = cli.resolved(None).await.map_err(|e| no_compose(&e))?;
    let (containers, others) = everything
        .into_iter()
        .partition(|c| c.project == project.name && !c.one_off);
    Ok(Seen {
        engine,
        cli,
        fact: (&project).into(),
        containers,
        others,
        resolved,
        stale: vec![],
    })
}

/// [`discover`], and then drift and health.
pub(super) async fn look(
    profile: &Profile,
    id: &RotationId,
    redactor: &Redactor,
    journal: &Journal,
    found: &mut Findings,
) -> Result<Seen, RotateError> {
    let mut seen = discover(profile, id, redactor).await?;
    let remembered: Vec<StaleByChoice> = journal
        .stale()?
        .into_iter()
        .map(|s| StaleByChoice {
            service: s.service,
            container_id: s.container,
            desired_hash: s.desired,
        })
        .collect();
    let drift = seen
        .cli
        .drift(&seen.engine, &seen.containers, &remembered)
        .await;
    let drift = drift.map_err(|e| {
        Refusal::new(
            Code::Drift,
            e.to_string(),
            "mend it, then run keyroll again",
        )
    })?;
    for one in &drift {
        found.refuse(
            Code::Drift,
            told(one),
            "bring the stack up with the files as they are (`docker compose up -d`), check it, then run keyroll again",
        );
    }
    let same = |s: &StaleByChoice| {
        seen.containers
            .iter()
            .any(|c| c.service == s.service && c.id == s.container_id)
    };
    seen.stale = remembered
        .into_iter()
        .filter(same)
        .map(|s| s.service)
        .collect();
    for sick in sickness(&seen.containers) {
        found.refuse(
            Code::Sick,
            format!("{} is {}", sick.container, sick.why),
            "mend the stack first; for an incident there is --reason incident --force-unhealthy",
        );
    }
    Ok(seen)
}

fn told(drift: &Drift) -> String {
    let Drift {
        service,
        running,
        wanted,
        ..
    } = drift;
    match drift.what {
        DriftKind::ConfigHash => format!(
            "{service} runs another configuration than its files now say (hash {}, wanted {}): a file was edited since, or another compose version made it",
            short(running),
            short(wanted)
        ),
        DriftKind::ImageId => format!(
            "{service} runs image {}, but its reference now names {}: recreating would deploy it by surprise",
            short(running),
            wanted
        ),
        DriftKind::ImageGone => {
            format!("the image that {service} names is gone from this host ({wanted})")
        }
        DriftKind::Missing => format!("service {service} is in the files and has no container"),
        DriftKind::Orphan => {
            format!("{running} belongs to service {service}, which the files no longer have")
        }
    }
}

fn short(hash: &str) -> &str {
    let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
    hash.get(..12).unwrap_or(hash)
}
