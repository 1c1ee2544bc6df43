//! What a rotation is about: stored with it when it begins, and all that another process needs to go on. No values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use keyroll_envfile::Owner;
use keyroll_journal::{Rotation, RotationId, Version};
use keyroll_runtimes::compose::Project;
use serde::{Deserialize, Serialize};

use crate::error::RotateError;
use crate::profile::{Profile, SecretKind};

/// Who asked for it, as the trail names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// The login name of the process's user.
    pub login: String,
    /// Who became that user by sudo.
    pub sudo_user: Option<String>,
    /// The host.
    pub host: String,
    /// What `--operator` said.
    pub given: Option<String>,
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self
            .given
            .as_ref()
            .or(self.sudo_user.as_ref())
            .unwrap_or(&self.login);
        write!(f, "{name}@{}", self.host)
    }
}

/// Why it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing has happened.
    #[default]
    Scheduled,
    /// A value may have leaked.
    Incident,
}

impl Reason {
    /// As the trail writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Incident => "incident",
        }
    }
}

/// Everything about a rotation but its values.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    /// The profile as it was loaded.
    pub profile: Profile,
    /// Who.
    pub operator: Operator,
    /// Why.
    pub reason: Reason,
    /// What preflight found and was told to accept.
    pub accepted: Vec<String>,
    /// Safeguards that the operator has switched off for this rotation.
    #[serde(default)]
    pub waived: Vec<String>,
    /// What the makers of the new values said of them.
    #[serde(default)]
    pub validated: Vec<String>,
    /// Whether the application's own checks failed before the rotation, which went on all the same.
    pub panel_sick: bool,
    /// The completed rotation that this one takes back.
    pub takes_back: Option<RotationId>,
    /// Ends grace windows, and rotates nothing: of each secret, `old` is the previous value and `new` the one in force.
    #[serde(default)]
    pub finalizes: bool,
    /// Whether something stands between the application's base URL and the containers that are recreated: none of them publishes
    /// its port.
    pub behind_proxy: bool,
    /// Whether images are built before containers are recreated.
    pub build: bool,
    /// The token that it makes, and rotates nothing.
    #[serde(default)]
    pub makes: Option<MakesFact>,
    /// What is rotated, in the profile's order.
    pub secrets: Vec<SecretFact>,
    /// The compose project as its running containers' labels say.
    pub project: ProjectFact,
    /// Keyed fingerprint of each compose file as preflight read it, in the project's order.
    pub config_fingerprints: Vec<String>,
    /// Keyed fingerprint of what compose wanted of each service at preflight, apart from the rotated values.
    pub pictures: BTreeMap<String, String>,
    /// Every service that had a container, by name.
    pub services: BTreeMap<String, ServiceFact>,
    /// Services that were stale by choice before it began.
    pub stale: Vec<String>,
    /// Where and as whom to log in to the database.
    pub database: Option<DatabaseFact>,
    /// The admin's address.
    pub admin_email: Option<String>,
    /// The env file before and after.
    pub env_file: EnvFact,
    /// Size of the database when preflight measured it, in bytes; for progress.
    pub database_bytes: Option<u64>,
}

impl About {
    /// The full id of the token that it makes.
    pub(crate) fn made(&self) -> Option<String> {
        let fact = self.makes.as_ref().filter(|m| m.setting.is_none());
        fact.map(|made| made.id.clone())
    }

    /// The full id of the token that it gives another value in place.
    pub(crate) fn regenerated(&self) -> Option<String> {
        let fact = self.makes.as_ref().filter(|m| m.setting.is_some());
        fact.map(|made| made.id.clone())
    }
}

/// One secret that is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretFact {
    /// Its name in the profile.
    pub name: String,
    /// What it is.
    pub kind: SecretKind,
    /// Its key in the env file; empty where it has none, see [`SecretFact::env_key`].
    pub key: String,
    /// The settings that hold it and the value before it, where it is kept there.
    #[serde(default)]
    pub setting: Option<SettingFact>,
    /// The full id of the token that is deleted when its grace window has ended.
    #[serde(default)]
    pub retires: Option<String>,
    /// Keyed fingerprint of the value in force before.
    pub old: String,
    /// Keyed fingerprint of the value it gets.
    pub new: String,
    /// Where it is used, found by value.
    pub uses: Vec<Use>,
}

impl SecretFact {
    /// Its key in the env file, if it has one.
    pub(crate) fn env_key(&self) -> Option<&str> {
        Some(self.key.as_str()).filter(|key| !key.is_empty())
    }
}

/// The rows of the settings table that hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SettingFact {
    /// The setting with the value in force.
    pub key: String,
    /// The setting with the value before it.
    pub previous: Option<PreviousFact>,
    /// The setting with the id of what it is the secret of, where that changes with it.
    #[serde(default)]
    pub id: Option<IdFact>,
}

/// A setting that holds an id, which is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdFact {
    /// The setting.
    pub key: String,
    /// What it holds before.
    pub old: String,
    /// What it holds after.
    pub new: String,
}

/// A token that a rotation of its own makes. Its value is sealed as soon as it exists, see [`crate::steps::token`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MakesFact {
    /// The secret that it will be the value of.
    pub secret: String,
    /// The full id of the one in force, whose rights it gets.
    pub like: String,
    /// Its own full id, which nobody has used before.
    pub id: String,
    /// Full ids of tokens that earlier rotations made and that are in use nowhere.
    pub discards: Vec<String>,
    /// Set where no token is made, and the one in force is given another value in place: the setting that gets it.
    #[serde(default)]
    pub setting: Option<String>,
}

/// A setting that holds the value before the one in force, for a grace window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreviousFact {
    /// The setting.
    pub key: String,
    /// What it held before the rotation.
    pub before: Held,
    /// What it holds after it.
    pub after: Held,
    /// Hours of the window that the rotation opens; none where it opens none.
    pub grace_hours: Option<u32>,
}

/// What a setting holds; a value is sealed with the rotation, see [`crate::settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    /// There is no such row.
    Missing,
    /// The row has no value.
    Null,
    /// A value.
    Sealed,
}

/// A place in a service where a secret's value was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    /// The service.
    pub service: String,
    /// The place in words, such as `environment DATABASE_URL`.
    pub place: String,
    /// The key, where the place is the environment.
    pub env_key: Option<String>,
    /// Whether the value is only a part there, such as the password of a URL.
    pub embedded: bool,
    /// Whether the running container shows it: what only the configuration shows cannot be looked at there.
    pub in_container: bool,
}

/// A compose project, as its running containers' labels say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProjectFact {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub working_dir: PathBuf,
    /// Its files, in order.
    pub config_files: Vec<PathBuf>,
    /// What was given as `--env-file`, in order.
    pub env_files: Vec<PathBuf>,
    /// The version of compose that made it.
    pub made_by: String,
}

impl From<&Project> for ProjectFact {
    fn from(project: &Project) -> Self {
        Self {
            name: project.name.clone(),
            working_dir: project.working_dir.clone(),
            config_files: project.config_files.clone(),
            env_files: project.env_files.clone(),
            made_by: project.made_by.clone(),
        }
    }
}

impl From<&ProjectFact> for Project {
    fn from(fact: &ProjectFact) -> Self {
        Self {
            name: fact.name.clone(),
            working_dir: fact.working_dir.clone(),
            config_files: fact.config_files.clone(),
            env_files: fact.env_files.clone(),
            made_by: fact.made_by.clone(),
        }
    }
}

/// What becomes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It uses a rotated secret and is recreated.
    Recreated,
    /// It has a rotated secret in its environment and is left alone by choice of the profile.
    Kept,
    /// It ran once and exited with 0; it is left alone.
    OneShot,
    /// It has nothing to do with the rotation.
    Untouched,
}

/// A service before the rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceFact {
    /// The container's id.
    pub container: String,
    /// The image id that ran.
    pub image: String,
    /// Why it was not well before the rotation, which went on all the same.
    pub sick: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
    /// It had run once and exited with 0: no reason to start it.
    #[serde(default)]
    pub done: bool,
    /// Its addresses on the project's networks.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// A database login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseFact {
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
}

/// The env file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvFact {
    /// The file.
    pub path: PathBuf,
    /// Keyed fingerprint of its bytes before.
    pub before: String,
    /// Keyed fingerprint of its bytes after.
    pub after: String,
    /// Owner, group and permission bits.
    pub owner: Owner,
    /// Keys that are rewritten because they embed or copy a rotated value.
    pub derived: Vec<String>,
}

impl About {
    /// What was stored with a rotation.
    pub(crate) fn of(rotation: &Rotation) -> Result<Self, RotateError> {
        serde_json::from_value(rotation.about.clone()).map_err(|e| {
            RotateError::Failed(format!(
                "what is stored about rotation {} cannot be read: {e}",
                rotation.id
            ))
        })
    }

    /// Whether this version is what the rotation rotates to.
    pub(crate) fn is_new(&self, version: &Version) -> bool {
        let mut secrets = self.secrets.iter();
        secrets.any(|s| s.name == version.secret && s.new == version.fingerprint)
    }

    /// The rotated secret of this kind, if there is one.
    pub(crate) fn secret_of(&self, kind: SecretKind) -> Option<&SecretFact> {
        self.secrets.iter().find(|s| s.kind == kind)
    }

    /// Whether a secret of this kind is rotated.
    pub(crate) fn rotates(&self, kind: SecretKind) -> bool {
        self.secret_of(kind).is_some()
    }

    /// The secrets whose value before stays accepted for a grace window that this rotation opens.
    pub(crate) fn graced(&self) -> Vec<String> {
        let graced = self.secrets.iter().filter(|s| {
            let setting = s.setting.as_ref();
            let previous = setting.and_then(|s| s.previous.as_ref());
            // The token before stays alive until its window is ended.
            let id = setting.and_then(|s| s.id.as_ref());
            previous.is_some_and(|p| p.grace_hours.is_some())
                || id.is_some_and(|id| id.old != id.new)
        });
        graced.map(|s| s.name.clone()).collect()
    }

    /// Whether application sessions end, see [`SecretKind::ends_sessions`].
    pub(crate) fn ends_sessions(&self) -> bool {
        self.secrets.iter().any(|s| s.kind.ends_sessions())
    }

    /// The services with this fate.
    pub(crate) fn services_with(&self, fate: Fate) -> Vec<String> {
        self.services
            .iter()
            .filter(|(_, s)| s.fate == fate)
            .map(|(name, _)| name.clone())
            .collect()
    }
}
