//! Who uses a secret, found by its value.
//!
//! Names say little: the password may stand in `DATABASE_URL`, percent-encoded, in a second env file, in a worker nobody
//! thought of, in a command line, a label, a build argument, a mounted file. So every text of the resolved configuration and
//! of the running containers is searched for the value itself.
//!
//! Not found: a value that was transformed otherwise (base64, a hash), and what a service reads elsewhere at run time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use keyroll_secret::Secret;
use percent_encoding::percent_decode_str;

use super::container::Container;
use super::resolved::{MountedFrom, Resolved};

/// A shorter value is only looked for whole and in the password's place of a URL: as a part, it would be found in words.
const PART_MIN: usize = 6;
/// A mounted file that is larger holds something else than a secret.
const FILE_MAX: u64 = 1 << 20;

/// A place where a secret's value is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Consumer {
    /// The secret's name, as the caller gave it.
    pub secret: String,
    /// The service; the container's name when compose did not make it.
    pub service: String,
    /// Where in the service.
    pub place: Place,
    /// How it stands there.
    pub form: Form,
    /// Which side has it.
    pub seen_in: SeenIn,
}

/// Where in a service a value stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The environment variable of this name.
    Env(String),
    /// Command or entry point.
    Command,
    /// The health check.
    Healthcheck,
    /// The label of this name.
    Label(String),
    /// The build argument of this name: it is in the image's history.
    BuildArg(String),
    /// The mounted secret or config of this name.
    Mounted(String),
    /// Anywhere else in the configuration, by its place there.
    Other(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(key) => write!(f, "environment {key}"),
            Self::Command => f.write_str("command"),
            Self::Healthcheck => f.write_str("health check"),
            Self::Label(key) => write!(f, "label {key}"),
            Self::BuildArg(key) => write!(f, "build argument {key}"),
            Self::Mounted(name) => write!(f, "mounted {name}"),
            Self::Other(place) => f.write_str(place),
        }
    }
}

/// How a value stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// It is the whole text (a trailing newline of a file aside).
    Whole,
    /// It is the password of a URL, unencoded although it has characters that need it.
    UrlRaw,
    /// It is in a URL as a URL wants it.
    UrlEncoded,
    /// It is a part of the text.
    Embedded,
}

/// Which side a value was seen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeenIn {
    /// In the configuration, so it will be in force when the container is recreated.
    Config,
    /// In a container, so it is in force now.
    Container,
    /// In both.
    Both,
}

/// A mounted file that could not be read: it may use any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSearched {
    /// The service.
    pub service: String,
    /// The mounted secret's or config's name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What a search by value found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Every place, sorted.
    pub consumers: Vec<Consumer>,
    /// What could not be searched.
    pub not_searched: Vec<NotSearched>,
}

/// Every place where one of these values (name, value) stands in the configuration or in a container, raw or
/// percent-encoded. `variables` are compose's own, for secrets that are mounted from its environment; see
/// [`Cli::interpolated`](super::Cli::interpolated). Reads the mounted files. A service of another project counts under its own
/// name: ask for those apart ([`Engine::all_containers`](super::Engine::all_containers)), with
/// `Resolved::default()`.
pub fn consumers(
    secrets: &[(String, Secret)],
    resolved: &Resolved,
    containers: &[Container],
    variables: &BTreeMap<String, Secret>,
) -> Uses {
    let mut found: BTreeMap<(String, String, Place, Form), BTreeSet<bool>> = BTreeMap::new();
    let mut note = |service: &str, place: &Place, text: &str, in_container: bool| {
        for (name, secret) in secrets {
            if let Some(form) = form_of(secret.expose(), text) {
                let key = (name.clone(), service.to_owned(), place.clone(), form);
                found.entry(key).or_default().insert(in_container);
            }
        }
    };
    let mut uses = Uses::default();
    for (name, service) in &resolved.services {
        for (key, value) in &service.environment {
            note(name, &Place::Env(key.clone()), value.expose(), false);
        }
        for (place, value) in &service.texts {
            note(name, &place_of(place), value.expose(), false);
        }
        for mounted in &service.mounted {
            match content(&mounted.source, variables) {
                Ok(Some(content)) => {
                    let place = Place::Mounted(mounted.name.clone());
                    note(name, &place, content.expose(), false);
                }
                Ok(None) => {}
                Err(reason) => uses.not_searched.push(NotSearched {
                    service: name.clone(),
                    name: mounted.name.clone(),
                    reason,
                }),
            }
        }
    }
    for container in containers {
        let service = &container.service;
        for (key, value) in &container.env {
            note(service, &Place::Env(key.clone()), value.expose(), true);
        }
        for word in &container.command {
            note(service, &Place::Command, word.expose(), true);
        }
        for word in &container.healthcheck {
            note(service, &Place::Healthcheck, word.expose(), true);
        }
        for (key, value) in &container.labels {
            note(service, &Place::Label(key.clone()), value.expose(), true);
        }
    }
    uses.consumers = found
        .into_iter()
        .map(|((secret, service, place, form), sides)| Consumer {
            secret,
            service,
            place,
            form,
            seen_in: match (sides.contains(&false), sides.contains(&true)) {
                (true, true) => SeenIn::Both,
                (true, false) => SeenIn::Config,
                _ => SeenIn::Container,
            },
        })
        .collect();
    uses
}

/// A place in the resolved configuration, in words shared with containers.
fn place_of(path: &str) -> Place {
    let below = |prefix: &str| path.strip_prefix(prefix).map(str::to_owned);
    if path.starts_with("command") || path.starts_with("entrypoint") {
        Place::Command
    } else if path.starts_with("healthcheck.") {
        Place::Healthcheck
    } else if let Some(key) = below("labels.") {
        Place::Label(key)
    } else if let Some(key) = below("build.args.") {
        Place::BuildArg(key)
    } else {
        Place::Other(path.to_owned())
    }
}

/// What is mounted; `None` when there is nothing to search here.
fn content(
    source: &MountedFrom,
    variables: &BTreeMap<String, Secret>,
) -> Result<Option<Secret>, String> {
    match source {
        MountedFrom::Content(content) => Ok(Some(content.clone())),
        MountedFrom::Environment(name) => match variables.get(name) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!(
                "it is made from the variable {name}, whose value is not known"
            )),
        },
        MountedFrom::File(path) => file(path),
        MountedFrom::External => Ok(None),
    }
}

fn file(path: &Path) -> Result<Option<Secret>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > FILE_MAX {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(e) => {
            drop(zeroize::Zeroizing::new(e.into_bytes()));
            Ok(None) // a key store or an archive: no value of ours is readable in it
        }
    }
}

/// How `value` stands in `text`, if it does.
pub fn form_of(value: &str, text: &str) -> Option<Form> {
    if value.is_empty() {
        return None;
    }
    if text.trim_end_matches(['\n', '\r']) == value {
        return Some(Form::Whole);
    }
    let encoded = keyroll_secret::percent_encode(value);
    let url = text.contains("://");
    let password = |of: &str| url && text.contains(&format!(":{of}@"));
    if password(&encoded) {
        return Some(Form::UrlEncoded);
    }
    if password(value) {
        return Some(Form::UrlRaw);
    }
    if value.len() < PART_MIN {
        return None;
    }
    if text.contains(value) {
        let plain = encoded == value;
        return Some(if url && plain {
            Form::UrlEncoded
        } else {
            Form::Embedded
        });
    }
    // Others encode more or less than keyroll does, or in lower case: what they mean is compared.
    let decoded =
        zeroize::Zeroizing::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
    (text.contains('%') && decoded.contains(value)).then_some(Form::UrlEncoded)
}

#[cfg(test)]
mod tests {
    use super::super::container::tests::sample;
    use super::super::resolved::tests::sample as resolved;
    use super::*;

    #[test]
    fn each_form_is_told_from_the_others() {
        let cases = [
            ("p@ss-word", "p@ss-word", Some(Form::Whole)),
            ("p@ss-word", "p@ss-word\n", Some(Form::Whole)),
            (
                "p@ss-word",
                "postgres://u:p@ss-word@h/d",
                Some(Form::UrlRaw),
            ),
            (
                "p@ss-word",
                "postgres://u:p%40ss-word@h/d",
                Some(Form::UrlEncoded),
            ),
            (
                "p/ss-word",
                "redis://:p%2fss-word@h",
                Some(Form::UrlEncoded),
            ),
            (
                "plain-word",
                "postgres://u:plain-word@h/d",
                Some(Form::UrlEncoded),
            ),
            (
                "plain-word",
                "https://h/?token=plain-word",
                Some(Form::UrlEncoded),
            ),
            (
                "plain-word",
                "user=x password=plain-word",
                Some(Form::Embedded),
            ),
            (
                "p@ss-word",
                "user=x password=p@ss-word",
                Some(Form::Embedded),
            ),
            (
                "panel",
                "postgres://u:panel@h/panel",
                Some(Form::UrlEncoded),
            ),
            ("panel", "postgres://panel:x@h/panel", None),
            ("panel", "the panel", None),
            ("p@ss-word", "another", None),
            ("", "", None),
        ];
        for (value, text, form) in cases {
            assert_eq!(form_of(value, text), form, "{value} in {text}");
        }
    }

    fn search(secrets: &[(&str, &str)], containers: &[Container]) -> Vec<Consumer> {
        let secrets: Vec<(String, Secret)> = secrets
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect();
        let variables = [("TOKEN".to_owned(), Secret::new("mounted-token"))].into();
        consumers(&secrets, &resolved(), containers, &variables).consumers
    }

    #[test]
    fn command_health_check_build_argument_and_mounted_config_are_found() {
        let found = search(&[("T", "tok$en")], &[]);
        let places: Vec<String> = found
            .iter()
            .map(|c| format!("{} {}", c.service, c.place))
            .collect();
        assert_eq!(
            places,
            ["api health check", "api mounted c1", "job build argument T"]
        );
        assert!(found.iter().all(|c| c.seen_in == SeenIn::Config));
    }

    #[test]
    fn a_secret_mounted_from_composes_environment_is_found_by_value() {
        let found = search(&[("T", "mounted-token")], &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, Place::Mounted("s2".into()));
    }

    #[test]
    fn configuration_and_container_are_told_apart() {
        let mut db = sample("db");
        db.env
            .insert("POSTGRES_PASSWORD".into(), Secret::new("pa$word"));
        let mut stray = sample("stray");
        stray.command = vec![Secret::new("--dsn=postgres://u:pa%24word@h")];
        let found = search(&[("PW", "pa$word")], &[db, stray]);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].service.as_str(), found[0].seen_in),
            ("db", SeenIn::Both)
        );
        assert_eq!(
            (found[1].service.as_str(), found[1].seen_in),
            ("stray", SeenIn::Container)
        );
        assert_eq!(found[1].form, Form::UrlEncoded);
    }

    #[test]
    fn a_mounted_file_is_read_and_one_that_cannot_be_is_said() {
        let missing = consumers(&[], &resolved(), &[], &BTreeMap::new()).not_searched;
        let names: Vec<&str> = missing.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(
            names,
            ["s1", "s2"],
            "the file is not there, the variable is not known"
        );
    }
}
