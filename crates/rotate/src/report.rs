//! What the operations answer: plain data, for a terminal or as JSON. No values.

use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_journal::{Ending, Event, RotationId};
use serde::Serialize;

use crate::about::Fate;
use crate::in_force::View;
use crate::profile::SecretKind;

/// Is told how an operation goes on. It cannot change anything.
pub trait Progress: Send + Sync {
    /// Preflight looks at this now.
    fn looking(&self, _at: &str) {}
    /// Preflight is over, and found nothing to stop for.
    fn looked(&self) {}
    /// A rotation has begun.
    fn begun(&self, _rotation: &RotationId) {}
    /// A journal event was committed.
    fn event(&self, _event: &Event) {}
    /// A restore does this now.
    fn doing(&self, _what: &str) {}
    /// Something with a size goes on; `total` in bytes is an estimate.
    fn bytes(&self, _what: &str, _done: u64, _total: Option<u64>) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {}

/// What a rotation would do.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// The profile's name.
    pub stack: String,
    /// The compose project.
    pub project: String,
    /// What would be rotated.
    pub secrets: Vec<PlannedSecret>,
    /// What becomes of each service.
    pub services: Vec<PlannedService>,
    /// The env file that would be edited.
    pub env_file: PathBuf,
    /// Other keys in it that hold a rotated value and would be rewritten.
    pub derived_keys: Vec<String>,
    /// What people will notice.
    pub blast_radius: Vec<String>,
    /// The steps in an order that they may run in; those on one line run side by side.
    pub order: Vec<Vec<String>>,
    /// Room that the backup is expected to take at most, in bytes.
    pub backup_bytes: u64,
    /// Room that there is, in bytes.
    pub free_bytes: u64,
    /// What was found and would be accepted because of an incident override.
    pub accepted: Vec<String>,
    /// What the makers of the new values say of them.
    pub validated: Vec<String>,
    /// Worth knowing; nothing to stop for.
    pub notes: Vec<String>,
}

/// A secret in a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedSecret {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SecretKind,
    /// Keyed fingerprint of the value in force.
    pub fingerprint: String,
    /// Who uses it, found by value: service and place.
    pub consumers: Vec<String>,
}

/// A service in a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedService {
    /// Its name.
    pub service: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// How an operation ended.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The rotation.
    pub rotation: RotationId,
    /// How it ended.
    pub ending: Ending,
    /// Why, where it is not Completed.
    pub reason: Option<String>,
    /// Whether it was done because of an incident.
    pub incident: bool,
    /// Secrets whose old value the application still accepts, in a grace window that it has opened.
    pub graced: Vec<String>,
    /// Whether it ended grace windows, and rotated nothing.
    pub finalizes: bool,
    /// The token that it made, and rotated nothing.
    pub made: Option<String>,
    /// The token that it gave another value in place.
    pub regenerated: Option<String>,
    /// The backup's directory, once it was made.
    pub backup: Option<PathBuf>,
    /// The summary, once it was written.
    pub summary: Option<PathBuf>,
    /// Whether it came to the point of no return: the new set is in force and was proven, whatever the ending.
    pub past_no_return: bool,
    /// What is left to do after that point; nothing in a rotation that is Completed.
    pub left: Vec<String>,
    /// What is wrong besides, with what to do about it; such as a trail that cannot be written.
    pub found: Vec<String>,
    /// Each step, in the order in which they ended.
    pub steps: Vec<StepReport>,
    /// When it began.
    pub begun_at: Timestamp,
    /// Seconds from beginning to end.
    pub seconds: f64,
}

/// One step of a rotation, in hindsight.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// `confirmed`, `failed`, `undone` or `undo failed`.
    pub outcome: String,
    /// What was seen, or why it failed.
    pub says: String,
    /// When.
    pub at: Timestamp,
    /// Seconds since it was first intended.
    pub seconds: f64,
}

/// What is known of a stack.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// The profile's name.
    pub stack: String,
    /// Each secret of the profile.
    pub secrets: Vec<SecretStatus>,
    /// The unfinished rotation, if there is one.
    pub unfinished: Option<UnfinishedReport>,
    /// The unfinished restore, if there is one.
    pub unfinished_restore: Option<UnfinishedRestore>,
    /// Services that run with an old value in their environment by choice.
    pub stale_by_choice: Vec<String>,
}

/// A secret's state, by the journal's view.
#[derive(Debug, Clone, Serialize)]
pub struct SecretStatus {
    /// Its name.
    pub name: String,
    /// How many versions keyroll has put in force.
    pub version: usize,
    /// Fingerprint of the current one, if keyroll knows it.
    pub fingerprint: Option<String>,
    /// When the current one was put in force by keyroll.
    pub rotated_at: Option<Timestamp>,
    /// Its age in whole days.
    pub age_days: Option<i64>,
    /// The rotation that put it in force.
    pub rotation: Option<RotationId>,
    /// The grace window of the value before it, if one is open.
    pub window: Option<Window>,
    /// When it is due, if the profile gives it an interval.
    pub cadence: Option<Cadence>,
}

/// When a secret is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cadence {
    /// Days from one rotation to the next.
    pub interval_days: u32,
    /// When the next one is due; unknown where keyroll has never rotated it.
    pub due_at: Option<Timestamp>,
    /// Whether it is.
    pub state: DueState,
    /// What a rotation needs from a person.
    pub needs: Needs,
}

/// Whether a secret is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DueState {
    /// Not yet.
    Fresh,
    /// It is.
    Due,
    /// Since long.
    Overdue,
    /// keyroll has never rotated it, so its age is not known.
    NeverRotated,
}

/// What a rotation needs from a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// keyroll makes the new value.
    Nothing,
    /// A new value, from the provider's dashboard.
    Value,
}

/// What is due now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DueReport {
    /// Secrets that can be rotated without a person.
    pub rotate: Vec<String>,
    /// Secrets that need a new value from a provider.
    pub needs_value: Vec<String>,
    /// Secrets whose grace window is open beyond its time.
    pub windows_over: Vec<String>,
    /// The maintenance window, where now is not in it.
    pub not_before: Option<String>,
}

/// An open grace window: the application accepts a previous value too.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Until when the provider was given time to cut over, at least.
    pub until: Timestamp,
    /// Whether that time is over. The window stays open all the same.
    pub over: bool,
    /// Fingerprint of the previous value.
    pub previous: String,
    /// The command that closes it.
    pub closes: String,
}

/// An unfinished rotation.
#[derive(Debug, Clone, Serialize)]
pub struct UnfinishedReport {
    /// Its name.
    pub rotation: RotationId,
    /// When it began.
    pub begun_at: Timestamp,
    /// `forward`, `backward` or `stuck`.
    pub phase: String,
    /// Why it is stuck.
    pub reason: Option<String>,
    /// Where each step stands.
    pub steps: Vec<StepNow>,
    /// What is in force where, each place by its own view; looked at in a rotation that is stuck.
    pub in_force: Vec<View>,
    /// What to type.
    pub next: Vec<Next>,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepNow {
    /// Its name.
    pub step: String,
    /// In words, with the reason where it failed.
    pub state: String,
    /// How often it was tried.
    pub tries: usize,
    /// How often it was tried to take it back.
    pub undo_tries: usize,
}

/// A command that leads on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Next {
    /// The command.
    pub command: String,
    /// What it does, and when it is the right one.
    pub does: String,
}

/// All that is known of one rotation.
#[derive(Debug, Clone, Serialize)]
pub struct ShowReport {
    /// The profile's name.
    pub stack: String,
    /// The rotation.
    pub rotation: RotationId,
    /// When it began.
    pub begun_at: Timestamp,
    /// Who began it.
    pub operator: String,
    /// Why it was done: `scheduled` or `incident`.
    pub why: String,
    /// The completed rotation that it takes back.
    pub takes_back: Option<RotationId>,
    /// How it ended. One that is stuck is unfinished all the same.
    pub ending: Option<Ending>,
    /// Its secrets.
    pub secrets: Vec<SecretShown>,
    /// Where each step stands.
    pub steps: Vec<StepNow>,
    /// What happened besides the steps' way forward.
    pub events: Vec<Happened>,
    /// The backup from before, once it was made.
    pub backup: Option<PathBuf>,
    /// The rest, where it is unfinished.
    pub unfinished: Option<UnfinishedReport>,
}

/// A secret of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretShown {
    /// Its name.
    pub name: String,
    /// Keyed fingerprint of the old value.
    pub old: String,
    /// Keyed fingerprint of the new value.
    pub new: String,
    /// Whether the old value is sealed in the state database.
    pub old_sealed: bool,
    /// Whether the new value is.
    pub new_sealed: bool,
}

/// Something that happened to a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// An unfinished restore.
#[derive(Debug, Clone, Serialize)]
pub struct UnfinishedRestore {
    /// The rotation whose backup it is.
    pub rotation: RotationId,
    /// What is brought back: `files`, `database`.
    pub parts: Vec<String>,
    /// When it began.
    pub begun_at: Timestamp,
    /// Services that it may have left stopped.
    pub may_be_stopped: Vec<String>,
    /// What to type.
    pub next: String,
}

/// What `verify` saw.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// True when everything was as it should be.
    pub well: bool,
    /// What was seen.
    pub seen: Vec<String>,
    /// What is wrong or could not be looked at.
    pub found: Vec<String>,
}
