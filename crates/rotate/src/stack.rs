//! The containers of the stack: making them anew, waiting for them, and comparing what they really have.

use std::time::Duration;

use futures_util::StreamExt as _;
use keyroll_journal::{Direction, Event};
use keyroll_saga::StepCx;
use keyroll_secret::Secret;

use crate::about::Fate;
use crate::checks::Seen;
use crate::panel::Finding;
use crate::preflight::holds;
use crate::runtime::{Container, Health};
use crate::steps::names;
use crate::world::{Set, World};

/// Time for compose to make the containers anew, without their becoming healthy.
const UP: Duration = Duration::from_secs(300);
/// Lines of a container's log that are looked through for errors, and shown when it does not come up.
const LINES: usize = 200;

impl World {
    /// Makes these services' containers anew, and checks that nothing else was made.
    pub(crate) async fn recreate(&self, services: &[String], build: bool) -> Result<(), String> {
        if services.is_empty() {
            return Ok(());
        }
        let project = &self.about.project.name;
        let before = self.engine.volumes_and_networks(project).await?;
        self.cli.up(services, build, UP).await?;
        let after = self.engine.volumes_and_networks(project).await?;
        match after.iter().find(|name| !before.contains(name)) {
            Some(new) => Err(format!(
                "recreating the containers made {new}: they may run beside the old data, not on it"
            )),
            None => Ok(()),
        }
    }

    /// Image references of these services that no longer mean the image that ran: reference, and the id that ran.
    pub(crate) async fn moved_images(
        &self,
        services: &[String],
    ) -> Result<Vec<(String, String)>, String> {
        let mut moved = vec![];
        for fact in services.iter().filter_map(|s| self.about.services.get(s)) {
            let is_it = self
                .engine
                .image_id(&fact.image_ref)
                .await
                .is_ok_and(|id| id == fact.image);
            if !is_it && !fact.image_ref.starts_with("sha256:") {
                moved.push((fact.image_ref.clone(), fact.image.clone()));
            }
        }
        Ok(moved)
    }

    /// Makes moved references mean the images that ran again, so that going back returns the images too.
    pub(crate) async fn pin_images(&self, services: &[String]) -> Result<(), String> {
        for (reference, image) in self.moved_images(services).await? {
            self.engine.tag(&image, &reference).await?;
        }
        Ok(())
    }

    /// Waits until these services are healthy, or run where they have no health check. Listens to the engine's events.
    pub(crate) async fn wait_healthy(
        &self,
        services: &[String],
        limit: Duration,
    ) -> Result<(), Finding> {
        // Listening begins before looking: what happens in between is not missed.
        let mut changes = Box::pin(self.engine.changes(&self.about.project.name));
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let containers = self.containers().await?;
            let mut waiting = None;
            for service in services {
                let container = containers.iter().find(|c| c.service == *service);
                match container.map(|c| (c, state_of(c))) {
                    Some((_, State::Well)) => {}
                    Some((container, State::Dead(why))) => {
                        return Err(self.dead(container, &why).await);
                    }
                    Some((_, State::Coming)) | None => waiting = Some(service),
                }
            }
            let Some(service) = waiting else {
                return Ok(());
            };
            // Events come at once; the short limit covers an event stream that ended.
            let next = tokio::time::timeout(Duration::from_millis(500), changes.next());
            match tokio::time::timeout_at(deadline, next).await {
                Ok(Ok(None)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(Ok(Some(())) | Err(_)) => {}
                Err(_) => {
                    let why = format!("was not healthy within {} s", limit.as_secs());
                    return match containers.iter().find(|c| c.service == *service) {
                        Some(container) => Err(self.dead(container, &why).await),
                        None => Err(Finding::Wrong(format!(
                            "service {service} {why}: it has no container"
                        ))),
                    };
                }
            }
        }
    }

    async fn dead(&self, container: &Container, why: &str) -> Finding {
        let lines = self
            .engine
            .logs(&container.id, 0, 5)
            .await
            .unwrap_or_default();
        Finding::Wrong(self.clean(&format!(
            "{} {why}; its last lines: {}",
            container.name,
            lines.join(" | ")
        )))
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
                    .find(|(_, v)| holds(v.expose(), wrong).is_some())
                {
                    return Err(Finding::Wrong(format!(
                        "{} still has another value of {} in {key}",
                        container.name, fact.name
                    )));
                }
                let here = fact.uses.iter().filter(|u| u.service == container.service);
                for (key, embedded) in here.filter_map(|u| Some((u.env_key.as_ref()?, u.embedded)))
                {
                    let fits = |v: &Secret| holds(v.expose(), right) == Some(embedded);
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
        let unknown = |e: String| Finding::Unknown(self.clean(&e));
        let resolved = self.cli.resolved(None).await.map_err(unknown)?;
        for container in self.containers().await? {
            let recreated = self
                .about
                .services
                .get(&container.service)
                .is_some_and(|s| s.fate == Fate::Recreated);
            let Some(service) = resolved.get(&container.service).filter(|_| recreated) else {
                continue;
            };
            for (key, wanted) in &service.environment {
                if !container
                    .env
                    .get(key)
                    .is_some_and(|has| has.same_as(wanted))
                {
                    return Err(Finding::Wrong(format!(
                        "{} runs with another {key} than its files say",
                        container.name
                    )));
                }
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
            } if step.as_str() == names::RECREATE => Some(r.at.as_second()),
            _ => None,
        });
        let mut found = vec![];
        for container in self.containers().await.unwrap_or_default() {
            if !self
                .about
                .services
                .get(&container.service)
                .is_some_and(|s| s.fate == Fate::Recreated)
            {
                continue;
            }
            let lines = self
                .engine
                .logs(&container.id, since.unwrap_or(0), LINES)
                .await
                .unwrap_or_default();
            let bad = |line: &&String| {
                let line = line.to_lowercase();
                ["error", "fatal", "panic"]
                    .iter()
                    .any(|word| line.contains(word))
            };
            found.extend(
                lines
                    .iter()
                    .filter(bad)
                    .take(5)
                    .map(|line| format!("{}: {}", container.service, self.clean(line))),
            );
        }
        found
    }
}

enum State {
    Well,
    Coming,
    Dead(String),
}

fn state_of(container: &Container) -> State {
    match (container.running, container.health) {
        (true, Health::None | Health::Healthy) => State::Well,
        (true, Health::Starting) => State::Coming,
        (true, Health::Unhealthy) => State::Dead("is unhealthy".into()),
        (false, _) if container.state == "created" => State::Coming,
        (false, _) => State::Dead(format!(
            "is {} (exit code {})",
            container.state, container.exit_code
        )),
    }
}
