//! What a plain `docker compose up` would change now, before anything is rotated.
//!
//! An image that was re-tagged, or a file that was edited since the stack was started, would be deployed by surprise together
//! with the new secrets, and a rollback could not bring it back. So both are compared: the configuration hash in each
//! container's label with the one that compose computes now, and each container's image with what its reference names now.
//!
//! A difference that is none: before 2.29.3, `--no-deps` drops dependencies from the configuration before it is hashed
//! (docker/compose issue 12069), so a container that was recreated with it, by keyroll or by hand, has another hash than a
//! plain `up` would give it. Its label with the dependencies that were left tells exactly which, so the hash is computed
//! once more with those.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cli::Cli;
use super::container::Container;
use super::engine::Engine;
use super::error::CliError;
use super::resolved::Resolved;

/// A container that was left alone by choice although its configuration changed, such as a database that reads its password
/// at first start only. It is no drift as long as it is the same container and compose wants the same of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleByChoice {
    /// The service.
    pub service: String,
    /// The container's id.
    pub container_id: String,
    /// The configuration hash that compose wanted for it when the choice was made.
    pub desired_hash: String,
}

/// A service that does not run what its files describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The service.
    pub service: String,
    /// In which respect.
    pub what: DriftKind,
    /// What runs: a hash, an image id, or a container's name.
    pub running: String,
    /// What would run after `docker compose up`.
    pub wanted: String,
}

/// In which respect a service differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// Its configuration, environment included, is another.
    ConfigHash,
    /// Its image reference names another image now.
    ImageId,
    /// Its image reference names no image here.
    ImageGone,
    /// The configuration has it, and it has no container.
    Missing,
    /// It has a container, and the configuration does not have it.
    Orphan,
}

impl Cli {
    /// Compares every container of the project with the configuration as it is now. Asks compose two or three times (some
    /// 60 ms each) and the engine once for each image. A service of an inactive profile may be missing.
    pub async fn drift(
        &self,
        engine: &Engine,
        containers: &[Container],
        accepted: &[StaleByChoice],
    ) -> Result<Vec<Drift>, CliError> {
        let resolved = self.resolved(None).await?;
        let wanted = self.hashes_of(&resolved).await?;
        let reduced = reductions(containers, &resolved, &wanted);
        let fallback = if reduced.is_empty() {
            BTreeMap::new()
        } else {
            self.hashes_with_dependencies(&resolved, &reduced).await?
        };
        let mut images = BTreeMap::new();
        for container in containers.iter().filter(|c| !c.one_off) {
            let named = resolved.image_of(&self.project().name, &container.service);
            if let Some(reference) = named.filter(|r| !images.contains_key(r)) {
                let id = engine.image_id(&reference).await?;
                images.insert(reference, id);
            }
        }
        Ok(compare(&Facts {
            project: &self.project().name,
            containers,
            resolved: &resolved,
            wanted: &wanted,
            fallback: &fallback,
            images: &images,
            accepted,
        }))
    }
}

/// What [`compare`] judges by.
struct Facts<'a> {
    project: &'a str,
    containers: &'a [Container],
    resolved: &'a Resolved,
    wanted: &'a BTreeMap<String, String>,
    /// Hashes with the dependencies that containers were left with.
    fallback: &'a BTreeMap<String, String>,
    /// Image references and what they name now.
    images: &'a BTreeMap<String, Option<String>>,
    accepted: &'a [StaleByChoice],
}

/// The dependencies that containers with an unexpected hash were left with, where these are fewer than configured.
fn reductions(
    containers: &[Container],
    resolved: &Resolved,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeSet<String>> {
    containers
        .iter()
        .filter(|c| !c.one_off && c.config_hash.as_ref() != wanted.get(&c.service))
        .filter_map(|c| {
            let configured = &resolved.services.get(&c.service)?.depends_on;
            let fewer = configured.len() > c.depends_on.len()
                && c.depends_on.iter().all(|d| configured.contains_key(d));
            fewer.then(|| (c.service.clone(), c.depends_on.clone()))
        })
        .collect()
}

fn compare(facts: &Facts) -> Vec<Drift> {
    let mut found = Vec::new();
    let lasting: Vec<&Container> = facts.containers.iter().filter(|c| !c.one_off).collect();
    for container in &lasting {
        if facts.resolved.services.contains_key(&container.service) {
            found.extend(config_drift(facts, container));
            found.extend(image_drift(facts, container));
        } else {
            found.push(Drift {
                service: container.service.clone(),
                what: DriftKind::Orphan,
                running: container.name.clone(),
                wanted: "no such service".into(),
            });
        }
    }
    for (name, service) in &facts.resolved.services {
        let none = lasting.iter().all(|c| c.service != *name);
        if none && service.profiles.is_empty() && service.replicas > 0 {
            found.push(Drift {
                service: name.clone(),
                what: DriftKind::Missing,
                running: "no container".into(),
                wanted: "a container".into(),
            });
        }
    }
    found
}

fn config_drift(facts: &Facts, container: &Container) -> Option<Drift> {
    let service = &container.service;
    let running = container.config_hash.as_deref().unwrap_or("no hash");
    let wanted = facts.wanted.get(service)?;
    let same = running == wanted || facts.fallback.get(service).is_some_and(|h| h == running);
    let chosen = facts.accepted.iter().any(|stale| {
        stale.service == *service
            && stale.container_id == container.id
            && stale.desired_hash == *wanted
    });
    if same || chosen {
        return None;
    }
    Some(Drift {
        service: service.clone(),
        what: DriftKind::ConfigHash,
        running: running.to_owned(),
        wanted: wanted.clone(),
    })
}

fn image_drift(facts: &Facts, container: &Container) -> Option<Drift> {
    let service = &container.service;
    let reference = facts.resolved.image_of(facts.project, service)?;
    let (what, wanted) = match facts.images.get(&reference)? {
        Some(id) if *id == container.image_id => return None,
        Some(id) => (DriftKind::ImageId, format!("{reference} ({id})")),
        None => (DriftKind::ImageGone, format!("{reference} (not here)")),
    };
    Some(Drift {
        service: service.clone(),
        what,
        running: container.image_id.clone(),
        wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::super::container::tests::sample;
    use super::super::resolved::tests::sample as resolved;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    }

    struct Stack {
        containers: Vec<Container>,
        resolved: Resolved,
        wanted: BTreeMap<String, String>,
        fallback: BTreeMap<String, String>,
        images: BTreeMap<String, Option<String>>,
        accepted: Vec<StaleByChoice>,
    }

    impl Stack {
        /// Three services, all as they should be.
        fn new() -> Self {
            let image = |name: &str| (name.to_owned(), Some("sha256:aa".to_owned()));
            Self {
                containers: ["api", "db", "job"].map(sample).into(),
                resolved: resolved(),
                wanted: map(&[("api", "hash"), ("db", "hash"), ("job", "hash")]),
                fallback: BTreeMap::new(),
                images: [image("app:1"), image("postgres:15"), image("p-job")].into(),
                accepted: vec![],
            }
        }

        fn drift(&self) -> Vec<(String, DriftKind)> {
            compare(&Facts {
                project: "p",
                containers: &self.containers,
                resolved: &self.resolved,
                wanted: &self.wanted,
                fallback: &self.fallback,
                images: &self.images,
                accepted: &self.accepted,
            })
            .into_iter()
            .map(|d| (d.service, d.what))
            .collect()
        }
    }

    #[test]
    fn a_stack_as_it_was_started_has_no_drift() {
        assert_eq!(Stack::new().drift(), []);
    }

    #[test]
    fn an_edited_file_a_retagged_and_a_removed_image_are_drift() {
        let mut stack = Stack::new();
        stack.wanted.insert("db".into(), "edited".into());
        stack
            .images
            .insert("app:1".into(), Some("sha256:bb".into()));
        stack.images.insert("p-job".into(), None);
        let expected = [
            ("api".to_owned(), DriftKind::ImageId),
            ("db".to_owned(), DriftKind::ConfigHash),
            ("job".to_owned(), DriftKind::ImageGone),
        ];
        assert_eq!(stack.drift(), expected);
    }

    #[test]
    fn what_is_stale_by_choice_is_none_until_container_or_wish_change() {
        let mut stack = Stack::new();
        stack.wanted.insert("db".into(), "new".into());
        stack.accepted = vec![StaleByChoice {
            service: "db".into(),
            container_id: stack.containers[1].id.clone(),
            desired_hash: "new".into(),
        }];
        assert_eq!(stack.drift(), []);
        stack.wanted.insert("db".into(), "newer".into());
        assert_eq!(stack.drift(), [("db".to_owned(), DriftKind::ConfigHash)]);
        stack.wanted.insert("db".into(), "new".into());
        stack.containers[1].id = "another".into();
        assert_eq!(stack.drift(), [("db".to_owned(), DriftKind::ConfigHash)]);
    }

    #[test]
    fn a_container_without_some_of_its_dependencies_is_hashed_without_them() {
        let mut stack = Stack::new();
        stack.wanted.insert("api".into(), "full".into());
        stack.containers[0].depends_on = BTreeSet::from(["db".to_owned()]);
        let reduced = reductions(&stack.containers, &stack.resolved, &stack.wanted);
        assert_eq!(reduced["api"], BTreeSet::from(["db".to_owned()]));
        stack.fallback = map(&[("api", "hash")]);
        assert_eq!(stack.drift(), []);
        stack.fallback = map(&[("api", "other")]);
        assert_eq!(stack.drift(), [("api".to_owned(), DriftKind::ConfigHash)]);
        // With all its dependencies, another hash is drift and nothing is computed again.
        stack.containers[0].depends_on = BTreeSet::from(["db".to_owned(), "job".to_owned()]);
        assert!(reductions(&stack.containers, &stack.resolved, &stack.wanted).is_empty());
    }

    #[test]
    fn missing_services_and_orphans_are_named_and_inactive_profiles_may_be_missing() {
        let mut stack = Stack::new();
        stack.containers = vec![sample("db"), sample("old")];
        let expected = [
            ("old".to_owned(), DriftKind::Orphan),
            ("job".to_owned(), DriftKind::Missing), // api belongs to a profile
        ];
        assert_eq!(stack.drift(), expected);
    }
}
