//! What the steps of one rotation work with: both sets of values, and ways to the systems they are in force on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyroll_envfile::{Owner, Staged};
use keyroll_journal::{Journal, RotationId, Version, VersionState};
use keyroll_providers::http::Tokens;
use keyroll_providers::postgres::{Endpoint, Session};
use keyroll_runtimes::compose::{Cli, Container, Engine, Exec, ExecError, State};
use keyroll_saga::StepCx;
use keyroll_secret::{Identity, Redactor, Secret};

use crate::about::{About, SecretFact};
use crate::database;
use crate::panel::{Finding, Panel};
use crate::profile::SecretKind;
use crate::reach::Reach;
use crate::settings::{self, Previous};

/// Sealed names of the tokens taken at preflight.
pub(crate) const WITNESS_ACCESS: &str = "witness/access";
pub(crate) const WITNESS_REFRESH: &str = "witness/refresh";
pub(crate) const WITNESS_REFRESH_NEXT: &str = "witness/refresh-next";
/// Sealed name of the env file as it was.
pub(crate) const ENV_BEFORE: &str = "env-file/before";
/// Sealed name of the env file as it will be.
pub(crate) const ENV_AFTER: &str = "env-file/after";
/// Start of the sealed names of values that are not rotated but needed.
pub(crate) const VALUE: &str = "value/";
/// Start of the sealed names of values that the env file held, where the one in force was another.
pub(crate) const WRITTEN: &str = "written/";

/// Which of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Old,
    New,
}

/// Both values of a rotated secret.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) old: Secret,
    pub(crate) new: Secret,
    /// What the env file and the containers hold instead of `old`, where the application has had another one since: an
    /// admin changed the password in the panel.
    pub(crate) written: Option<Secret>,
}

impl Pair {
    /// What the files and the containers hold under a set.
    pub(crate) fn held(&self, set: Set) -> &Secret {
        match set {
            Set::New => &self.new,
            Set::Old => self.written.as_ref().unwrap_or(&self.old),
        }
    }
}

/// Why a command in a container did not do what it should.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// Nothing of it runs any more, or ever did.
    Ended(String),
    /// It may still run, and do it yet.
    MayRun(String),
}

impl std::fmt::Display for NotDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(why) | Self::MayRun(why) => f.write_str(why),
        }
    }
}

#[derive(Debug)]
pub(crate) struct World {
    /// Marks what is started on the way.
    pub(crate) rotation: RotationId,
    pub(crate) about: About,
    pub(crate) identity: Identity,
    pub(crate) redactor: Redactor,
    pub(crate) engine: Engine,
    pub(crate) cli: Cli,
    /// The rotated secrets, by name.
    pub(crate) pairs: BTreeMap<String, Pair>,
    /// Values of other secrets of the profile that checks need, by name.
    pub(crate) others: BTreeMap<String, Secret>,
    /// What the settings of previous values hold before and after.
    pub(crate) previous: Previous,
    pub(crate) panel: Option<Panel>,
    /// The env file's candidate, written and judged, until it is renamed.
    pub(crate) staged: Mutex<Option<Staged>>,
    /// Database sessions of this rotation, between two uses.
    pub(crate) sessions: database::Free,
}

impl World {
    pub(crate) fn hold_staged(&self, staged: Staged) {
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(staged);
    }

    pub(crate) fn take_staged(&self) -> Option<Staged> {
        self.staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The keys of the env file that the rotation rewrites.
    pub(crate) fn env_keys(&self) -> impl Iterator<Item = &str> {
        let own = self.about.secrets.iter().filter_map(SecretFact::env_key);
        own.chain(self.about.env_file.derived.iter().map(String::as_str))
    }

    /// The env file as it is now.
    pub(crate) fn env_bytes(&self) -> Result<Secret, String> {
        let path = &self.about.env_file.path;
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Secret::new(text))
    }

    pub(crate) fn env_fingerprint(&self, text: &Secret) -> String {
        self.identity
            .fingerprint_key()
            .fingerprint(text)
            .to_string()
    }

    /// A sealed thing of the rotation, read back; `None` when nothing was sealed under the name.
    pub(crate) fn kept(&self, cx: &StepCx, name: &str) -> Result<Option<Secret>, String> {
        kept(cx.writer(), &self.identity, cx.rotation(), name)
    }

    /// The env file as it was, or as it will be.
    pub(crate) fn env_kept(&self, cx: &StepCx, name: &str) -> Result<Secret, String> {
        self.kept(cx, name)?
            .ok_or_else(|| format!("the sealed {name} is missing from the state database"))
    }

    /// Both values of the rotated secret of this kind, if one is rotated: old, new.
    pub(crate) fn both(&self, kind: SecretKind) -> Option<(&Secret, &Secret)> {
        let fact = self.about.secret_of(kind)?;
        self.pairs.get(&fact.name).map(|p| (&p.old, &p.new))
    }

    /// The value of this kind under a set, whether it is rotated or not.
    pub(crate) fn value_of(&self, kind: SecretKind, set: Set) -> Result<&Secret, Finding> {
        if let Some((old, new)) = self.both(kind) {
            return Ok(if set == Set::New { new } else { old });
        }
        let spec = self
            .about
            .profile
            .secrets
            .iter()
            .find(|(_, s)| s.kind == kind);
        spec.and_then(|(name, _)| self.others.get(name))
            .ok_or_else(|| {
                Finding::Unknown(format!("the env file holds no value of kind {kind:?}"))
            })
    }

    /// The rotated secrets by name, with what files and containers hold of them under a set.
    pub(crate) fn held(&self, set: Set) -> Vec<(&str, &Secret)> {
        let held = self.pairs.iter();
        held.map(|(name, pair)| (name.as_str(), pair.held(set)))
            .collect()
    }

    /// `text` without any known value.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.redactor.clean(text)
    }

    pub(crate) fn panel(&self) -> Result<&Panel, Finding> {
        self.panel
            .as_ref()
            .ok_or_else(|| Finding::Unknown("the profile has no [http] section".into()))
    }

    /// The role that logs in to the database.
    pub(crate) fn database_role(&self) -> Result<String, String> {
        self.about
            .database
            .as_ref()
            .map(|d| d.role.clone())
            .ok_or_else(|| "the profile has no [database] section".into())
    }

    /// The containers of the project, without those of `compose run`.
    pub(crate) async fn containers(&self) -> Result<Vec<Container>, Finding> {
        let found = self.engine.containers(&self.about.project.name).await;
        let mut found = found.map_err(|e| Finding::Unknown(e.to_string()))?;
        found.retain(|c| !c.one_off);
        Ok(found)
    }

    /// The container of a service.
    pub(crate) async fn container(&self, service: &str) -> Result<Container, Finding> {
        // The one from preflight, if it still runs: a question less for each container of the project.
        if let Some(fact) = self.about.services.get(service)
            && let Ok(same) = self.engine.container(&fact.container).await
            && same.state == State::Running
        {
            return Ok(same);
        }
        let containers = self.containers().await?;
        let found = containers
            .into_iter()
            .find(|c| c.service == service && !c.one_off);
        found.ok_or_else(|| Finding::Unknown(format!("service {service} has no container")))
    }

    /// Where the database is reached with a password that is checked, as of now: containers come and go in a rotation.
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, Finding> {
        let spec = self.about.profile.database.as_ref();
        let spec = spec.ok_or_else(|| Finding::Unknown("the profile has no [database]".into()))?;
        let reach = |containers| Reach {
            engine: &self.engine,
            containers,
            about: &self.about,
            rotation: &self.rotation,
        };
        let database = [self.container(&spec.service).await?];
        let found = match reach(&database).by_this_host().await {
            Ok(endpoint) => Ok(endpoint),
            Err(why) => {
                let all = self.containers().await?;
                reach(&all).through_another(&why).await
            }
        };
        found.map_err(|why| Finding::Unknown(self.clean(&why)))
    }

    /// A database session, opened with whichever password is in force; from [`World::sessions`], where it should go back to.
    pub(crate) async fn database_session(&self, rotation: &RotationId) -> Result<Session, String> {
        if let Some(free) = self.sessions.take() {
            return Ok(free);
        }
        let endpoint = self.endpoint().await.map_err(|e| e.to_string())?;
        let candidates: Vec<&Secret> = match self.both(SecretKind::PostgresPassword) {
            Some((old, new)) => vec![new, old],
            None => vec![
                self.value_of(SecretKind::PostgresPassword, Set::Old)
                    .map_err(|e| e.to_string())?,
            ],
        };
        database::session(&endpoint, rotation, &candidates)
            .await
            .map_err(|e| e.to_string())
    }

    /// Runs a command in a service's container, without input, until it ends.
    pub(crate) async fn exec(
        &self,
        rotation: &RotationId,
        service: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<(), NotDone> {
        let container = self.container(service).await;
        let container = container.map_err(|e| NotDone::Ended(e.to_string()))?;
        let exec = Exec::new(container.id, command)
            .limit(limit)
            .rotation(rotation.as_str());
        let done = self.engine.exec(&exec).await.map_err(|e: ExecError| {
            let why = self.clean(&e.to_string());
            match e {
                ExecError::Indeterminate { ended: false, .. } => NotDone::MayRun(why),
                _ => NotDone::Ended(why),
            }
        })?;
        if done.exit_code == 0 {
            return Ok(());
        }
        let text = format!(
            "`{}` in {service} exited with {}: {}",
            command.join(" "),
            done.exit_code,
            done.stderr
        );
        Err(NotDone::Ended(self.clean(&text)))
    }

    /// The tokens taken at preflight, if any were.
    pub(crate) fn witness(&self, cx: &StepCx) -> Result<Option<Tokens>, Finding> {
        let read = |name| self.kept(cx, name).map_err(Finding::Unknown);
        let Some(access) = read(WITNESS_ACCESS)? else {
            return Ok(None);
        };
        let refresh = match read(WITNESS_REFRESH_NEXT)? {
            Some(next) => Some(next),
            None => read(WITNESS_REFRESH)?,
        };
        Ok(Some(Tokens { access, refresh }))
    }
}

/// A sealed thing of a rotation, read back; `None` when nothing was sealed under the name.
pub(crate) fn kept(
    journal: &Journal,
    identity: &Identity,
    rotation: &RotationId,
    name: &str,
) -> Result<Option<Secret>, String> {
    let sealed = journal.kept(rotation, name).map_err(|e| e.to_string())?;
    let open = |sealed| identity.open_secret(&sealed).map_err(|e| e.to_string());
    sealed.map(open).transpose()
}

/// All values that a rotation works with, by the names of their secrets.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// Both sets of the rotated secrets.
    pub(crate) pairs: BTreeMap<String, Pair>,
    /// Values of others that are needed.
    pub(crate) others: BTreeMap<String, Secret>,
    /// What the settings of previous values hold before and after.
    pub(crate) previous: Previous,
}

/// Reads both sets of a begun rotation back from the journal.
pub(crate) fn unseal(
    journal: &Journal,
    identity: &Identity,
    rotation: &RotationId,
    about: &About,
) -> Result<Values, String> {
    let open =
        |sealed: &keyroll_secret::Sealed| identity.open_secret(sealed).map_err(|e| e.to_string());
    let own = journal
        .versions_of_rotation(rotation)
        .map_err(|e| e.to_string())?;
    let kept = |name: &str| kept(journal, identity, rotation, name);
    let value = |version: Option<&Version>, what: &str| -> Result<Secret, String> {
        let sealed = version.and_then(|v| v.sealed.as_ref());
        open(
            sealed
                .ok_or_else(|| format!("the sealed {what} is missing from the state database"))?,
        )
    };
    let mut pairs = BTreeMap::new();
    for fact in &about.secrets {
        let all = journal.versions_of(&fact.name).map_err(|e| e.to_string())?;
        // What ends a grace window has no version of its own.
        let new = if about.finalizes { &all } else { &own };
        let new = new
            .iter()
            .rev()
            .find(|v| v.secret == fact.name && v.fingerprint == fact.new && v.sealed.is_some());
        let old = all
            .iter()
            .rev()
            .find(|v| v.fingerprint == fact.old && v.sealed.is_some());
        let pair = Pair {
            old: value(old, &format!("old value of {}", fact.name))?,
            new: value(new, &format!("new value of {}", fact.name))?,
            written: kept(&format!("{WRITTEN}{}", fact.name))?,
        };
        pairs.insert(fact.name.clone(), pair);
    }
    let mut others = BTreeMap::new();
    for name in about
        .profile
        .secrets
        .keys()
        .filter(|n| !pairs.contains_key(*n))
    {
        if let Some(secret) = kept(&format!("{VALUE}{name}"))? {
            others.insert(name.clone(), secret);
        }
    }
    Ok(Values {
        pairs,
        others,
        previous: settings::unseal(about, kept)?,
    })
}

/// Whether any version of the rotation is still pending.
pub(crate) fn has_pending(
    journal: &Journal,
    rotation: &RotationId,
) -> Result<bool, keyroll_journal::JournalError> {
    let versions = journal.versions_of_rotation(rotation)?;
    Ok(versions.iter().any(|v| v.state == VersionState::Pending))
}

/// A redactor that knows all of these.
pub(crate) fn redactor(values: &Values) -> Redactor {
    let mut redactor = Redactor::new();
    for (name, value) in settings::to_seal(&values.previous) {
        redactor.learn(&name, &value);
    }
    for (name, pair) in &values.pairs {
        redactor.learn(name, &pair.old);
        redactor.learn(name, &pair.new);
        if let Some(written) = &pair.written {
            redactor.learn(name, written);
        }
    }
    for (name, secret) in &values.others {
        redactor.learn(name, secret);
    }
    redactor
}

/// Owner, group and permission bits of a file.
pub(crate) fn owner(path: &Path) -> Result<Owner, String> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777))
}
