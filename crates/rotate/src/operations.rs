//! What an operator can ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use keyroll_audit::{Head, system_journal};
use keyroll_journal::{
    Ending, Event, Journal, JournalError, Kept, Lock, NewRotation, NewVersion, RotationId,
    VersionState, Writer,
};
use keyroll_saga::{Limits, StepCx, Stop, Watcher, drive};
use keyroll_secret::{Identity, Redactor, Secret};

use crate::about::{About, Operator, Reason};
use crate::error::{Code, Refusal, RotateError, still_unfinished, unfinished};
use crate::preflight::{self, Ready};
use crate::profile::Profile;
use crate::report::{Outcome, PlanReport, Progress, VerifyReport};
use crate::trail::damaged;
use crate::world::{Set, VALUE, Values, World};
use crate::{ending, finalize, outcome, recovery, restore, steps, trail, world};

/// What to rotate, and how.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a wish by itself, and most are safeguards that are switched off one by one"
)]
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Names of secrets and groups.
    pub names: Vec<String>,
    /// Why.
    pub reason: Reason,
    /// Goes on although the stack is sick; only with [`Reason::Incident`].
    pub force_unhealthy: bool,
    /// Builds images before containers are recreated.
    pub build: bool,
    /// The admin's password, where the panel has another one than the env file.
    pub current_admin_password: Option<Secret>,
    /// New values that somebody else has made, by the names of their secrets.
    pub values: BTreeMap<String, Secret>,
    /// The ids of the tokens that such values are of, where those change with them.
    pub token_ids: BTreeMap<String, String>,
    /// Plans with made-up values where none was given. For a plan alone.
    pub stand_ins: bool,
    /// Does not ask the makers of new values about them.
    pub skip_validation: bool,
    /// Lets a test key replace a live one.
    pub allow_test_keys: bool,
    /// Opens a grace window where one is open, and drops the value that it was for.
    pub replace_grace: bool,
    /// Secrets whose grace windows open although the reason is an incident.
    pub allow_grace: BTreeSet<String>,
    /// Gives the token that is named another value in place, without an overlap and without a way back.
    pub regenerate: bool,
    /// Secrets that a rotation of everything leaves as they are. The trail tells them.
    pub left_out: BTreeSet<String>,
    /// Leaves out, and tells, what the stack has no value for. For a plan alone: a rotation is told what it rotates.
    pub leave_out_unused: bool,
    /// Tries no login of the application, neither a right nor a wrong one. For a plan alone: a rotation needs to.
    pub no_login: bool,
}

/// keyroll for one stack.
#[derive(Debug)]
pub struct Keyroll {
    pub(crate) profile: Profile,
    pub(crate) operator: Operator,
}

/// Passes committed events on, and takes known values out of what is about to be recorded.
struct Told<'a> {
    progress: &'a dyn Progress,
    redactor: Redactor,
}

impl Watcher for Told<'_> {
    fn event(&self, event: &Event) {
        self.progress.event(event);
    }

    fn clean(&self, text: &str) -> String {
        self.redactor.clean(text)
    }
}

impl Keyroll {
    /// keyroll for the stack of this profile, on behalf of this operator. Nothing is opened yet.
    pub fn new(profile: Profile, operator: Operator) -> Self {
        Self { profile, operator }
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// keyroll's own identity, made at first use. Where something was sealed already, a missing one is not made anew: the
    /// new one would open nothing.
    pub(crate) fn identity(&self) -> Result<Identity, RotateError> {
        let path = &self.profile.paths.identity;
        let next =
            "restore it from your copy; without it neither sealed values nor backups can be opened";
        let state = &self.profile.paths.state;
        if !path.exists()
            && Journal::exists(state)
            && !Journal::open(state)?.rotations()?.is_empty()
        {
            let what = format!("{}: keyroll's identity is missing", path.display());
            return Err(Refusal::new(Code::State, what, next).into());
        }
        Identity::load_or_create(path)
            .map_err(|e| Refusal::new(Code::State, e.to_string(), next).into())
    }

    /// Journal and lock, with a sound trail and nothing unfinished in the way.
    pub(crate) fn open_alone(&self) -> Result<(Journal, Lock), RotateError> {
        let (journal, lock) = self.open()?;
        if let Some(rotation) = journal.unfinished()? {
            return Err(unfinished(rotation.id.as_str()).into());
        }
        match restore::refusal(&journal.restores()?) {
            Some(refusal) => Err(refusal.into()),
            None => Ok((journal, lock)),
        }
    }

    /// Journal and lock, with a sound trail: one that was tampered with is found while nothing has happened yet.
    pub(crate) fn open(&self) -> Result<(Journal, Lock), RotateError> {
        let (journal, lock, damage) = self.open_with_any_trail()?;
        match damage {
            None => Ok((journal, lock)),
            Some(broken) => Err(damaged(broken)),
        }
    }

    /// Journal and lock, and what is wrong with the trail. Damage there must not keep a rotation that is unfinished between two
    /// sets: whoever finishes it says so, and goes on.
    pub(crate) fn open_with_any_trail(
        &self,
    ) -> Result<(Journal, Lock, Option<String>), RotateError> {
        recovery::rights()?;
        let root = &self.profile.root;
        if !root.is_dir() {
            let what = format!("{}: the stack's root is not a directory", root.display());
            return Err(Refusal::new(
                Code::Project,
                what,
                "correct root in the profile, or --root",
            )
            .into());
        }
        let state = &self.profile.paths.state;
        let journal = Journal::open(state)?;
        let lock =
            Lock::acquire(state, &self.profile.root, Timestamp::now()).map_err(Refusal::from)?;
        let damage = match journal.audit() {
            Ok(lines) => keyroll_audit::verify(lines, None)
                .err()
                .map(|e| e.to_string()),
            Err(error) => Some(error.to_string()),
        };
        Ok((journal, lock, damage))
    }

    fn check(request: &Request) -> Result<(), RotateError> {
        if request.force_unhealthy && request.reason != Reason::Incident {
            return Err(Refusal::new(
                Code::Sick,
                "--force-unhealthy is for incidents",
                "add --reason incident",
            )
            .into());
        }
        Ok(())
    }

    /// What a rotation would do. Looks at the running stack, and changes nothing; with [`Request::no_login`] not even the
    /// application's sessions.
    pub async fn plan(
        &self,
        request: &Request,
        progress: &dyn Progress,
    ) -> Result<PlanReport, RotateError> {
        Self::check(request)?;
        let (journal, _lock) = self.open_alone()?;
        let identity = self.identity()?;
        let request = &Request {
            stand_ins: true,
            ..request.clone()
        };
        let ready = self
            .look(request, None, &journal, &identity, progress)
            .await?;
        ready.sessions.close().await;
        Ok(ready.report)
    }

    /// Rotates: looks, asks `approve`, and goes on to an ending. `inject` may watch or stop the journal's commits, for tests.
    pub async fn rotate(
        &self,
        request: &Request,
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        Self::check(request)?;
        let mut request = Request {
            no_login: false,
            stand_ins: false,
            leave_out_unused: false,
            ..request.clone()
        };
        if let Some(ended) = self
            .make_tokens(&mut request, progress, approve, control)
            .await?
        {
            return Ok(ended);
        }
        let request = &request;
        let (journal, lock) = self.open_alone()?;
        let identity = self.identity()?;
        let ready = self
            .look(request, None, &journal, &identity, progress)
            .await;
        let (journal, ready) = self.recorded(journal, &lock, request, ready)?;
        self.carry_out(journal, &lock, identity, ready, progress, approve, control)
            .await
    }

    /// Takes a completed rotation back: a new rotation to the values that it replaced.
    pub async fn rollback(
        &self,
        rotation: &RotationId,
        request: &Request,
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        Self::check(request)?;
        let (journal, lock) = self.open_alone()?;
        let identity = self.identity()?;
        let kept = kept_values(&journal, &identity, rotation, request)?;
        let names = kept.pairs.keys().cloned().collect();
        let request = Request {
            names,
            no_login: false,
            stand_ins: false,
            leave_out_unused: false,
            ..request.clone()
        };
        let about = About::of(&journal.rotation(rotation)?)?;
        let ids = about.secrets.into_iter();
        let ids = ids.filter_map(|s| Some((s.name, s.setting?.id?.old)));
        let back = preflight::TakesBack {
            rotation: rotation.clone(),
            ids: ids.collect(),
            values: kept.pairs.into_iter().map(|(n, p)| (n, p.old)).collect(),
            previous: kept.previous.into_iter().map(|(n, p)| (n, p.0)).collect(),
        };
        let ready = self
            .look(&request, Some(back), &journal, &identity, progress)
            .await;
        let (journal, ready) = self.recorded(journal, &lock, &request, ready)?;
        self.carry_out(journal, &lock, identity, ready, progress, approve, control)
            .await
    }

    async fn look(
        &self,
        request: &Request,
        back: Option<preflight::TakesBack>,
        journal: &Journal,
        identity: &Identity,
        progress: &dyn Progress,
    ) -> Result<Ready, RotateError> {
        preflight::look(
            &self.profile,
            &self.operator,
            request,
            back,
            journal,
            identity,
            progress,
        )
        .await
    }

    /// Passes preflight's answer on; a refusal is written to the trail first. It changed nothing, but somebody wanted it.
    pub(crate) fn recorded(
        &self,
        journal: Journal,
        lock: &Lock,
        request: &Request,
        ready: Result<Ready, RotateError>,
    ) -> Result<(Journal, Ready), RotateError> {
        match ready {
            Ok(ready) => Ok((journal, ready)),
            Err(RotateError::Refused(refusals)) => {
                let writer = journal.take_over(lock)?;
                let body = trail::refused(&self.profile.name, &self.operator, request, &refusals);
                trail::append(
                    &writer,
                    body,
                    std::path::Path::new(system_journal::SOCKET),
                    Timestamp::now(),
                )
                .map_err(RotateError::Failed)?;
                Err(RotateError::Refused(refusals))
            }
            Err(other) => Err(other),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "everything that was opened for looking is handed over, once"
    )]
    pub(crate) async fn carry_out(
        &self,
        journal: Journal,
        lock: &Lock,
        identity: Identity,
        ready: Ready,
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        progress.looked();
        // Whoever asked to stop during preflight gets what a "no" gets: nothing was begun.
        if !approve(&ready.report) || control.stop.requested() {
            ready.sessions.close().await;
            return Err(RotateError::NotConfirmed);
        }
        let mut writer = journal.take_over(lock)?;
        control.arm(&mut writer);
        ending::settle(&writer)?;
        let now = Timestamp::now();
        let keep = SignedDuration::from_hours(24 * i64::from(self.profile.limits.keep_days));
        writer.purge(now - keep)?;
        let id = ready.id.clone();
        let new = sealed(&ready, &identity).map_err(RotateError::Failed)?;
        if let Err(error) = writer.begin(&new, now) {
            // A commit that reports an error may be on the disk all the same.
            return Err(match writer.rotation(&id) {
                Err(JournalError::NoSuchRotation(_)) => error.into(),
                _ => still_unfinished(&id, error.into()),
            });
        }
        progress.begun(&id);
        let redactor = world::redactor(&ready.values);
        let world = World {
            rotation: id.clone(),
            about: ready.about,
            identity,
            redactor,
            engine: ready.engine,
            cli: ready.cli,
            pairs: ready.values.pairs,
            others: ready.values.others,
            previous: ready.values.previous,
            panel: ready.panel,
            staged: std::sync::Mutex::default(),
            sessions: ready.sessions,
        };
        go_on(Arc::new(writer), id, world, progress, control).await
    }

    /// Checks the running stack as a consumer would, with the values that should be in force. Changes nothing. Refused
    /// in the middle of a rotation: nobody can say then which values these are.
    pub async fn verify(&self, progress: &dyn Progress) -> Result<VerifyReport, RotateError> {
        let state = &self.profile.paths.state;
        if Journal::exists(state)
            && let Some(rotation) = Journal::open(state)?.unfinished()?
        {
            return Err(unfinished(rotation.id.as_str()).into());
        }
        let identity = self.identity()?;
        let world = preflight::bystander(&self.profile, &self.operator, identity, progress).await?;
        let (mut seen, mut found) = match world.prove(Set::Old, None).await {
            Ok(seen) => (seen, vec![]),
            Err(finding) => (vec![], vec![finding.to_string()]),
        };
        if let Some(journal) = self.journal()? {
            match world.settings_as_left(&journal).await {
                Ok((right, wrong)) => {
                    seen.extend(right);
                    found.extend(wrong);
                }
                Err(why) => found.push(format!("the settings: {why}")),
            }
        }
        Ok(VerifyReport {
            well: found.is_empty(),
            seen,
            found: found.iter().map(|text| world.clean(text)).collect(),
        })
    }

    /// The trail's lines as they are stored, oldest first.
    pub fn trail(&self) -> Result<Vec<String>, RotateError> {
        if !Journal::exists(&self.profile.paths.state) {
            return Ok(vec![]);
        }
        Ok(Journal::open(&self.profile.paths.state)?.audit()?)
    }

    /// Checks the trail, against a head from outside if one is given. The error says where it breaks.
    pub fn verify_trail(&self, head: Option<&Head>) -> Result<Result<Head, String>, RotateError> {
        Ok(keyroll_audit::verify(self.trail()?, head).map_err(|e| e.to_string()))
    }
}

/// Ways to stop a rotation from outside.
#[derive(Default)]
pub struct Control {
    /// The operator's wish to stop.
    pub stop: Stop,
    /// Decides what the engine hears of each step; for tests of the steps.
    pub examiner: Option<Arc<dyn keyroll_saga::exam::Examiner>>,
    /// Called around every commit of the journal; for tests of recovery.
    pub hook: Option<Arc<dyn Fn(keyroll_journal::Moment) -> bool + Send + Sync>>,
}

impl Control {
    pub(crate) fn arm(&self, writer: &mut Writer) {
        if let Some(hook) = self.hook.clone() {
            writer.inject(move |moment| hook(moment));
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control(stop: {})", self.stop.requested())
    }
}

/// The values that a completed rotation replaced, if they are still kept and may be put in force again.
fn kept_values(
    journal: &Journal,
    identity: &Identity,
    id: &RotationId,
    request: &Request,
) -> Result<Values, RotateError> {
    let rotation = journal.rotation(id)?;
    let about = About::of(&rotation)?;
    if about.finalizes || about.makes.is_some() {
        return Err(finalize::nothing_to_take_back(id));
    }
    let refuse = |what: String, next: &str| Err(Refusal::new(Code::Expired, what, next).into());
    if rotation.ending != Some(Ending::Completed) {
        return refuse(
            format!("rotation {id} did not end Completed, so there is nothing to take back"),
            "see `keyroll status`",
        );
    }
    if about.reason == Reason::Incident && !request.force_unhealthy {
        return refuse(
            format!(
                "rotation {id} was done because of an incident: its old values may have leaked"
            ),
            "rotate again instead, or add --reason incident --force-unhealthy",
        );
    }
    let values = match world::unseal(journal, identity, id, &about) {
        Ok(values) => values,
        Err(why) => {
            return refuse(
                format!("{why}: the values of {id} are no longer kept"),
                "rotate again instead",
            );
        }
    };
    for fact in &about.secrets {
        let current = journal
            .versions_of(&fact.name)?
            .into_iter()
            .find(|v| v.state == VersionState::Current);
        if current.is_none_or(|c| c.fingerprint != fact.new) {
            return refuse(
                format!("{} was rotated again since {id}", fact.name),
                "take the latest rotation back first",
            );
        }
    }
    Ok(values)
}

/// Everything that is committed before the first effect: the new values, those they replace, and what undo needs.
fn sealed(ready: &Ready, identity: &Identity) -> Result<NewRotation, String> {
    let seal = |secret: &Secret| identity.seal_secret(secret).map_err(|e| e.to_string());
    let mut versions = vec![];
    for fact in &ready.about.secrets {
        let pair = &ready.values.pairs[&fact.name];
        let mut version = |state, fingerprint: &String, value| -> Result<(), String> {
            versions.push(NewVersion {
                secret: fact.name.clone(),
                state,
                fingerprint: fingerprint.clone(),
                sealed: seal(value)?,
            });
            Ok(())
        };
        let known = ready.known_current.contains(&fact.name);
        if ready.about.finalizes {
            // A window that somebody else has opened: its values are met here for the first time.
            if !known {
                version(VersionState::Current, &fact.new, &pair.new)?;
            }
            if !ready.known_previous.contains(&fact.name) {
                version(VersionState::Previous, &fact.old, &pair.old)?;
            }
            continue;
        }
        if !known {
            version(VersionState::Current, &fact.old, &pair.old)?;
        }
        version(VersionState::Pending, &fact.new, &pair.new)?;
    }
    let mut kept = vec![];
    for (name, secret) in &ready.keep {
        kept.push(Kept {
            name: name.clone(),
            sealed: seal(secret)?,
        });
    }
    for (name, secret) in &ready.values.others {
        kept.push(Kept {
            name: format!("{VALUE}{name}"),
            sealed: seal(secret)?,
        });
    }
    let about = serde_json::to_value(&ready.about).map_err(|e| e.to_string())?;
    Ok(NewRotation {
        id: ready.id.clone(),
        about,
        versions,
        kept,
    })
}

/// Drives a rotation to its ending, and closes it.
pub(crate) async fn go_on(
    writer: Arc<Writer>,
    id: RotationId,
    world: World,
    progress: &dyn Progress,
    control: &Control,
) -> Result<Outcome, RotateError> {
    let interrupted = |reason: String| RotateError::Interrupted {
        rotation: id.clone(),
        reason,
    };
    let told = Told {
        progress,
        redactor: world.redactor.clone(),
    };
    if let Some(panel) = &world.panel {
        panel
            .counts_in(writer.clone(), id.clone())
            .map_err(&interrupted)?;
    }
    let world = Arc::new(world);
    let cx = StepCx::new(id.clone(), writer.clone(), control.stop.clone());
    let mut plan = steps::plan(&world);
    if let Some(examiner) = &control.examiner {
        plan = plan.examined(examiner);
    }
    let driven = drive(&plan, &cx, Limits::default(), &told).await;
    world.sessions.close().await;
    let ending = driven.map_err(|e| interrupted(e.to_string()))?;
    let untold = ending::close(&writer, &id, None).map_err(|e| interrupted(e.to_string()))?;
    let outcome = outcome::of(&writer, &id, ending).map_err(|e| interrupted(e.to_string()));
    outcome.map(|mut outcome| {
        outcome.found.extend(untold);
        outcome
    })
}
