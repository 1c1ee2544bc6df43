//! The configuration as compose resolves it: what every container should have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use keyroll_secret::Secret;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::cli::{Cli, Compose, hash_lines};
use super::error::CliError;
use super::v1;

/// A project's configuration with every variable replaced. It holds secrets throughout.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Every service, also those of profiles that are not active.
    pub services: BTreeMap<String, Service>,
    /// What compose wrote (`config --format json`), with its doubled `$`.
    json: Secret,
}

impl Default for Resolved {
    /// No service at all: for searching containers alone.
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            json: Secret::new("{}"),
        }
    }
}

/// A service, as it should be.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// The image it names; without one compose builds `<project>-<service>`.
    pub image: Option<String>,
    /// Whether it has a `build` section.
    pub builds: bool,
    /// Its environment, `env_file`s included, the image's own variables not. Variables without a value are left out.
    pub environment: BTreeMap<String, Secret>,
    /// How many containers it should have.
    pub replicas: u32,
    /// The profiles it belongs to. With any, it runs only when one of them is asked for.
    pub profiles: Vec<String>,
    /// The services it depends on, with the condition (`service_healthy`, `service_completed_successfully`, …).
    pub depends_on: BTreeMap<String, String>,
    /// Names of the volumes it mounts, as the engine knows them; not those that are declared `external`.
    pub volumes: BTreeSet<String>,
    /// Names of its networks, as the engine knows them; not those that are declared `external`.
    pub networks: BTreeSet<String>,
    /// Secrets and configs that are mounted into it.
    pub mounted: Vec<Mounted>,
    /// Every other text of its configuration by its place (`command[2]`, `labels.a`, `healthcheck.test[1]`, `build.args.X`).
    pub texts: Vec<(String, Secret)>,
}

/// A secret or config that is mounted into a service as a file.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Its name at the top level of the compose file.
    pub name: String,
    /// Where it comes from.
    pub source: MountedFrom,
}

/// Where a mounted secret or config comes from.
#[derive(Debug, Clone)]
pub enum MountedFrom {
    /// A file on the host.
    File(PathBuf),
    /// A variable of compose's own environment, so of the project's env file.
    Environment(String),
    /// Written in the compose file.
    Content(Secret),
    /// Made elsewhere.
    External,
}

impl Cli {
    /// compose's own view of the whole configuration. With `env_file`, as if the project's env files were this one file;
    /// but what services name under `env_file:` is read from where it is named, not from there.
    pub async fn resolved(&self, env_file: Option<&Path>) -> Result<Resolved, CliError> {
        let unreadable = || CliError::Unreadable {
            command: "docker compose config".into(),
            reason: "an object `services` was expected".into(),
        };
        let mut asked = self.stack(env_file);
        if let Compose::V1(_) = self.compose() {
            let (stdout, _) = self.ask(asked, &["config"]).await?;
            let json = v1::to_json(&stdout, &self.project().name).ok_or_else(unreadable)?;
            return Resolved::read(json.expose().as_bytes()).ok_or_else(unreadable);
        }
        asked.option("--profile", "*");
        let (stdout, _) = self.ask(asked, &["config", "--format", "json"]).await?;
        Resolved::read(&stdout).ok_or_else(unreadable)
    }

    /// The configuration hash that `docker compose up` would write on each service's containers now.
    ///
    /// `config --hash` alone does not tell it: from 2.22.0 on it leaves the content of `env_file:` out (docker/compose issue
    /// 14001). So the resolved configuration is hashed: it goes back to compose on standard input.
    pub async fn hashes(&self) -> Result<BTreeMap<String, String>, CliError> {
        let resolved = self.resolved(None).await?;
        self.hashes_of(&resolved).await
    }

    /// As [`Cli::hashes`], of a configuration that was resolved before.
    pub async fn hashes_of(
        &self,
        resolved: &Resolved,
    ) -> Result<BTreeMap<String, String>, CliError> {
        self.hash_json(resolved.json.clone()).await
    }

    /// As [`Cli::hashes_of`], with the dependencies of some services reduced to these.
    pub(super) async fn hashes_with_dependencies(
        &self,
        resolved: &Resolved,
        kept: &BTreeMap<String, BTreeSet<String>>,
    ) -> Result<BTreeMap<String, String>, CliError> {
        self.hash_json(resolved.with_dependencies(kept)?).await
    }

    async fn hash_json(&self, json: Secret) -> Result<BTreeMap<String, String>, CliError> {
        if let Compose::V1(_) = self.compose() {
            // Version 1 hashes what it would start, `env_file:` and image id included, and its own files alone.
            let (stdout, _) = self.ask(self.stack(None), &["config", "--hash=*"]).await?;
            return read_hashes(&stdout);
        }
        let project = self.project();
        let mut asked = self.bare(&project.name, &project.working_dir);
        asked.option("--profile", "*");
        asked.option("-f", "-");
        asked.input = Some(json);
        let (stdout, _) = self.ask(asked, &["config", "--hash", "*"]).await?;
        read_hashes(&stdout)
    }
}

fn read_hashes(stdout: &[u8]) -> Result<BTreeMap<String, String>, CliError> {
    hash_lines(stdout).ok_or_else(|| CliError::Unreadable {
        command: "docker compose config --hash".into(),
        reason: "a line with name and hash for each service was expected".into(),
    })
}

impl Resolved {
    fn read(json: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(json).ok()?;
        let root: Value = serde_json::from_str(text).ok()?;
        let services = root.get("services")?.as_object()?;
        let services = services
            .iter()
            .map(|(name, value)| Some((name.clone(), Service::read(value.as_object()?, &root))))
            .collect::<Option<_>>()?;
        let read = Self {
            services,
            json: Secret::new(text),
        };
        wipe(root);
        Some(read)
    }

    /// The image reference of a service's containers.
    pub fn image_of(&self, project: &str, service: &str) -> Option<String> {
        let found = self.services.get(service)?;
        Some(
            found
                .image
                .clone()
                .unwrap_or_else(|| format!("{project}-{service}")),
        )
    }

    /// Services that others wait for to complete: jobs, which are done when they have exited with 0.
    pub fn jobs(&self) -> BTreeSet<String> {
        self.services
            .values()
            .flat_map(|s| &s.depends_on)
            .filter(|(_, condition)| *condition == "service_completed_successfully")
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn with_dependencies(
        &self,
        kept: &BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Secret, CliError> {
        let unreadable = || CliError::Unreadable {
            command: "docker compose config".into(),
            reason: "JSON with an object `services` was expected".into(),
        };
        let mut root: Value = serde_json::from_str(self.json.expose()).map_err(|_| unreadable())?;
        for (service, names) in kept {
            let service = root["services"][service].as_object_mut();
            let Some(service) = service else { continue };
            let none = match service.get_mut("depends_on").and_then(Value::as_object_mut) {
                Some(all) => {
                    all.retain(|name, _| names.contains(name));
                    all.is_empty()
                }
                None => false,
            };
            if none {
                service.shift_remove("depends_on");
            }
        }
        let text = serde_json::to_string(&root).map_err(|_| unreadable())?;
        wipe(root);
        Ok(Secret::new(text))
    }
}

impl Service {
    fn read(found: &Map<String, Value>, root: &Value) -> Self {
        let text = |key: &str| found.get(key).and_then(Value::as_str).map(undouble);
        let mut service = Self {
            image: text("image"),
            builds: found.get("build").is_some_and(|b| !b.is_null()),
            replicas: replicas(found),
            ..Self::default()
        };
        for (key, value) in object(found, "environment") {
            if let Some(value) = scalar(value) {
                service.environment.insert(key.clone(), value);
            }
        }
        for (name, how) in object(found, "depends_on") {
            let condition = how["condition"].as_str().unwrap_or("service_started");
            service
                .depends_on
                .insert(name.clone(), condition.to_owned());
        }
        service.profiles = list(found, "profiles")
            .filter_map(|p| p.as_str().map(str::to_owned))
            .collect();
        for mount in list(found, "volumes").filter(|v| v["type"] == "volume") {
            let source = mount["source"].as_str();
            service
                .volumes
                .extend(source.and_then(|s| engine_name(root, "volumes", s)));
        }
        for (name, _) in object(found, "networks") {
            service.networks.extend(engine_name(root, "networks", name));
        }
        for kind in ["secrets", "configs"] {
            service.mounted.extend(
                list(found, kind)
                    .filter_map(|used| used["source"].as_str())
                    .filter_map(|name| mounted(root, kind, name)),
            );
        }
        let apart = ["environment", "image", "depends_on", "profiles"];
        for (key, value) in found.iter().filter(|(k, _)| !apart.contains(&k.as_str())) {
            texts(key, value, &mut service.texts);
        }
        service
    }
}

/// `deploy.replicas`, else `scale`, else 1 (compose-go `GetScale`).
fn replicas(service: &Map<String, Value>) -> u32 {
    let deploy = service.get("deploy").and_then(|d| d["replicas"].as_u64());
    let scale = service.get("scale").and_then(Value::as_u64);
    deploy
        .or(scale)
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(1)
}

fn object<'a>(
    of: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    of.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn list<'a>(of: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> {
    of.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The name that the engine knows a top-level volume or network by; `None` when it is made elsewhere.
fn engine_name(root: &Value, kind: &str, key: &str) -> Option<String> {
    let found = &root[kind][key];
    if found["external"] == true {
        return None;
    }
    found["name"].as_str().map(undouble)
}

fn mounted(root: &Value, kind: &str, name: &str) -> Option<Mounted> {
    let found = root[kind].get(name)?;
    let text = |key: &str| found[key].as_str().map(undouble);
    let source = if let Some(path) = text("file") {
        MountedFrom::File(path.into())
    } else if let Some(variable) = text("environment") {
        MountedFrom::Environment(variable)
    } else if let Some(content) = text("content") {
        MountedFrom::Content(Secret::new(content))
    } else {
        MountedFrom::External
    };
    Some(Mounted {
        name: name.to_owned(),
        source,
    })
}

/// Every text below `value`, with its place.
fn texts(place: &str, value: &Value, into: &mut Vec<(String, Secret)>) {
    match value {
        Value::String(text) => into.push((place.to_owned(), Secret::new(undouble(text)))),
        Value::Array(all) => {
            for (n, below) in all.iter().enumerate() {
                texts(&format!("{place}[{n}]"), below, into);
            }
        }
        Value::Object(all) => {
            for (key, below) in all {
                texts(&format!("{place}.{key}"), below, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// compose doubles every `$` in what it prints, so that the output can be read back.
fn undouble(text: &str) -> String {
    text.replace("$$", "$")
}

pub(super) fn scalar(value: &Value) -> Option<Secret> {
    match value {
        Value::String(text) => Some(Secret::new(undouble(text))),
        Value::Null => None,
        other => Some(Secret::new(other.to_string())),
    }
}

/// Overwrites the texts of a parsed configuration before its memory is given back.
pub(super) fn wipe(value: Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(text)),
        Value::Array(all) => all.into_iter().for_each(wipe),
        Value::Object(all) => all.into_iter().for_each(|(_, below)| wipe(below)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two services and everything that can hold a secret, as compose 2.26 prints it.
    pub(crate) fn sample() -> Resolved {
        let json = serde_json::json!({
            "name": "p",
            "services": {
                "db": {"image": "postgres:15", "environment": {"POSTGRES_PASSWORD": "pa$$word"}, "networks": {"default": null},
                       "volumes": [{"type": "volume", "source": "data", "target": "/d"},
                                   {"type": "volume", "source": "old", "target": "/o"},
                                   {"type": "bind", "source": "/x", "target": "/y"}]},
                "job": {"build": {"context": "/srv", "args": {"T": "tok$$en"}}, "command": ["sh", "-c", "x $$HOME"]},
                "api": {"image": "app:1", "profiles": ["web"], "deploy": {"replicas": 2},
                        "environment": {"A": "1", "UNSET": null, "N": 5},
                        "labels": {"a.b": "l"}, "healthcheck": {"test": ["CMD-SHELL", "check tok$$en"]},
                        "depends_on": {"db": {"condition": "service_healthy"}, "job": {"condition": "service_completed_successfully"}},
                        "secrets": [{"source": "s1", "target": "/run/secrets/s1"}, {"source": "s2"}], "configs": [{"source": "c1"}]}
            },
            "secrets": {"s1": {"file": "/srv/s1.txt"}, "s2": {"environment": "TOKEN"}},
            "configs": {"c1": {"content": "key = tok$$en"}},
            "volumes": {"data": {"name": "p_data"}, "old": {"name": "old", "external": true}},
            "networks": {"default": {"name": "p_default"}}
        });
        Resolved::read(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_doubled_dollar_is_one_again_everywhere() {
        let all = sample();
        assert_eq!(
            all.services["db"].environment["POSTGRES_PASSWORD"].expose(),
            "pa$word"
        );
        let texts = &all.services["job"].texts;
        let find = |place: &str| {
            texts
                .iter()
                .find(|(p, _)| p == place)
                .map(|(_, t)| t.expose())
        };
        assert_eq!(find("command[2]"), Some("x $HOME"));
        assert_eq!(find("build.args.T"), Some("tok$en"));
    }

    #[test]
    fn a_variable_without_a_value_is_not_there_and_a_number_is_text() {
        let env = &sample().services["api"].environment;
        assert!(!env.contains_key("UNSET"));
        assert_eq!(env["N"].expose(), "5");
    }

    #[test]
    fn volumes_and_networks_go_by_the_engines_names_without_external_ones() {
        let db = &sample().services["db"];
        assert_eq!(db.volumes, BTreeSet::from(["p_data".to_owned()]));
        assert_eq!(db.networks, BTreeSet::from(["p_default".to_owned()]));
    }

    #[test]
    fn jobs_images_and_replicas_are_known() {
        let all = sample();
        assert_eq!(all.jobs(), BTreeSet::from(["job".to_owned()]));
        assert_eq!(all.image_of("p", "job").as_deref(), Some("p-job"));
        assert_eq!(all.image_of("p", "db").as_deref(), Some("postgres:15"));
        assert_eq!(all.services["api"].replicas, 2);
        assert_eq!(all.services["api"].profiles, ["web"]);
    }

    #[test]
    fn mounted_secrets_and_configs_tell_where_they_come_from() {
        let mounted = &sample().services["api"].mounted;
        assert!(
            matches!(&mounted[0].source, MountedFrom::File(p) if p == Path::new("/srv/s1.txt"))
        );
        assert!(matches!(&mounted[1].source, MountedFrom::Environment(v) if v == "TOKEN"));
        assert!(
            matches!(&mounted[2].source, MountedFrom::Content(c) if c.expose() == "key = tok$en")
        );
    }

    #[test]
    fn dependencies_can_be_reduced_without_touching_anything_else() {
        let all = sample();
        let kept = BTreeMap::from([("api".to_owned(), BTreeSet::from(["db".to_owned()]))]);
        let reduced = all.with_dependencies(&kept).unwrap();
        let read = Resolved::read(reduced.expose().as_bytes()).unwrap();
        assert_eq!(read.services["api"].depends_on.len(), 1);
        let none = BTreeMap::from([("api".to_owned(), BTreeSet::new())]);
        let reduced = all.with_dependencies(&none).unwrap();
        assert!(!reduced.expose().contains("depends_on"));
        assert!(
            reduced.expose().contains("pa$$word"),
            "the output stays readable for compose"
        );
    }

    #[test]
    fn a_configuration_prints_without_its_values() {
        assert!(!format!("{:?}", sample()).contains("pa$"));
    }
}
