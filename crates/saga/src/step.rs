//! What a step is.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use keyroll_journal::{
    Backward, Epoch, Evidence, Forward, Intended, JournalError, Receipt, RotationId, StepName,
    Writer,
};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One effect on one system. Every method may run more than once, in another process than the time before.
pub trait Step: fmt::Debug + Send + Sync {
    /// The journal's key for this step; renaming it is a change of the stored format.
    fn name(&self) -> StepName;

    /// Looks where the world stands, and changes nothing.
    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed>;

    /// Brings the effect about. The intent is committed; it is consumed here.
    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>>;

    /// Shows the effect as a consumer would see it.
    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>>;
}

/// A step that can be taken back: its undo tolerates an act that never landed, landed twice, or landed half.
pub trait Compensate: Step {
    /// Takes the effect back, and shows that it is gone.
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>>;
}

/// Where the world stands with regard to one step.
#[derive(Debug)]
pub enum Observed {
    /// As before the act.
    Before,
    /// Old and new are both accepted.
    Overlap,
    /// The act has landed.
    After(Receipt),
    /// Neither old nor new: somebody else was here.
    Drifted(Evidence),
    /// Could not look. Never taken for a "no".
    Unknown(String),
}

/// Why an act did not report success.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Certainly without effect.
    #[error("{0}")]
    NotApplied(String),
    /// It may have landed: a timeout, a cut connection, a killed child.
    #[error("{0} (it may have taken effect all the same)")]
    Indeterminate(String),
    /// Another keyroll has taken over.
    #[error("another keyroll has taken over (epoch {newer})")]
    Fenced {
        /// The epoch in force.
        newer: Epoch,
    },
}

impl From<JournalError> for ActError {
    /// The journal is written before the effect it speaks of, so its failure stops the act.
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Fenced { newer, .. } => Self::Fenced { newer },
            other => Self::NotApplied(other.to_string()),
        }
    }
}

/// Why an effect could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// It was looked at, and it is not as it should be.
    #[error("{0}")]
    Refuted(String),
    /// It could not be looked at.
    #[error("could not look: {0}")]
    Unknown(String),
}

/// Why an undo did not report success. It is tried again, some times, before the rotation is stuck.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UndoError(pub String);

/// What a step gets to work with besides its own fields.
#[derive(Debug, Clone)]
pub struct StepCx {
    rotation: RotationId,
    writer: Arc<Writer>,
    stop: Stop,
    clock: Clock,
}

impl StepCx {
    /// The context of one rotation under one writer.
    pub fn new(rotation: RotationId, writer: Arc<Writer>, stop: Stop) -> Self {
        Self {
            rotation,
            writer,
            stop,
            clock: Clock::default(),
        }
    }

    /// The same context with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The time now, for what is written down. Nothing is decided by it: clocks jump.
    pub fn now(&self) -> Timestamp {
        (self.clock.0)()
    }

    /// The rotation.
    pub fn rotation(&self) -> &RotationId {
        &self.rotation
    }

    /// The journal, for sealed things that an act must keep before its effect, and for reading them back.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Asks right before an effect whether this process is still the one in force.
    pub fn fence(&self) -> Result<(), JournalError> {
        self.writer.fence()
    }

    /// Whether the operator asked to stop.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }
}

/// Where the time of records comes from: the system, unless a simulation brings its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that shows what `now` says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", (self.0)())
    }
}

/// The operator's wish to stop: steps that run are finished, then the rotation unwinds.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for it.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
