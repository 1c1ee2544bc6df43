//! Everything that is looked at before anything changes.
//!
//! Preflight answers three questions. Is what runs the stack that the profile describes, and is it what its files say? Is it
//! well, by checks that can fail? And who uses each secret, found by value and not by name? It reports all reasons not to
//! go on that it can find, not the first alone.

mod consumers;
mod env;
mod health;
mod outside;
mod project;
mod token;
mod windows;

pub(crate) use token::{Making, NewToken};
pub(crate) use windows::Windows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_journal::{Journal, RotationId, VersionState};
use keyroll_providers::postgres::Cell;
use keyroll_runtimes::compose::{Cli, Container, Engine};
use keyroll_secret::{Identity, Redactor, Secret};

use crate::about::{About, Fate, Operator, Reason, SecretFact, ServiceFact};
use crate::database::Free;
use crate::error::{Code, Refusal, RotateError};
use crate::operations::Request;
use crate::panel::Panel;
use crate::picture::{both_sets, pictures};
use crate::profile::{Profile, SecretKind};
use crate::report::{PlanReport, PlannedSecret, PlannedService, Progress};
use crate::settings::{self, Previous};
use crate::steps;
use crate::world::{Pair, Values, World};

/// A rotation that takes another one back.
#[derive(Debug)]
pub(crate) struct TakesBack {
    pub(crate) rotation: RotationId,
    pub(crate) values: BTreeMap<String, Secret>,
    /// What the settings of previous values held before it.
    pub(crate) previous: BTreeMap<String, Cell>,
    /// The ids of tokens before it.
    pub(crate) ids: BTreeMap<String, String>,
}

/// Everything that a rotation needs to begin.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: RotationId,
    pub(crate) about: About,
    pub(crate) values: Values,
    /// Sealed with the rotation under these names.
    pub(crate) keep: Vec<(String, Secret)>,
    /// Secrets whose value in force is already the journal's current version.
    pub(crate) known_current: BTreeSet<String>,
    /// Secrets whose previous value is already the journal's previous version.
    pub(crate) known_previous: BTreeSet<String>,
    pub(crate) engine: Engine,
    pub(crate) cli: Cli,
    pub(crate) panel: Option<Panel>,
    /// The session that preflight has looked with.
    pub(crate) sessions: Free,
    pub(crate) report: PlanReport,
}

/// Reasons not to go on, gathered.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    refusals: Vec<Refusal>,
    notes: Vec<String>,
    waived: Vec<String>,
}

impl Findings {
    pub(crate) fn refuse(&mut self, code: Code, what: impl Into<String>, next: impl Into<String>) {
        self.refusals.push(Refusal::new(code, what, next));
    }

    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    /// A safeguard that the operator has switched off.
    pub(crate) fn waive(&mut self, what: impl Into<String>) {
        self.waived.push(what.into());
    }

    fn has(&self, code: Code) -> bool {
        self.refusals.iter().any(|r| r.code == code)
    }

    /// Stops where something later would build on what was not found.
    fn stop(&mut self) -> Result<(), RotateError> {
        if self.refusals.is_empty() {
            Ok(())
        } else {
            Err(RotateError::Refused(std::mem::take(&mut self.refusals)))
        }
    }

    /// Whether an incident override accepts everything that was found so far.
    fn can_all_be_forced(&self, request: &Request) -> bool {
        forced(request) && self.refusals.iter().all(|r| r.code.can_be_forced())
    }

    /// The refusals that an incident override accepts; the others stop.
    fn settle(
        &mut self,
        request: &Request,
        redactor: &Redactor,
    ) -> Result<Vec<String>, RotateError> {
        for refusal in &mut self.refusals {
            refusal.what = redactor.clean(&refusal.what);
        }
        let force = forced(request);
        let (accepted, refused): (Vec<Refusal>, Vec<Refusal>) = std::mem::take(&mut self.refusals)
            .into_iter()
            .partition(|r| force && r.code.can_be_forced());
        if refused.is_empty() {
            return Ok(accepted
                .into_iter()
                .map(|r| format!("{}: {}", r.code, r.what))
                .collect());
        }
        Err(RotateError::Refused([refused, accepted].concat()))
    }
}

fn forced(request: &Request) -> bool {
    request.force_unhealthy && request.reason == Reason::Incident
}

/// The secrets that these names of secrets and groups mean.
pub(crate) fn select(profile: &Profile, names: &[String]) -> Result<Vec<String>, RotateError> {
    profile.select(names).map_err(|name| {
        let groups = profile.groups.keys();
        let known: Vec<&str> = groups
            .chain(profile.secrets.keys())
            .map(String::as_str)
            .collect();
        let what = format!(
            "{name:?} is neither a secret nor a group of profile {}",
            profile.name
        );
        let next = format!("there is: {}", known.join(", "));
        Refusal::new(Code::Selection, what, next).into()
    })
}

/// Looks at everything for a rotation of these names.
#[expect(
    clippy::too_many_lines,
    reason = "one look after the other, in the order in which they build on one another"
)]
pub(crate) async fn look(
    profile: &Profile,
    operator: &Operator,
    request: &Request,
    back: Option<TakesBack>,
    journal: &Journal,
    identity: &Identity,
    progress: &dyn Progress,
) -> Result<Ready, RotateError> {
    let mut found = Findings::default();
    let names = select(profile, &request.names)?;
    let id = RotationId::new(Timestamp::now());
    let given = outside::given(profile, &names, request, back.as_ref(), &mut found)?;
    found.stop()?;

    progress.looking("the env file");
    let mut in_env = profile.in_env(&names);
    let mut edit = env::read(profile, &mut in_env, request.leave_out_unused, &mut found)?;
    found.stop()?;
    if let Some(password) = &request.current_admin_password {
        edit.admin_in_force(profile, password);
    }
    let new_values = env::new_values(profile, &names, given)?;
    let mut values = Values {
        pairs: edit.pairs(profile, &in_env, &new_values),
        others: edit.others(profile, &names),
        previous: Previous::new(),
    };
    let redactor = crate::world::redactor(&values);
    let env_fact = edit.apply(profile, &values.pairs, identity, &mut found);
    found.stop()?;

    progress.looking("the running containers");
    let seen = project::look(profile, &id, &redactor, journal, &mut found).await?;
    if !found.can_all_be_forced(request) {
        found.stop()?;
    }

    progress.looking("who uses the secrets");
    let uses = consumers::find(profile, &seen, &edit, &values.pairs, &env_fact, &mut found).await;
    let services = consumers::fates(profile, &seen, &uses);

    progress.looking("the database, the panel, the room for the backup");
    let panel =
        match &profile.http {
            Some(http) => Some(Panel::new(http, profile.limits).map_err(|e| {
                Refusal::new(Code::Panel, e.to_string(), "mend [http] in the profile")
            })?),
            None => None,
        };
    let fingerprints = identity.fingerprint_key();
    let fact = |name: &String, pair: &Pair| SecretFact {
        name: name.clone(),
        kind: profile.secrets[name].kind,
        key: profile.secrets[name].key.clone(),
        setting: None,
        retires: None,
        old: fingerprints.fingerprint(&pair.old).to_string(),
        new: fingerprints.fingerprint(&pair.new).to_string(),
        uses: uses.get(name).cloned().unwrap_or_default(),
    };
    let secrets = in_env.iter().map(|name| fact(name, &values.pairs[name]));
    let secrets = secrets.collect();
    let mut about = About {
        profile: profile.clone(),
        operator: operator.clone(),
        reason: request.reason,
        accepted: vec![],
        panel_sick: false,
        waived: vec![],
        validated: vec![],
        takes_back: back.as_ref().map(|b| b.rotation.clone()),
        finalizes: false,
        makes: None,
        behind_proxy: behind_proxy(panel.as_ref(), &seen.containers, &services),
        build: request.build,
        secrets,
        config_fingerprints: fingerprints_of(&seen.fact.config_files, identity)?,
        pictures: BTreeMap::new(),
        project: seen.fact.clone(),
        services,
        stale: seen.stale.clone(),
        database: edit.database(profile, &mut found),
        admin_email: edit.admin_email(profile, &mut found),
        env_file: env_fact,
        database_bytes: None,
    };
    let health = health::look(
        &about,
        &seen,
        &values,
        panel.as_ref(),
        &id,
        !request.no_login,
        &mut found,
    )
    .await;
    about.database_bytes = health.database_bytes;
    let wish = outside::Wish {
        profile,
        request,
        back: back.as_ref(),
        values: &new_values,
        in_env: &values.pairs,
    };
    wish.in_env_alone(&names, &mut found);
    if let Some(session) = health.sessions.take() {
        let in_settings = wish.read(&names, &session, &mut found).await;
        health.sessions.put(session);
        let facts = in_settings.pairs.iter();
        let facts = facts.filter(|(name, _)| !in_env.contains(name));
        about
            .secrets
            .extend(facts.map(|(name, pair)| fact(name, pair)));
        for own in &mut about.secrets {
            own.setting = in_settings.facts.get(&own.name).cloned();
        }
        about
            .secrets
            .sort_by_key(|s| names.iter().position(|n| *n == s.name));
        values.previous = in_settings.previous;
        for (name, pair) in in_settings.pairs {
            if !in_env.contains(&name) {
                consumers::elsewhere(&seen, &edit, &name, &pair.old, &mut found);
                values.pairs.insert(name, pair);
            }
        }
    }
    about.pictures = pictures(
        &seen.resolved,
        &both_sets(&values.pairs),
        &identity.fingerprint_key(),
    );
    let room = health::room(profile, &about, &mut found);
    about.panel_sick = found.has(Code::Panel);
    let redactor = crate::world::redactor(&values);
    // Nobody is asked about values that will not be put in force.
    about.validated = if found.can_all_be_forced(request) || found.refusals.is_empty() {
        progress.looking("the new values, by their makers");
        outside::validate(&about, &values.pairs, request, &mut found).await
    } else {
        vec![]
    };
    about.waived = std::mem::take(&mut found.waived);
    about.accepted = found.settle(request, &redactor)?;

    let mut keep = edit.keep(&values.pairs);
    keep.extend(health.witness);
    keep.extend(settings::to_seal(&values.previous));
    let known_current = known(journal, &about, VersionState::Current, |fact| &fact.old)?;
    let report = report(&about, room, found.notes);
    Ok(Ready {
        id,
        about,
        values,
        keep,
        known_current,
        known_previous: BTreeSet::new(),
        engine: seen.engine,
        cli: seen.cli,
        panel,
        sessions: health.sessions,
        report,
    })
}

/// Whether users come to the recreated containers through something else. Where nobody knows, something may.
fn behind_proxy(
    panel: Option<&Panel>,
    containers: &[Container],
    services: &BTreeMap<String, ServiceFact>,
) -> bool {
    let recreated = |c: &&Container| {
        let fact = services.get(&c.service);
        fact.is_some_and(|s| s.fate == Fate::Recreated)
    };
    let mut published = containers
        .iter()
        .filter(recreated)
        .flat_map(|c| &c.published);
    panel.is_none_or(|panel| published.all(|p| p.host.port() != panel.port()))
}

/// A fingerprint of each of these files as it is now.
pub(crate) fn fingerprints_of(
    files: &[PathBuf],
    identity: &Identity,
) -> Result<Vec<String>, RotateError> {
    let key = identity.fingerprint_key();
    let of = |path: &PathBuf| match std::fs::read_to_string(path) {
        Ok(text) => Ok(key.fingerprint(&Secret::new(text)).to_string()),
        Err(error) => Err(RotateError::Failed(format!("{}: {error}", path.display()))),
    };
    files.iter().map(of).collect()
}

/// Secrets of which the journal has this value, by its fingerprint, in this state.
fn known(
    journal: &Journal,
    about: &About,
    state: VersionState,
    value: impl Fn(&SecretFact) -> &String,
) -> Result<BTreeSet<String>, RotateError> {
    let mut known = BTreeSet::new();
    for fact in &about.secrets {
        let versions = journal.versions_of(&fact.name)?;
        if versions
            .iter()
            .any(|v| v.state == state && v.fingerprint == *value(fact) && v.sealed.is_some())
        {
            known.insert(fact.name.clone());
        }
    }
    Ok(known)
}

/// A world without a rotation, for looking at the stack.
pub(crate) async fn bystander(
    profile: &Profile,
    operator: &Operator,
    identity: Identity,
    progress: &dyn Progress,
) -> Result<World, RotateError> {
    let mut found = Findings::default();
    progress.looking("the env file");
    let edit = env::read(profile, &mut vec![], false, &mut found)?;
    found.stop()?;
    let others = edit.others(profile, &[]);
    let values = Values {
        others,
        ..Values::default()
    };
    let redactor = crate::world::redactor(&values);
    progress.looking("the running containers");
    let id = RotationId::from_text("verify");
    let seen = project::discover(profile, &id, &redactor).await?;
    found.stop()?;
    let panel = match &profile.http {
        Some(http) => {
            Some(Panel::new(http, profile.limits).map_err(|e| RotateError::Failed(e.to_string()))?)
        }
        None => None,
    };
    let about = About {
        profile: profile.clone(),
        operator: operator.clone(),
        reason: Reason::Scheduled,
        accepted: vec![],
        panel_sick: false,
        waived: vec![],
        validated: vec![],
        takes_back: None,
        finalizes: false,
        makes: None,
        behind_proxy: false,
        build: false,
        secrets: vec![],
        config_fingerprints: vec![],
        pictures: BTreeMap::new(),
        project: seen.fact.clone(),
        services: consumers::fates(profile, &seen, &BTreeMap::new()),
        stale: vec![],
        database: edit.database(profile, &mut found),
        admin_email: edit.admin_email(profile, &mut found),
        env_file: edit.fact(&identity)?,
        database_bytes: None,
    };
    found.stop()?;
    Ok(World {
        rotation: id,
        about,
        identity,
        redactor,
        engine: seen.engine,
        cli: seen.cli,
        pairs: BTreeMap::new(),
        others: values.others,
        previous: Previous::new(),
        panel,
        staged: std::sync::Mutex::default(),
        sessions: Free::default(),
    })
}

fn report(about: &About, room: health::Room, notes: Vec<String>) -> PlanReport {
    let services = about
        .services
        .iter()
        .map(|(service, fact)| PlannedService {
            service: service.clone(),
            fate: fact.fate,
        })
        .collect();
    PlanReport {
        stack: about.profile.name.clone(),
        project: about.project.name.clone(),
        secrets: planned(about),
        services,
        env_file: about.env_file.path.clone(),
        derived_keys: about.env_file.derived.clone(),
        blast_radius: blast_radius(about),
        order: steps::order(about),
        backup_bytes: room.needed,
        free_bytes: room.free,
        accepted: about
            .accepted
            .iter()
            .chain(&about.waived)
            .cloned()
            .collect(),
        validated: about.validated.clone(),
        notes,
    }
}

/// Of a rotation that edits no file and recreates no container: the world that was looked with, and what people will notice.
fn ready_without_edit(
    world: World,
    values: Values,
    blast_radius: Vec<String>,
    journal: &Journal,
) -> Result<Ready, RotateError> {
    let about = &world.about;
    let report = PlanReport {
        stack: about.profile.name.clone(),
        project: about.project.name.clone(),
        secrets: planned(about),
        services: vec![],
        env_file: about.env_file.path.clone(),
        derived_keys: vec![],
        blast_radius,
        order: steps::order(about),
        backup_bytes: 0,
        free_bytes: 0,
        accepted: vec![],
        validated: vec![],
        notes: vec![],
    };
    Ok(Ready {
        id: world.rotation,
        known_current: known(journal, about, VersionState::Current, |fact| &fact.new)?,
        known_previous: known(journal, about, VersionState::Previous, |fact| &fact.old)?,
        keep: settings::to_seal(&values.previous),
        values,
        engine: world.engine,
        cli: world.cli,
        panel: world.panel,
        sessions: world.sessions,
        about: world.about,
        report,
    })
}

fn planned(about: &About) -> Vec<PlannedSecret> {
    let setting = |s: &SecretFact| {
        let setting = s.setting.as_ref()?;
        Some(format!("the application: setting {}", setting.key))
    };
    about
        .secrets
        .iter()
        .map(|s| PlannedSecret {
            name: s.name.clone(),
            kind: s.kind,
            fingerprint: s.old.clone(),
            consumers: s
                .uses
                .iter()
                .map(|u| format!("{}: {}", u.service, u.place))
                .chain(setting(s))
                .collect(),
        })
        .collect()
}

/// What people will notice.
fn blast_radius(about: &About) -> Vec<String> {
    let mut lines = vec![];
    if about.ends_sessions()
        && (about.profile.sessions.is_some() || about.rotates(SecretKind::AccessTokenKey))
    {
        lines.push("every user is logged out".to_owned());
    }
    let recreated = about.services_with(Fate::Recreated);
    if recreated.is_empty() {
        lines.push("no container is recreated".to_owned());
    } else {
        lines.push(format!(
            "{} restart once, for as long as they take to start",
            recreated.join(", ")
        ));
    }
    if about.rotates(SecretKind::PostgresPassword) {
        lines.push("database sessions from before are ended; whoever uses the database password elsewhere (a backup job, a BI tool) needs the new one".to_owned());
    }
    for fact in &about.secrets {
        let previous = fact.setting.as_ref().and_then(|s| s.previous.as_ref());
        if let Some(hours) = previous.and_then(|p| p.grace_hours) {
            lines.push(format!(
                "{}: the application accepts the old value too, until `keyroll finalize {}`; give its provider the new one within {hours} hours",
                fact.name, fact.name
            ));
        }
    }
    if about.rotates(SecretKind::AdminPassword) {
        lines.push(format!(
            "{} gets a new password, which is in the summary",
            about.admin_email.as_deref().unwrap_or("the admin")
        ));
    }
    lines
}
