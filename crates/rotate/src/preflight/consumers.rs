//! Who uses each secret: found by value, wherever it stands, raw or percent-encoded.

use std::collections::BTreeMap;

use keyroll_secret::{Secret, percent_encode};
use serde_json::Value;

use super::Findings;
use super::env::Edit;
use super::project::{Seen, is_done};
use crate::about::{EnvFact, Fate, ServiceFact, Use};
use crate::error::Code;
use crate::profile::Profile;
use crate::runtime::Service;
use crate::world::Pair;

/// Shorter values stand in too many texts by chance to be found as a part of one.
const DISTINCT: usize = 8;

/// Whether `text` is the value, or holds it.
pub(crate) fn holds(text: &str, value: &Secret) -> Option<bool> {
    let raw = value.expose();
    if raw.is_empty() {
        None
    } else if text == raw {
        Some(false)
    } else if raw.len() >= DISTINCT && (text.contains(raw) || text.contains(&percent_encode(raw))) {
        Some(true)
    } else {
        None
    }
}

/// Every place in a service's resolved configuration that holds the value.
fn places(name: &str, service: &Service, value: &Secret) -> Vec<Use> {
    let mut uses = vec![];
    for (key, text) in &service.environment {
        if let Some(embedded) = holds(text.expose(), value) {
            uses.push(Use {
                service: name.to_owned(),
                place: format!("environment {key}"),
                env_key: Some(key.clone()),
                embedded,
            });
        }
    }
    walk(&service.rest, &mut vec![], &mut |path, text| {
        if let Some(embedded) = holds(text, value) {
            uses.push(Use {
                service: name.to_owned(),
                place: path.join("."),
                env_key: None,
                embedded,
            });
        }
    });
    uses
}

fn walk(value: &Value, path: &mut Vec<String>, each: &mut impl FnMut(&[String], &str)) {
    match value {
        Value::String(text) => each(path, text),
        Value::Array(all) => {
            for (i, value) in all.iter().enumerate() {
                path.push(i.to_string());
                walk(value, path, each);
                path.pop();
            }
        }
        Value::Object(all) => {
            for (key, value) in all {
                path.push(key.clone());
                walk(value, path, each);
                path.pop();
            }
        }
        _ => {}
    }
}

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
    let mut all = BTreeMap::new();
    for (name, pair) in pairs {
        let own_key = &profile.secrets[name].key;
        let mut uses: Vec<Use> = vec![];
        for (service, now) in &seen.resolved {
            uses.extend(places(service, now, &pair.old));
        }
        for one in &uses {
            // Interpolated from the env file: another value there changes it here. Taken from it by `env_file`: the key is one
            // that is edited.
            let after = trial.get(&one.service);
            let interpolated =
                after.is_some_and(|s| !places(&one.service, s, &pair.old).contains(one));
            let edited = one
                .env_key
                .as_ref()
                .is_some_and(|k| k == own_key || env.derived.contains(k));
            let reached = interpolated || (edited && reads_the_file(seen, &one.service, profile));
            if !reached {
                found.refuse(
                    Code::Consumer,
                    format!("service {} has the value of {name} in {} from somewhere else than {}", one.service, one.place, env.path.display()),
                    "have it take the value from the env file (`env_file`, or ${KEY} in the compose file), bring the stack up, then run keyroll again",
                );
            }
        }
        for container in &seen.containers {
            for (key, text) in &container.env {
                let known = uses
                    .iter()
                    .any(|u| u.service == container.service && u.env_key.as_ref() == Some(key));
                if known || seen.stale.contains(&container.service) {
                    continue;
                }
                if holds(text.expose(), &pair.old).is_some() {
                    found.refuse(
                        Code::Consumer,
                        format!("container {} has the value of {name} in {key}, its configuration does not", container.name),
                        "find out where it comes from; bring the stack up with the files as they are, then run keyroll again",
                    );
                }
            }
        }
        all.insert(name.clone(), uses);
    }
    strangers(seen, pairs, found).await;
    all
}

/// Running containers outside of the project that hold a value: they would be cut off.
async fn strangers(seen: &Seen, pairs: &BTreeMap<String, Pair>, found: &mut Findings) {
    let everything = match seen.engine.everything().await {
        Ok(everything) => everything,
        Err(why) => {
            found.refuse(
                Code::Consumer,
                format!("could not look at the other containers of this host: {why}"),
                "mend it",
            );
            return;
        }
    };
    for container in everything
        .iter()
        .filter(|c| c.project != seen.fact.name || c.one_off)
    {
        for (name, pair) in pairs {
            let key = container
                .env
                .iter()
                .find(|(_, text)| holds(text.expose(), &pair.old).is_some());
            if let Some((key, _)) = key {
                found.refuse(
                    Code::Consumer,
                    format!("container {}, which is not part of the project, has the value of {name} in {key}", container.name),
                    "stop it, or give it the value in another way; it would be cut off",
                );
            }
        }
    }
}

/// Whether a service takes the env file by `env_file`: everything that the file defines stands in its environment.
fn reads_the_file(seen: &Seen, service: &str, profile: &Profile) -> bool {
    let path = profile
        .env_file()
        .canonicalize()
        .unwrap_or_else(|_| profile.env_file().to_owned());
    let Ok(text) = std::fs::read(&path).map(zeroize::Zeroizing::new) else {
        return false;
    };
    let Ok(file) = keyroll_envfile::EnvFile::parse(&text) else {
        return false;
    };
    let Some(service) = seen.resolved.get(service) else {
        return false;
    };
    file.keys().all(|key| service.environment.contains_key(key))
}

/// Compose's view of the project with other values in the env file. The stand-ins are no secrets, the other keys are: the
/// file lies in a private directory for as long as compose reads it.
async fn try_with(seen: &Seen, text: &Secret) -> Result<BTreeMap<String, Service>, String> {
    let scratch = tempfile::Builder::new()
        .prefix("keyroll-")
        .tempdir()
        .map_err(|e| format!("no scratch directory: {e}"))?;
    let path = scratch.path().join("trial.env");
    std::fs::write(&path, text.expose()).map_err(|e| format!("{}: {e}", path.display()))?;
    seen.cli.resolved(Some(&path)).await
}

/// What becomes of each service.
pub(super) fn fates(
    profile: &Profile,
    seen: &Seen,
    uses: &BTreeMap<String, Vec<Use>>,
) -> BTreeMap<String, ServiceFact> {
    let uses = |service: &str| uses.values().flatten().any(|u| u.service == service);
    let fate = |container: &crate::runtime::Container| {
        if !uses(&container.service) {
            Fate::Untouched
        } else if profile.compose.keep.contains(&container.service) {
            Fate::Kept
        } else if is_done(container) {
            Fate::OneShot
        } else {
            Fate::Recreated
        }
    };
    let fact = |c: &crate::runtime::Container| ServiceFact {
        container: c.id.clone(),
        image: c.image_id.clone(),
        image_ref: seen
            .resolved
            .get(&c.service)
            .and_then(|s| s.image.clone())
            .unwrap_or_else(|| c.image_ref.clone()),
        fate: fate(c),
        sick: super::project::why_sick(c),
    };
    seen.containers
        .iter()
        .map(|c| (c.service.clone(), fact(c)))
        .collect()
}
