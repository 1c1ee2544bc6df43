//! The typed records of a rotation.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one rotation; also its idempotency key, and the mark on everything that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RotationId(String);

impl RotationId {
    /// A new name: UTC time to the second and 32 random bits, such as `20261123T231500Z-9f3c01ab`.
    pub fn new(at: Timestamp) -> Self {
        use rand::TryRngCore as _;
        // The time alone names it well enough should the generator fail; the journal refuses a second one of a name.
        let random = rand::rngs::OsRng.try_next_u32().unwrap_or_default();
        Self(format!("{}-{random:08x}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// A name that was read back, or typed by an operator; whether it exists is the journal's to say.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RotationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The journal's key of a step. Renaming one is a change of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepName(String);

impl StepName {
    /// A step's name, such as `database-password`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for StepName {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// The fencing number: it grows by one each time a process takes the stack over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub(crate) i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an act left behind that its confirmation or its undo needs. Never a value: values are sealed beside it.
pub type Receipt = serde_json::Value;

/// What was seen: a sentence for people and facts for machines. Never a value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// One sentence, or a few joined by semicolons.
    pub says: String,
    /// The same in fields.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub facts: serde_json::Value,
}

impl Evidence {
    /// A sentence without further facts.
    pub fn new(says: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            facts: serde_json::Value::Null,
        }
    }

    /// A sentence with its facts.
    pub fn with(says: impl Into<String>, facts: serde_json::Value) -> Self {
        Self {
            says: says.into(),
            facts,
        }
    }
}

/// Which way an intent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Towards the new set.
    Forward,
    /// Back to the old set.
    Backward,
}

/// How a rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The complete new set is in force.
    Completed,
    /// The complete old set is in force again.
    Compensated,
    /// Neither could be reached or proven; an operator is needed.
    Stuck,
    /// An operator said that it is over.
    Abandoned,
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

/// One thing that happened to a rotation. The engine's `apply` says which may follow which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An act or an undo is about to start; it may have landed from now on.
    Intended {
        /// The step.
        step: StepName,
        /// Which way.
        direction: Direction,
        /// Counts from 1 for each step and direction.
        attempt: u32,
    },
    /// The act landed, as its own answer or an observation says.
    Applied {
        /// The step.
        step: StepName,
        /// What confirmation and undo need.
        receipt: Receipt,
        /// True when an observation said so, not the act's own answer.
        observed: bool,
    },
    /// The effect was seen as a consumer sees it.
    Confirmed {
        /// The step.
        step: StepName,
        /// What was seen.
        evidence: Evidence,
    },
    /// The step will not be tried again in this direction.
    Failed {
        /// The step.
        step: StepName,
        /// Why, with known values taken out.
        reason: String,
        /// Whether an effect may be there all the same.
        may_have_landed: bool,
    },
    /// From here the rotation goes back.
    TurnedBack {
        /// Why.
        reason: String,
    },
    /// The step's effect is gone again, or never was.
    Undone {
        /// The step.
        step: StepName,
        /// What was seen.
        evidence: Evidence,
    },
    /// The undo gave up.
    UndoFailed {
        /// The step.
        step: StepName,
        /// Why, with known values taken out.
        reason: String,
    },
    /// Another process took the rotation over.
    Resumed {
        /// Who, as the operator's identity says.
        by: String,
    },
    /// It is over.
    Ended {
        /// How.
        ending: Ending,
        /// Why, where it is not Completed.
        reason: Option<String>,
    },
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Position in the journal; grows over all rotations of the stack.
    pub sequence: i64,
    /// When, by the host's clock.
    pub at: Timestamp,
    /// Under which epoch.
    pub epoch: Epoch,
    /// What.
    pub event: Event,
}

/// Marks an intent towards the new set.
#[derive(Debug)]
pub enum Forward {}

/// Marks an intent back to the old set.
#[derive(Debug)]
pub enum Backward {}

/// The permission to act: the intent is committed and synced, under an epoch that was in force at that moment.
///
/// Only [`crate::Writer`] makes one, an act consumes it, and it cannot be copied.
#[derive(Debug)]
pub struct Intended<D> {
    pub(crate) rotation: RotationId,
    pub(crate) step: StepName,
    pub(crate) attempt: u32,
    pub(crate) direction: PhantomData<fn() -> D>,
}

impl<D> Intended<D> {
    /// The rotation.
    pub fn rotation(&self) -> &RotationId {
        &self.rotation
    }

    /// The step.
    pub fn step(&self) -> &StepName {
        &self.step
    }

    /// Which try this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}
