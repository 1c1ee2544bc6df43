//! Who uses each secret, and whether the edit of the env file reaches all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use keyroll_runtimes::compose::{
    Consumer, Form, Place, Resolved, SeenIn, State, consumers, sickness,
};
use keyroll_secret::Secret;

use super::Findings;
use super::env::Edit;
use super::project::Seen;
use crate::about::{EnvFact, Fate, ServiceFact, Use};
use crate::at_rest;
use crate::error::Code;
use crate::profile::Profile;
use crate::world::{Pair, Set};

/// Finds the uses of every rotated secret, and refuses those that the edit of the env file would not reach.
pub(super) async fn find(
    profile: &Profile,
    seen: &Seen,
    edit: &Edit,
    pairs: &BTreeMap<String, Pair>,
    env: &EnvFact,
    found: &mut Findings,
) -> BTreeMap<String, Vec<Use>> {
    let trial = match edit.trial(profile, pairs) {
        Some(text) => try_with(seen, &text).await,
        None => Err("the env file cannot be edited on trial".into()),
    };
    let trial = match trial {
        Ok(trial) => trial,
        Err(why) => {
            found.refuse(
                Code::Consumer,
                format!("could not ask compose what depends on the env file: {why}"),
                "mend it",
            );
            return BTreeMap::new();
        }
    };
    let secrets: Vec<(String, Secret)> = pairs
        .iter()
        .map(|(name, pair)| (name.clone(), pair.held(Set::Old).clone()))
        .collect();
    // Compose secrets from its environment count as consumers when their variable is one of the env file's.
    let variables = edit.values();
    let uses = consumers(&secrets, &seen.resolved, &seen.containers, &variables);
    for hidden in &uses.not_searched {
        found.note(format!(
            "{} of service {} could not be searched for secrets: {}",
            hidden.name, hidden.service, hidden.reason
        ));
    }
    let on_trial: BTreeSet<_> = consumers(&secrets, &trial, &[], &variables)
        .consumers
        .into_iter()
        .map(|c| (c.secret, c.service, c.place))
        .collect();
    let mut all: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    for consumer in uses.consumers {
        if seen.stale.contains(&consumer.service) && consumer.seen_in == SeenIn::Container {
            continue;
        }
        let name = &consumer.secret;
        let key = &profile.secrets[name].key;
        let edited = |k: &String| k == key || env.derived.contains(k);
        // Interpolated: another value in the env file changes it. Taken by `env_file`: the key is one that is edited.
        let interpolated = !on_trial.contains(&(
            name.clone(),
            consumer.service.clone(),
            consumer.place.clone(),
        ));
        let taken = matches!(&consumer.place, Place::Env(k) if edited(k))
            && reads_the_file(seen, &consumer.service, edit);
        if consumer.seen_in == SeenIn::Container {
            found.refuse(
                Code::Consumer,
                format!("the container of {} has the value of {name} in {}, its configuration does not", consumer.service, consumer.place),
                "find out where it comes from; bring the stack up with the files as they are, then run keyroll again",
            );
        } else if !(interpolated || taken) {
            found.refuse(
                Code::Consumer,
                format!("service {} has the value of {name} in {} from somewhere else than {}", consumer.service, consumer.place, env.path.display()),
                "have it take the value from the env file (`env_file`, or ${KEY} in the compose file), bring the stack up, then run keyroll again",
            );
        }
        all.entry(name.clone()).or_default().push(to_use(&consumer));
    }
    for service in all
        .values()
        .flatten()
        .map(|u| &u.service)
        .collect::<BTreeSet<_>>()
    {
        let containers = seen
            .containers
            .iter()
            .filter(|c| c.service == *service)
            .count();
        if containers > 1 {
            found.refuse(
                Code::Project,
                format!(
                    "service {service} uses a rotated secret and runs as {containers} containers"
                ),
                "keyroll rotates services of one container each; scale it to one first",
            );
        }
    }
    strangers(seen, &secrets, found);
    for name in pairs.keys() {
        let uses = all.get(name).map_or(&[][..], Vec::as_slice);
        let own = seen.containers.iter();
        let own = own.filter(|c| uses.iter().any(|u| u.service == c.service));
        let images: Vec<&str> = own.map(|c| c.image_ref.as_str()).collect();
        // A service may know it by another name than the env file.
        let whole = uses.iter().filter(|u| !u.embedded);
        let keys: Vec<&str> = whole.filter_map(|u| u.env_key.as_deref()).collect();
        let refusal = at_rest::refusal(name, &profile.secrets[name], &keys, &images);
        found.refusals.extend(refusal);
    }
    all
}

/// Refuses where a value that is kept in the application's settings is used past them: the new one would not get there.
pub(super) fn elsewhere(
    seen: &Seen,
    edit: &Edit,
    name: &str,
    value: &Secret,
    found: &mut Findings,
) {
    let secrets = [(name.to_owned(), value.clone())];
    let uses = consumers(&secrets, &seen.resolved, &seen.containers, &edit.values());
    for consumer in uses.consumers {
        found.refuse(
            Code::Consumer,
            format!(
                "service {} has the value of {name}, which is kept in the application's settings, in {} too",
                consumer.service, consumer.place
            ),
            format!("take it out there, or give secrets.{name} its `key` in the env file beside `setting`"),
        );
    }
    strangers(seen, &secrets, found);
}

fn to_use(consumer: &Consumer) -> Use {
    let env_key = match &consumer.place {
        Place::Env(key) => Some(key.clone()),
        _ => None,
    };
    Use {
        service: consumer.service.clone(),
        place: consumer.place.to_string(),
        env_key,
        embedded: consumer.form != Form::Whole,
        in_container: consumer.seen_in != SeenIn::Config,
    }
}

/// Running containers outside of the project that hold a value: they would be cut off.
fn strangers(seen: &Seen, secrets: &[(String, Secret)], found: &mut Findings) {
    let nothing = Resolved::default();
    let running = seen.others.iter().filter(|c| c.state == State::Running);
    for container in running {
        let uses = consumers(
            secrets,
            &nothing,
            std::slice::from_ref(container),
            &BTreeMap::new(),
        );
        for consumer in uses.consumers {
            found.refuse(
                Code::Consumer,
                format!(
                    "container {}, which is not part of the project, has the value of {} in {}",
                    container.name, consumer.secret, consumer.place
                ),
                "stop it, or give it the value in another way; it would be cut off",
            );
        }
    }
}

/// Whether a service takes the env file by `env_file`: everything that the file defines stands in its environment.
fn reads_the_file(seen: &Seen, service: &str, edit: &Edit) -> bool {
    let service = seen.resolved.services.get(service);
    service.is_some_and(|s| edit.keys().all(|key| s.environment.contains_key(key)))
}

/// Compose's view of the project with other values in the env file. The stand-ins are no secrets, the other keys are: the
/// text is in memory and never on a disk. Compose opens it by this process's descriptor, as often as it likes.
async fn try_with(seen: &Seen, text: &Secret) -> Result<Resolved, String> {
    let failed = |e: std::io::Error| format!("an env file in memory: {e}");
    let memory = rustix::fs::memfd_create("env-file", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| failed(e.into()))?;
    let mut memory = std::fs::File::from(memory);
    memory.write_all(text.expose().as_bytes()).map_err(failed)?;
    let path = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        memory.as_raw_fd()
    ));
    seen.cli
        .resolved(Some(&path))
        .await
        .map_err(|e| e.to_string())
}

/// What becomes of each service.
pub(super) fn fates(
    profile: &Profile,
    seen: &Seen,
    uses: &BTreeMap<String, Vec<Use>>,
) -> BTreeMap<String, ServiceFact> {
    let affected: BTreeSet<&str> = uses
        .values()
        .flatten()
        .map(|u| u.service.as_str())
        .collect();
    let sick = sickness(&seen.containers);
    let mut facts = BTreeMap::new();
    for container in &seen.containers {
        let fate = if !affected.contains(container.service.as_str()) {
            Fate::Untouched
        } else if profile.compose.keep.contains(&container.service) {
            Fate::Kept
        } else if container.is_done() {
            Fate::OneShot
        } else {
            Fate::Recreated
        };
        let why = sick
            .iter()
            .find(|s| s.container == container.name)
            .map(|s| s.why.to_string());
        let fact = ServiceFact {
            container: container.id.clone(),
            image: container.image_id.clone(),
            fate,
            done: container.is_done(),
            sick: why,
            addresses: container.networks.iter().map(|(_, ip)| *ip).collect(),
        };
        facts.insert(container.service.clone(), fact);
    }
    facts
}
