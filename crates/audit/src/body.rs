//! What a record says.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The subject of a record. Text and facts are the caller's to keep free of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Body {
    /// A rotation ended, in whichever way.
    Rotation(Box<Rotated>),
    /// A rotation was refused before anything changed.
    Refused(Refused),
    /// An operator declared an unfinished rotation to be over.
    Abandoned(Abandoned),
    /// A value was shown to somebody.
    Reveal(Revealed),
    /// A grace window was ended, as the first format tells it; written as a [`Body::Rotation`] that finalizes.
    Finalize(Finalized),
    /// Files or the database were brought back from a backup.
    Restore(Restored),
    /// Written by another version of keyroll; intact as far as the chain goes, and shown as it is.
    #[serde(untagged)]
    Unknown(Value),
}

/// Who did it, as far as the system and the operator say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operator {
    /// The login name of the process's user.
    pub login: Option<String>,
    /// Who called `sudo`.
    pub sudo_user: Option<String>,
    /// The host's name.
    pub host: String,
    /// What was given with `--operator`; a claim, not checked.
    pub given: Option<String>,
}

/// One rotation, from start to ending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rotated {
    /// The rotation's id.
    pub rotation: String,
    /// The stack's name.
    pub stack: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Who started it.
    pub operator: Operator,
    /// Why, as given.
    pub reason: String,
    /// Safeguards that were switched off, by their flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// What the makers of the new values said of them before it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validated: Vec<String>,
    /// The completed rotation that this one took back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<String>,
    /// It ended grace windows: of each secret `old` is the previous value, and `new` the one that was and is in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finalizes: bool,
    /// The token that it made, and rotated nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// The token that it gave another value in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regenerated: Option<String>,
    /// What was rotated.
    pub secrets: Vec<RotatedSecret>,
    /// What was saved before; `None` when it failed before that.
    pub backup: Option<Backup>,
    /// Each step in the order of the plan.
    pub steps: Vec<StepTrail>,
    /// What happened on the way back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollback: Vec<RollbackEvent>,
    /// How it ended.
    pub ending: Ending,
    /// Why it ended so, where it is not Completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One secret of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedSecret {
    /// Its name in the profile.
    pub name: String,
    /// Keyed fingerprint of the value before; `None` where there was none or it was not known.
    pub old: Option<String>,
    /// Keyed fingerprint of the new value; `None` when none was made.
    pub new: Option<String>,
}

/// The backup of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its directory.
    pub directory: String,
    /// SHA-256 of its manifest, lower-case hex: vouches for all of it.
    pub manifest_sha256: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTrail {
    /// Its name in the journal.
    pub name: String,
    /// What became of it.
    pub outcome: StepOutcome,
    /// When that was known.
    pub at: Timestamp,
    /// What was seen, for people.
    pub evidence: String,
    /// The same in fields.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepOutcome {
    /// Its effect was seen as a consumer sees it.
    Confirmed,
    /// It failed.
    Failed,
    /// Its effect was taken back, or never was.
    Undone,
    /// It could not be taken back.
    UndoFailed,
    /// It was not begun.
    NotBegun,
}

/// One thing that happened on the way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackEvent {
    /// When.
    pub at: Timestamp,
    /// At which step; `None` for the decision itself.
    pub step: Option<String>,
    /// What, for people.
    pub says: String,
    /// The same in fields.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

/// How a rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The complete new set is in force.
    Completed,
    /// The complete old set is in force again.
    Compensated,
    /// Neither; an operator is needed.
    Stuck,
    /// An operator said that it is over.
    Abandoned,
}

/// A rotation that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The stack's name.
    pub stack: String,
    /// Who asked.
    pub operator: Operator,
    /// What was to be rotated.
    pub secrets: Vec<String>,
    /// Why it was wanted, as given.
    pub reason: String,
    /// Why it was refused, each finding on its own.
    pub findings: Vec<String>,
}

/// A rotation that was declared to be over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The rotation's id.
    pub rotation: String,
    /// Who declared it.
    pub operator: Operator,
    /// Why, as given.
    pub reason: String,
    /// What was to be rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<RotatedSecret>,
    /// Those of them whose new value the env file held then. Whether it was in force elsewhere, nobody has shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_force: Vec<String>,
}

/// A value that was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revealed {
    /// The secret's name.
    pub secret: String,
    /// Which of its versions, such as `current` or `previous`.
    pub version: String,
    /// Keyed fingerprint of the value.
    pub fingerprint: String,
    /// To whom.
    pub operator: Operator,
    /// Why, as given.
    pub reason: String,
}

/// A grace window that was ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finalized {
    /// The rotation that opened it.
    pub rotation: String,
    /// The secrets whose previous value is retired.
    pub secrets: Vec<String>,
    /// Who ended it.
    pub operator: Operator,
    /// What was seen, for people.
    pub evidence: String,
}

/// Something that was brought back from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The rotation whose backup it is.
    pub rotation: String,
    /// The backup.
    pub backup: Backup,
    /// What was brought back, such as `files` or `database`.
    pub what: String,
    /// Who asked for it.
    pub operator: Operator,
    /// The run that began it, where that one was interrupted and another finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// What was seen, for people.
    pub evidence: String,
}

/// When something was begun, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub operator: Operator,
}

impl Operator {
    /// One line: what was given first, since it is the most telling, then what the system says.
    pub fn line(&self) -> String {
        let login = self.login.as_deref().unwrap_or("unknown user");
        let mut line = match &self.sudo_user {
            Some(user) => format!("{user} as {login}"),
            None => login.to_owned(),
        };
        line = format!("{line} on {}", self.host);
        match &self.given {
            Some(given) => format!("{given} ({line})"),
            None => line,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "Completed",
            Self::Compensated => "Compensated",
            Self::Stuck => "Stuck",
            Self::Abandoned => "Abandoned",
        })
    }
}

impl fmt::Display for StepOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::UndoFailed => "not undone",
            Self::NotBegun => "not begun",
        })
    }
}
