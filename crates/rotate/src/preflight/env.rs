//! The env file: values in force, values to come, and the edit between them, in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keyroll_envfile::{EnvFile, Reading, Scope, check_replaceable};
use keyroll_secret::{Identity, Secret};

use super::Findings;
use crate::about::{DatabaseFact, EnvFact};
use crate::error::{Code, Refusal, RotateError};
use crate::profile::{Profile, SecretSpec, Source};
use crate::world::{ENV_AFTER, ENV_BEFORE, Pair, Set, WRITTEN};

/// The env file as it is, and as it will be.
#[derive(Debug)]
pub(super) struct Edit {
    path: PathBuf,
    before: EnvFile,
    after: EnvFile,
    /// The admin's password where the panel has another one than the file.
    admin: Option<(String, Secret)>,
}

/// Takes out the secrets that the file has no value for.
fn keep_used(profile: &Profile, file: &EnvFile, names: &mut Vec<String>, found: &mut Findings) {
    names.retain(|name| {
        let key = &profile.secrets[name].key;
        let used = match file.get(key) {
            None => false,
            Some(Reading::Value(value)) => !value.is_empty(),
            Some(_) => true,
        };
        if !used {
            found.note(format!(
                "{name} is left out: the env file has no value for {key}"
            ));
        }
        used
    });
}

/// Reads the file, and refuses what cannot be edited safely. What it has no value for is refused too, or taken out of `names`.
pub(super) fn read(
    profile: &Profile,
    names: &mut Vec<String>,
    leave_out_unused: bool,
    found: &mut Findings,
) -> Result<Edit, RotateError> {
    let path = profile.env_file().to_owned();
    let refuse = |what: String, next: &str| -> RotateError {
        Refusal::new(Code::EnvFile, what, next).into()
    };
    let text = std::fs::read(&path)
        .map(zeroize::Zeroizing::new)
        .map_err(|e| {
            refuse(
                format!("{}: {e}", path.display()),
                "check compose.env_files and root in the profile",
            )
        })?;
    let before = EnvFile::parse(&text).map_err(|e| {
        refuse(
            format!("{}: {e}", path.display()),
            "mend the line; compose would refuse the file too",
        )
    })?;
    if leave_out_unused {
        keep_used(profile, &before, names, found);
    }
    if !names.is_empty() {
        check_replaceable(&path).map_err(|e| refuse(e.to_string(), "see the message"))?;
        let keys: Vec<&str> = names
            .iter()
            .map(|n| profile.secrets[n].key.as_str())
            .collect();
        for ambiguity in before.ambiguities() {
            let what = format!("{}:{}: {ambiguity}", path.display(), ambiguity.line);
            if ambiguity.blocks(&keys) {
                found.refuse(
                    Code::EnvFile,
                    what,
                    "write the line so that every parser reads it alike",
                );
            } else {
                found.note(what);
            }
        }
    }
    for name in names.iter() {
        let key = &profile.secrets[name].key;
        match before.get(key) {
            Some(Reading::Value(value)) if !value.is_empty() => {}
            Some(Reading::Value(_)) => {
                found.refuse(Code::EnvFile, format!("{}: {key} is empty", path.display()), "give it the value in force");
            }
            Some(_) => found.refuse(
                Code::EnvFile,
                format!("{}: {key} has no value of its own there (it refers to others or to the environment)", path.display()),
                "name the key that holds the value, as `key` of the secret in the profile",
            ),
            None => found.refuse(
                Code::EnvFile,
                format!("{}: there is no key {key}", path.display()),
                format!("set secrets.{name}.key in the profile to the key that holds it"),
            ),
        }
    }
    Ok(Edit {
        after: before.clone(),
        before,
        path,
        admin: None,
    })
}

impl Edit {
    fn value(&self, key: &str) -> Option<Secret> {
        match self.before.get(key) {
            Some(Reading::Value(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// What the panel's admin really logs in with.
    pub(super) fn admin_in_force(&mut self, profile: &Profile, password: &Secret) {
        if let Some(admin) = &profile.admin {
            self.admin = Some((admin.password.clone(), password.clone()));
        }
    }

    fn in_force(&self, profile: &Profile, name: &str) -> Option<Secret> {
        match &self.admin {
            Some((admin, password)) if admin == name => Some(password.clone()),
            _ => self.value(&profile.secrets[name].key),
        }
    }

    /// Old and new values of these secrets.
    pub(super) fn pairs(
        &self,
        profile: &Profile,
        names: &[String],
        values: &BTreeMap<String, Secret>,
    ) -> BTreeMap<String, Pair> {
        let pair = |name: &String| {
            let old = self.in_force(profile, name)?;
            let pair = Pair {
                written: self
                    .value(&profile.secrets[name].key)
                    .filter(|written| !written.same_as(&old)),
                old,
                new: values.get(name)?.clone(),
            };
            Some((name.clone(), pair))
        };
        names.iter().filter_map(pair).collect()
    }

    /// Values of the profile's other secrets, where the file has them.
    pub(super) fn others(&self, profile: &Profile, names: &[String]) -> BTreeMap<String, Secret> {
        let rest = profile.secrets.keys().filter(|name| !names.contains(name));
        rest.filter_map(|name| Some((name.clone(), self.in_force(profile, name)?)))
            .collect()
    }

    /// Writes the new values into the copy, and everything that embeds the old ones.
    pub(super) fn apply(
        &mut self,
        profile: &Profile,
        pairs: &BTreeMap<String, Pair>,
        identity: &Identity,
        found: &mut Findings,
    ) -> EnvFact {
        let place = self.path.display().to_string();
        let own: Vec<&str> = profile
            .secrets
            .values()
            .filter_map(SecretSpec::env_key)
            .collect();
        let mut derived = vec![];
        for (name, pair) in pairs {
            let key = &profile.secrets[name].key;
            if let Err(error) = self.after.set(key, &pair.new) {
                found.refuse(Code::EnvFile, format!("{place}: {error}"), "mend the line");
                continue;
            }
            let scope = Scope {
                own: &own,
                derived: &[],
            };
            let held = pair.held(Set::Old);
            let embedded = self.after.replace_embedded(held, &pair.new, &scope);
            derived.extend(embedded.derived.into_iter().map(|d| d.key));
            for doubt in embedded.unknown {
                found.refuse(
                    Code::Consumer,
                    format!(
                        "{place}:{}: {} holds the value of {name} in a way that is not understood",
                        doubt.line, doubt.key
                    ),
                    "write it as a URL, a DSN or a plain copy, or take it out",
                );
            }
        }
        derived.sort();
        derived.dedup();
        let owner = crate::world::owner(&self.path).unwrap_or_default();
        let fingerprint = |file: &EnvFile| {
            identity
                .fingerprint_key()
                .fingerprint(&text_of(file))
                .to_string()
        };
        EnvFact {
            path: self.path.clone(),
            before: fingerprint(&self.before),
            after: fingerprint(&self.after),
            owner,
            derived,
        }
    }

    /// The file without an edit.
    pub(super) fn fact(&self, identity: &Identity) -> Result<EnvFact, RotateError> {
        let fingerprint = identity
            .fingerprint_key()
            .fingerprint(&text_of(&self.before))
            .to_string();
        Ok(EnvFact {
            path: self.path.clone(),
            before: fingerprint.clone(),
            after: fingerprint,
            owner: crate::world::owner(&self.path).map_err(RotateError::Failed)?,
            derived: vec![],
        })
    }

    /// What undo needs of the file.
    pub(super) fn keep(&self, pairs: &BTreeMap<String, Pair>) -> Vec<(String, Secret)> {
        let mut keep = vec![
            (ENV_BEFORE.to_owned(), text_of(&self.before)),
            (ENV_AFTER.to_owned(), text_of(&self.after)),
        ];
        for (name, pair) in pairs {
            let written = pair.written.clone();
            keep.extend(written.map(|written| (format!("{WRITTEN}{name}"), written)));
        }
        keep
    }

    /// The file with other values than those to come: for asking compose what depends on it.
    pub(super) fn trial(
        &self,
        profile: &Profile,
        pairs: &BTreeMap<String, Pair>,
    ) -> Option<Secret> {
        let own: Vec<&str> = profile
            .secrets
            .values()
            .filter_map(SecretSpec::env_key)
            .collect();
        let mut file = self.before.clone();
        for (name, pair) in pairs {
            let stand_in = keyroll_secret::Format::default().generate().ok()?;
            file.set(&profile.secrets[name].key, &stand_in).ok()?;
            file.replace_embedded(
                pair.held(Set::Old),
                &stand_in,
                &Scope {
                    own: &own,
                    derived: &[],
                },
            );
        }
        Some(text_of(&file))
    }

    /// The keys of the file.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.before.keys()
    }

    /// Every value that the file decides by itself, by key.
    pub(super) fn values(&self) -> BTreeMap<String, Secret> {
        self.before
            .keys()
            .filter_map(|key| Some((key.to_owned(), self.value(key)?)))
            .collect()
    }

    fn source(&self, source: &Source) -> Option<String> {
        match source {
            Source::Value(text) => Some(text.clone()),
            Source::Env(key) => self.value(key).map(|v| v.expose().to_owned()),
        }
    }

    /// The database's role and name.
    pub(super) fn database(&self, profile: &Profile, found: &mut Findings) -> Option<DatabaseFact> {
        let spec = profile.database.as_ref()?;
        if let (Some(role), Some(database)) = (self.source(&spec.role), self.source(&spec.name)) {
            Some(DatabaseFact { role, database })
        } else {
            found.refuse(
                Code::EnvFile,
                format!("{}: the database's role or name is not there", self.path.display()),
                "set database.role and database.name in the profile, as { env = \"KEY\" } or { value = \"text\" }",
            );
            None
        }
    }

    /// The admin's address.
    pub(super) fn admin_email(&self, profile: &Profile, found: &mut Findings) -> Option<String> {
        let spec = profile.admin.as_ref()?;
        let email = self.source(&spec.email);
        if email.is_none() {
            found.refuse(
                Code::EnvFile,
                format!("{}: the admin's address is not there", self.path.display()),
                "set admin.email in the profile, as { env = \"KEY\" } or { value = \"text\" }",
            );
        }
        email
    }
}

/// The file's text; env files are UTF-8 once they are parsed.
fn text_of(file: &EnvFile) -> Secret {
    Secret::new(String::from_utf8_lossy(file.as_bytes()))
}

/// The values to come: those that are given, or new ones from the operating system's generator.
pub(super) fn new_values(
    profile: &Profile,
    names: &[String],
    mut given: BTreeMap<String, Secret>,
) -> Result<BTreeMap<String, Secret>, RotateError> {
    let mut make = |name: &String| -> Result<(String, Secret), RotateError> {
        let failed = |e: keyroll_secret::FormatError| RotateError::Failed(e.to_string());
        let value = match given.remove(name) {
            Some(value) => value,
            None => profile.secrets[name]
                .format
                .resolve()
                .and_then(|f| f.generate())
                .map_err(failed)?,
        };
        Ok((name.clone(), value))
    };
    names.iter().map(&mut make).collect()
}
