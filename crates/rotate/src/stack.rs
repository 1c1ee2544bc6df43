//! The containers of the stack: making them anew, waiting for them, and comparing what they really have.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use keyroll_journal::{Direction, Event, RotationId};
use keyroll_runtimes::compose::{
    ActError, Cli, CliError, Consumer, Container, Engine, EngineError, Form, MovedImage,
    PointedBack, Project, Recreate, Resolved, StaleByChoice, State, Surroundings, WaitError,
    Waiting, compare_env, consumers,
};
use keyroll_saga::StepCx;
use keyroll_secret::{Redactor, Secret};

use crate::about::Fate;
use crate::checks::Seen;
use crate::panel::Finding;
use crate::picture::{both_sets, pictures};
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

/// Where these values stand in a container.
pub(crate) fn uses_in(container: &Container, values: &[(String, Secret)]) -> Vec<Consumer> {
    let nothing = Resolved::default();
    let one = std::slice::from_ref(container);
    consumers(values, &nothing, one, &BTreeMap::new()).consumers
}

impl World {
    /// Makes these services' containers anew, from the images that ran, and nothing else. Says which image references it
    /// had to move for that.
    pub(crate) async fn recreate(
        &self,
        services: &[String],
        build: bool,
        moved: MovedImage,
        resolved: &Resolved,
    ) -> Result<Vec<PointedBack>, ActError> {
        if services.is_empty() {
            return Ok(vec![]);
        }
        let wanted = self.recreation(services, build, moved);
        let made = self.cli.recreate_as(&self.engine, &wanted, resolved);
        let made = made.await?;
        Ok(made.pointed_back)
    }

    /// Has the image references of these services name the images that ran.
    pub(crate) async fn point_back(
        &self,
        services: &[String],
    ) -> Result<Vec<PointedBack>, ActError> {
        let wanted = self.recreation(services, false, MovedImage::PointBack);
        self.cli.point_back(&self.engine, &wanted).await
    }

    fn recreation(&self, services: &[String], build: bool, moved: MovedImage) -> Recreate {
        let image = |s: &String| Some((s.clone(), self.about.services.get(s)?.image.clone()));
        Recreate {
            services: services.to_vec(),
            images: services.iter().filter_map(image).collect(),
            moved,
            build,
            addresses: self.addresses(services),
            limit: UP,
        }
    }

    /// Where these services were at preflight; nothing where nobody else can have looked their addresses up, since then compose
    /// starts them side by side, which is faster.
    fn addresses(&self, services: &[String]) -> BTreeMap<String, Vec<IpAddr>> {
        if !self.about.behind_proxy {
            return BTreeMap::new();
        }
        let facts = self.about.services.iter();
        let own = facts.filter(|(name, _)| services.contains(name));
        own.map(|(name, fact)| (name.clone(), fact.addresses.clone()))
            .collect()
    }

    /// Waits until these services are healthy, or run where they have no health check; by the engine's events.
    pub(crate) async fn wait_healthy(
        &self,
        services: &[String],
        limit: Duration,
    ) -> Result<(), Finding> {
        if services.is_empty() {
            return Ok(());
        }
        let containers = self.containers().await?;
        self.wait_among(&containers, services, limit).await
    }

    /// [`World::wait_healthy`], of containers that were just looked at.
    async fn wait_among(
        &self,
        containers: &[Container],
        services: &[String],
        limit: Duration,
    ) -> Result<(), Finding> {
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

    /// Waits until every service that is made anew is well. One that was not well before, and was rotated all the same, is not
    /// waited for.
    pub(crate) async fn recreated_are_well(&self) -> Result<(), Finding> {
        self.wait_healthy(&self.well_before(), self.healthy_within())
            .await
    }

    fn healthy_within(&self) -> Duration {
        Duration::from_secs(self.about.profile.limits.healthy_seconds)
    }

    /// The services that are made anew, and were well before.
    fn well_before(&self) -> Vec<String> {
        let mut targets = self.about.services_with(Fate::Recreated);
        let sick = |s: &String| self.about.services.get(s).is_some_and(|f| f.sick.is_some());
        targets.retain(|s| !sick(s));
        targets
    }

    /// None of the new containers has ended since it was made: one that the engine starts again and again runs whenever one
    /// happens to look. Then that they are well.
    pub(crate) async fn recreated_stayed_well(&self) -> Result<(), Finding> {
        let targets = self.well_before();
        let containers = self.containers().await?;
        let mut own = containers.iter().filter(|c| targets.contains(&c.service));
        if let Some(ended) = own.find(|c| c.restart_count > 0) {
            return Err(Finding::Wrong(format!(
                "{} has ended since it was made anew, and the engine has started it {} times again; see `docker logs {}`",
                ended.name, ended.restart_count, ended.name
            )));
        }
        self.wait_among(&containers, &targets, self.healthy_within())
            .await
    }

    /// Services of which compose now wants something else than at preflight, the rotated values aside: a file was edited.
    pub(crate) async fn edited(&self) -> Result<BTreeSet<String>, Finding> {
        Ok(self.edited_in(&self.resolved().await?))
    }

    /// compose's own view of the project as its files are now.
    pub(crate) async fn resolved(&self) -> Result<Resolved, Finding> {
        let resolved = self.cli.resolved(None).await;
        resolved.map_err(|e| Finding::Unknown(self.clean(&e.to_string())))
    }

    /// [`World::edited`], in what was just asked for.
    pub(crate) fn edited_in(&self, resolved: &Resolved) -> BTreeSet<String> {
        let key = self.identity.fingerprint_key();
        let now = pictures(resolved, &both_sets(&self.pairs), &key);
        let before = &self.about.pictures;
        let names = before.keys().chain(now.keys());
        names
            .filter(|name| now.get(*name) != before.get(*name))
            .cloned()
            .collect()
    }

    /// Containers left alone although compose would now make them anew; `None` for a service that is as it should be.
    pub(crate) async fn stale_by_choice(
        &self,
    ) -> Result<BTreeMap<String, Option<StaleByChoice>>, Finding> {
        let (hashes, containers, edited) =
            tokio::join!(self.cli.hashes(), self.containers(), self.edited());
        let hashes = hashes.map_err(|e| Finding::Unknown(self.clean(&e.to_string())))?;
        let (containers, edited) = (containers?, edited?);
        let mut stale = BTreeMap::new();
        for (service, fact) in &self.about.services {
            // What somebody else changed about it meanwhile is no choice of keyroll's: the next preflight shall see it.
            let left = (matches!(fact.fate, Fate::Kept | Fate::OneShot)
                || self.about.stale.contains(service))
                && !edited.contains(service);
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
        self.containers_hold(set, &self.containers().await?)
    }

    /// [`World::prove_containers`], of what was just looked at.
    pub(crate) fn containers_hold(
        &self,
        set: Set,
        containers: &[Container],
    ) -> Result<Seen, Finding> {
        let other = if set == Set::New { Set::Old } else { Set::New };
        let named = |set| -> Vec<(String, Secret)> {
            let held = self.held(set).into_iter();
            held.map(|(name, value)| (name.to_owned(), value.clone()))
                .collect()
        };
        let (right, mut wrong) = (named(set), named(other));
        // The panel's own password, where the files have another one, must be nowhere either.
        let old = self.pairs.iter().filter(|(_, pair)| pair.written.is_some());
        wrong.extend(old.map(|(name, pair)| (name.clone(), pair.old.clone())));
        let mut places = 0;
        for service in self.about.services_with(Fate::Recreated) {
            let mut own = containers.iter().filter(|c| c.service == service);
            // While compose makes one anew there are two, or none.
            let (Some(container), None) = (own.next(), own.next()) else {
                return Err(Finding::Wrong(format!(
                    "service {service} does not have exactly one container"
                )));
            };
            self.is_as_it_was(container, set)?;
            if let Some(found) = uses_in(container, &wrong).first() {
                return Err(Finding::Wrong(format!(
                    "{} still has another value of {} in {}",
                    container.name, found.secret, found.place
                )));
            }
            let found = uses_in(container, &right);
            for fact in &self.about.secrets {
                let here = fact.uses.iter().filter(|u| u.service == service);
                for wanted in here.filter(|u| u.in_container) {
                    let there = found.iter().any(|f| {
                        f.secret == fact.name
                            && f.place.to_string() == wanted.place
                            && (f.form != Form::Whole) == wanted.embedded
                    });
                    if !there {
                        return Err(Finding::Wrong(format!(
                            "{} does not have the value of {} in {}",
                            container.name, fact.name, wanted.place
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

    /// It runs, as the container from preflight did, from the image that ran, and is one that can have this set's values.
    fn is_as_it_was(&self, container: &Container, set: Set) -> Result<(), Finding> {
        let Some(fact) = self.about.services.get(&container.service) else {
            return Ok(());
        };
        // One that was not well before may end again; but compose that is ended between making and starting leaves containers
        // with the right values that nothing runs with.
        let made = matches!(container.state, State::Created | State::Dead);
        if made || (container.state != State::Running && fact.sick.is_none()) {
            return Err(Finding::Wrong(format!(
                "{} does not run, it is {}",
                container.name, container.state
            )));
        }
        if fact.image != container.image_id && !(self.about.build && set == Set::New) {
            return Err(Finding::Wrong(format!(
                "{} runs another image than before",
                container.name
            )));
        }
        // Where no value shows in the container, that it was made anew is all that can be seen.
        if set == Set::New && container.id == fact.container {
            return Err(Finding::Wrong(format!(
                "{} was not made anew",
                container.name
            )));
        }
        Ok(())
    }

    /// Whether every container from preflight still runs, or shows by its values which set it has.
    pub(crate) async fn containers_can_tell(&self) -> Result<bool, Finding> {
        let containers = self.containers().await?;
        let same = |id: &str| containers.iter().any(|c| c.id == id);
        Ok(self.about.services_with(Fate::Recreated).iter().all(|s| {
            let uses = self.about.secrets.iter().flat_map(|f| &f.uses);
            let shown = uses.filter(|u| u.service == *s).all(|u| u.in_container);
            shown || same(&self.about.services[s].container)
        }))
    }

    /// The whole environment of every recreated container is what compose says it should be.
    pub(crate) async fn prove_environments(&self, containers: &[Container]) -> Result<(), Finding> {
        let resolved = self.resolved().await?;
        for container in containers {
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
            if let Some(difference) = compare_env(container, &service.environment).first() {
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
