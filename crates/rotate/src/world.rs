//! What the steps of one rotation work with: both sets of values, and ways to the systems they are in force on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyroll_envfile::Staged;
use keyroll_journal::{Journal, RotationId, Version, VersionState};
use keyroll_providers::http::Tokens;
use keyroll_providers::postgres::{Address, Endpoint, Session};
use keyroll_runtimes::compose::{Cli, Container, Engine, Exec, ExecError};
use keyroll_saga::StepCx;
use keyroll_secret::{Identity, Redactor, Secret};

use tokio::net::TcpStream;

use crate::about::About;
use crate::database;
use crate::panel::{Finding, Panel};
use crate::profile::SecretKind;

/// Sealed names of the tokens taken at preflight.
pub(crate) const WITNESS_ACCESS: &str = "witness/access";
pub(crate) const WITNESS_REFRESH: &str = "witness/refresh";
pub(crate) const WITNESS_REFRESH_NEXT: &str = "witness/refresh-next";
/// Sealed name of the env file as it was.
pub(crate) const ENV_BEFORE: &str = "env-file/before";
/// Sealed name of the env file as it will be.
pub(crate) const ENV_AFTER: &str = "env-file/after";
/// Time for a connection on this host; none takes longer that does not hang.
const REACHED_WITHIN: Duration = Duration::from_secs(2);
/// Start of the sealed names of values that are not rotated but needed.
pub(crate) const VALUE: &str = "value/";

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
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) about: About,
    pub(crate) identity: Identity,
    pub(crate) redactor: Redactor,
    pub(crate) engine: Engine,
    pub(crate) cli: Cli,
    /// The rotated secrets, by name.
    pub(crate) pairs: BTreeMap<String, Pair>,
    /// Values of other secrets of the profile that checks need, by name.
    pub(crate) others: BTreeMap<String, Secret>,
    pub(crate) panel: Option<Panel>,
    /// The env file's candidate, written and judged, until it is renamed.
    pub(crate) staged: Mutex<Option<Staged>>,
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
        let own = self.about.secrets.iter().map(|s| s.key.as_str());
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
        let kept = cx
            .writer()
            .kept(cx.rotation(), name)
            .map_err(|e| e.to_string())?;
        kept.map(|sealed| {
            self.identity
                .open_secret(&sealed)
                .map_err(|e| e.to_string())
        })
        .transpose()
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
        let containers = self.containers().await?;
        let found = containers
            .into_iter()
            .find(|c| c.service == service && !c.one_off);
        found.ok_or_else(|| Finding::Unknown(format!("service {service} has no container")))
    }

    /// Where the database is reached with a password that is checked: its container's own address on the host's bridge.
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, Finding> {
        let spec = self.about.profile.database.as_ref();
        let (Some(spec), Some(fact)) = (spec, self.about.database.as_ref()) else {
            return Err(Finding::Unknown(
                "the profile has no [database] section".into(),
            ));
        };
        let container = self.container(&spec.service).await?;
        let found = endpoint_of(&container, spec.port, &fact.role, &fact.database).await;
        found.ok_or_else(|| {
            Finding::Unknown(format!(
                "{} takes no connection, at its own address or at a published port",
                spec.service
            ))
        })
    }

    /// A database session, opened with whichever password is in force.
    pub(crate) async fn database_session(&self, rotation: &RotationId) -> Result<Session, String> {
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
    ) -> Result<(), String> {
        let container = self.container(service).await.map_err(|e| e.to_string())?;
        let exec = Exec::new(container.id, command)
            .limit(limit)
            .rotation(rotation.as_str());
        let done = self
            .engine
            .exec(&exec)
            .await
            .map_err(|e: ExecError| self.clean(&e.to_string()))?;
        if done.exit_code == 0 {
            return Ok(());
        }
        let text = format!(
            "`{}` in {service} exited with {}: {}",
            command.join(" "),
            done.exit_code,
            done.stderr
        );
        Err(self.clean(&text))
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

/// Where the database is reached over a path that asks for passwords: at its container's own address, else at a port that is
/// published on this host. The first that takes a connection; none when no address does.
///
/// Both come to the server from an address that is not its loopback. Whether passwords are really asked for there is shown
/// by the negative control, not assumed.
pub(crate) async fn endpoint_of(
    container: &Container,
    port: u16,
    role: &str,
    database: &str,
) -> Option<Endpoint> {
    let own = container
        .networks
        .iter()
        .map(|(_, ip)| SocketAddr::new(*ip, port));
    let published = container
        .published
        .iter()
        .filter(|p| p.port == port && p.protocol == "tcp")
        .map(|p| {
            let everywhere = p.host.ip().is_unspecified();
            if everywhere {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), p.host.port())
            } else {
                p.host
            }
        });
    for address in own.chain(published) {
        let connected = tokio::time::timeout(REACHED_WITHIN, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Some(Endpoint {
                address: Address::ip(address.ip(), address.port()),
                database: database.to_owned(),
                role: role.to_owned(),
            });
        }
    }
    None
}

/// Both sets of the rotated secrets, and values of others that are needed, by name.
pub(crate) type Values = (BTreeMap<String, Pair>, BTreeMap<String, Secret>);

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
    let kept = |name: &str| -> Result<Option<Secret>, String> {
        let sealed = journal.kept(rotation, name).map_err(|e| e.to_string())?;
        sealed.as_ref().map(open).transpose()
    };
    let value = |version: Option<&Version>, what: &str| -> Result<Secret, String> {
        let sealed = version.and_then(|v| v.sealed.as_ref());
        open(
            sealed
                .ok_or_else(|| format!("the sealed {what} is missing from the state database"))?,
        )
    };
    let mut pairs = BTreeMap::new();
    for fact in &about.secrets {
        let new = own
            .iter()
            .rev()
            .find(|v| v.secret == fact.name && v.fingerprint == fact.new);
        let all = journal.versions_of(&fact.name).map_err(|e| e.to_string())?;
        let old = all
            .iter()
            .rev()
            .find(|v| v.fingerprint == fact.old && v.sealed.is_some());
        let pair = Pair {
            old: value(old, &format!("old value of {}", fact.name))?,
            new: value(new, &format!("new value of {}", fact.name))?,
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
    Ok((pairs, others))
}

/// Whether any version of the rotation is still pending.
pub(crate) fn has_pending(
    journal: &Journal,
    rotation: &RotationId,
) -> Result<bool, keyroll_journal::JournalError> {
    let versions = journal.versions_of_rotation(rotation)?;
    Ok(versions.iter().any(|v| v.state == VersionState::Pending))
}

/// A redactor that knows both sets and every other value of the profile.
pub(crate) fn redactor(
    pairs: &BTreeMap<String, Pair>,
    others: &BTreeMap<String, Secret>,
) -> Redactor {
    let mut redactor = Redactor::new();
    for (name, pair) in pairs {
        redactor.learn(name, &pair.old);
        redactor.learn(name, &pair.new);
    }
    for (name, secret) in others {
        redactor.learn(name, secret);
    }
    redactor
}

/// Owner, group and permission bits of a file.
pub(crate) fn owner(path: &Path) -> Result<(u32, u32, u32), String> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777))
}
