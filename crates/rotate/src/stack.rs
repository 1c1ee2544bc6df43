//! The containers of the stack: making them anew, waiting for them, and comparing what they really have.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use keyroll_journal::{Direction, Event, RotationId};
use keyroll_runtimes::compose::{
    ActError, Cli, CliError, DriftKind, Engine, EngineError, Form, MovedImage, Project, Recreate,
    StaleByChoice, State, Surroundings, WaitError, Waiting, compare_env, form_of,
};
use keyroll_saga::StepCx;
use keyroll_secret::{Redactor, Secret};

use crate::about::Fate;
use crate::checks::Seen;
use crate::panel::Finding;
use crate::steps::names;
use crate::world::{Set, World};

/// Time for compose to make the containers anew, without their becoming healthy.
const UP: Duration = Duration::from_secs(300);
/// Lines of a container's log that are looked through for errors.
const LINES: usize = 200;

/// The engine behind a socket, its words cleaned of known values.
pub(crate) async fn engine(socket: &Path, redactor: &Redactor) -> Result<Engine, EngineError> {
    Ok(Engine::connect(socket).await?.redacting(redactor.clone()))
}

/// compose for a project. It inherits no variable of keyroll's own environment: an exported one would beat the env file.
pub(crate) async fn compose(
    engine: &Engine,
    project: Project,
    rotation: &RotationId,
    redactor: &Redactor,
) -> Result<Cli, CliError> {
    let surroundings = Surroundings {
        path: OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        home: Some(OsString::from("/root")),
        docker_config: None,
        rotation: Some(rotation.to_string()),
    };
    Ok(Cli::connect(engine, project, surroundings)
        .await?
        .redacting(redactor.clone()))
}

impl World {
    /// Makes these services' containers anew, from the images that ran, and nothing else.
    pub(crate) async fn recreate(
        &self,
        services: &[String],
        build: bool,
        moved: MovedImage,
    ) -> Result<(), ActError> {
        if services.is_empty() {
            return Ok(());
        }
        let image = |s: &String| Some((s.clone(), self.about.services.get(s)?.image.clone()));
        let images: BTreeMap<String, String> = services.iter().filter_map(image).collect();
        let wanted = Recreate {
            services: services.to_vec(),
            images,
            moved,
            build,
            limit: UP,
        };
        self.cli.recreate(&self.engine, &wanted).await.map(drop)
    }

    /// Waits until these services are healthy, or run where they have no health check; by the engine's events.
    pub(crate) async fn wait_healthy(
        &self,
        services: &[String],
        limit: Duration,
    ) -> Result<(), Finding> {
        let containers = self.containers().await?;
        let mut ids = vec![];
        for service in services {
            match containers.iter().find(|c| c.service == *service) {
                Some(container) => ids.push(container.id.clone()),
                None => {
                    return Err(Finding::Wrong(format!(
                        "service {service} has no container"
                    )));
                }
            }
        }
        match self
            .engine
            .wait_healthy(&ids, &Waiting::at_most(limit))
            .await
        {
            Ok(()) => Ok(()),
            Err(error @ WaitError::NotHealthy(_)) => {
                Err(Finding::Wrong(self.clean(&error.to_string())))
            }
            Err(error) => Err(Finding::Unknown(self.clean(&error.to_string()))),
        }
    }

    /// Services that compose would make anew although the rotation does not mean them to: a file was edited since preflight.
    pub(crate) async fn surprises(&self) -> Result<Vec<String>, Finding> {
        let containers = self.containers().await?;
        let drift = self.cli.drift(&self.engine, &containers, &[]).await;
        let drift = drift.map_err(|e| Finding::Unknown(self.clean(&e.to_string())))?;
        let untouched: BTreeSet<String> = self
            .about
            .services_with(Fate::Untouched)
            .into_iter()
            .collect();
        let meant = |s: &String| !untouched.contains(s) || self.about.stale.contains(s);
        let surprises = drift
            .into_iter()
            .filter(|d| d.what == DriftKind::ConfigHash && !meant(&d.service));
        Ok(surprises.map(|d| d.service).collect())
    }

    /// Containers left alone although compose would now make them anew; `None` for a service that is as it should be.
    pub(crate) async fn stale_by_choice(
        &self,
    ) -> Result<BTreeMap<String, Option<StaleByChoice>>, Finding> {
        let hashes = self
            .cli
            .hashes()
            .await
            .map_err(|e| Finding::Unknown(self.clean(&e.to_string())))?;
        let containers = self.containers().await?;
        let mut stale = BTreeMap::new();
        for (service, fact) in &self.about.services {
            let left = matches!(fact.fate, Fate::Kept | Fate::OneShot)
                || self.about.stale.contains(service);
            let found = containers
                .iter()
                .find(|c| c.service == *service)
                .zip(hashes.get(service));
            let remembered =
                found.filter(|(c, wanted)| left && c.config_hash.as_ref() != Some(*wanted));
            stale.insert(
                service.clone(),
                remembered.map(|(container, wanted)| StaleByChoice {
                    service: service.clone(),
                    container_id: container.id.clone(),
                    desired_hash: wanted.clone(),
                }),
            );
        }
        Ok(stale)
    }

    /// Every running consumer has this set's values where the secrets were found, and the other set's nowhere.
    pub(crate) async fn prove_containers(&self, set: Set) -> Result<Seen, Finding> {
        let containers = self.containers().await?;
        let mut places = 0;
        for service in self.about.services_with(Fate::Recreated) {
            let mut own = containers.iter().filter(|c| c.service == service);
            // While compose makes one anew there are two, or none.
            let (Some(container), None) = (own.next(), own.next()) else {
                return Err(Finding::Wrong(format!(
                    "service {service} does not have exactly one container"
                )));
            };
            // Compose that is ended between making and starting leaves this: the values are right, and nothing runs with them.
            if matches!(container.state, State::Created | State::Dead) {
                return Err(Finding::Wrong(format!(
                    "{} was made and never started",
                    container.name
                )));
            }
            let ran = self
                .about
                .services
                .get(&container.service)
                .map(|s| &s.image);
            if ran.is_some_and(|image| *image != container.image_id)
                && !(self.about.build && set == Set::New)
            {
                return Err(Finding::Wrong(format!(
                    "{} runs another image than before",
                    container.name
                )));
            }
            for fact in &self.about.secrets {
                let pair = &self.pairs[&fact.name];
                let (right, wrong) = if set == Set::New {
                    (&pair.new, &pair.old)
                } else {
                    (&pair.old, &pair.new)
                };
                if let Some((key, _)) = container
                    .env
                    .iter()
                    .find(|(_, v)| form_of(wrong.expose(), v.expose()).is_some())
                {
                    return Err(Finding::Wrong(format!(
                        "{} still has another value of {} in {key}",
                        container.name, fact.name
                    )));
                }
                let here = fact.uses.iter().filter(|u| u.service == container.service);
                for (key, embedded) in here.filter_map(|u| Some((u.env_key.as_ref()?, u.embedded)))
                {
                    let fits = |v: &Secret| {
                        form_of(right.expose(), v.expose())
                            .is_some_and(|f| (f != Form::Whole) == embedded)
                    };
                    if !container.env.get(key).is_some_and(fits) {
                        return Err(Finding::Wrong(format!(
                            "{} does not have the value of {} in {key}",
                            container.name, fact.name
                        )));
                    }
                    places += 1;
                }
            }
        }
        Ok(if places == 0 {
            vec![]
        } else {
            vec![format!(
                "the running containers have the values in force in all {places} places"
            )]
        })
    }

    /// The whole environment of every recreated container is what compose says it should be.
    pub(crate) async fn prove_environments(&self) -> Result<(), Finding> {
        let (resolved, containers) = tokio::join!(self.cli.resolved(None), self.containers());
        let resolved = resolved.map_err(|e| Finding::Unknown(self.clean(&e.to_string())))?;
        for container in containers? {
            let recreated = self
                .about
                .services
                .get(&container.service)
                .is_some_and(|s| s.fate == Fate::Recreated);
            let Some(service) = resolved
                .services
                .get(&container.service)
                .filter(|_| recreated)
            else {
                continue;
            };
            if let Some(difference) = compare_env(&container, &service.environment).first() {
                return Err(Finding::Wrong(format!(
                    "{} does not run with what its files say: {difference}",
                    container.name
                )));
            }
        }
        Ok(())
    }

    /// Lines about errors in the recreated containers' logs since they were made anew; for people, not a verdict.
    pub(crate) async fn error_lines(&self, cx: &StepCx) -> Vec<String> {
        let records = cx.writer().records(cx.rotation()).unwrap_or_default();
        let since = records.iter().find_map(|r| match &r.event {
            Event::Intended {
                step,
                direction: Direction::Forward,
                ..
            } if step.as_str() == names::RECREATE => Some(r.at),
            _ => None,
        });
        let mut found = vec![];
        for container in self.containers().await.unwrap_or_default() {
            if self
                .about
                .services
                .get(&container.service)
                .is_none_or(|s| s.fate != Fate::Recreated)
            {
                continue;
            }
            let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
            let lines = self
                .engine
                .logs_since(&container.id, since, LINES)
                .await
                .unwrap_or_default();
            let bad = lines.iter().filter(|l| l.looks_like_error()).take(5);
            found.extend(bad.map(|l| format!("{}: {}", container.service, l.text)));
        }
        found
    }
}
