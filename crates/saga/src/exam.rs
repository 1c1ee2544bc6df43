//! Exams that every step has to pass: test equipment, without effect unless a plan is examined.
//!
//! A step promises the engine four things: its observation changes nothing and tells the truth, its act may be repeated, its
//! undo may be repeated, and either may fail in any way and leave a world that the engine can bring to one of its two ends. None of
//! that shows while everything works. So a plan can be wrapped ([`Plan::examined`]), and an [`Examiner`] then decides what becomes of
//! each act and undo: the step itself is the real one, acting on the real system, and only what the engine hears is changed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use tokio::sync::Mutex;

use crate::plan::{Plan, PlanStep};
use crate::step::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};

/// What becomes of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is done, and heard.
    Works,
    /// It is not done, and the engine hears that.
    NotDone,
    /// It is not done, and nobody knows.
    Unheard,
    /// It is done, and nobody knows.
    Unanswered,
    /// It is done, nobody knows, and looking says that it was not: so it is done again.
    Repeated,
    /// It is done, and the engine hears that it was not.
    Denied,
}

/// What becomes of an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// It is done, and heard.
    Works,
    /// It is not done, and the engine hears that.
    NotDone,
    /// It is done, and the engine hears that it was not: so it is done again.
    Repeated,
}

/// Decides, and watches.
pub trait Examiner: fmt::Debug + Send + Sync {
    /// What becomes of this attempt of a step's act.
    fn act(&self, step: &StepName, attempt: u32) -> Act;
    /// What becomes of this attempt of a step's undo.
    fn undo(&self, step: &StepName, attempt: u32) -> Undo;
    /// The step is about to look at the world.
    fn before_look(&self, step: &StepName);
    /// It has looked.
    fn after_look(&self, step: &StepName);
}

impl Plan {
    /// The same plan, examined.
    #[must_use]
    pub fn examined(self, examiner: &Arc<dyn Examiner>) -> Self {
        let turn = Arc::default();
        let before = self.before.into_iter().map(|planned| PlanStep {
            step: Box::new(Examined::new(planned.step, examiner, &turn)),
            ..planned
        });
        let after = self.after.into_iter();
        let after =
            after.map(|step| Box::new(Examined::new(step, examiner, &turn)) as Box<dyn Step>);
        Self {
            before: before.collect(),
            pivot: Box::new(Examined::new(self.pivot, examiner, &turn)),
            after: after.collect(),
        }
    }
}

/// A step whose answers go through an examiner.
#[derive(Debug)]
struct Examined<S: ?Sized> {
    inner: Box<S>,
    examiner: Arc<dyn Examiner>,
    /// Steps that would run side by side take turns: what one does must not be seen while another one looks.
    turn: Arc<Mutex<()>>,
    /// The next look says that nothing was done.
    denies: AtomicBool,
}

impl<S: Step + ?Sized> Examined<S> {
    fn new(inner: Box<S>, examiner: &Arc<dyn Examiner>, turn: &Arc<Mutex<()>>) -> Self {
        Self {
            inner,
            examiner: Arc::clone(examiner),
            turn: Arc::clone(turn),
            denies: AtomicBool::new(false),
        }
    }
}

impl<S: Step + ?Sized> Step for Examined<S> {
    fn name(&self) -> StepName {
        self.inner.name()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let name = self.name();
            self.examiner.before_look(&name);
            let seen = self.inner.observe(cx).await;
            self.examiner.after_look(&name);
            if self.denies.swap(false, Ordering::SeqCst) {
                return Observed::Before;
            }
            seen
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let (name, attempt) = (self.name(), intent.attempt());
            let unsure = || ActError::Indeterminate("an exam: the answer is lost".into());
            let denied = || ActError::NotApplied("an exam: it is said not to be done".into());
            match self.examiner.act(&name, attempt) {
                Act::Works => self.inner.act(cx, intent).await,
                Act::NotDone => Err(denied()),
                Act::Unheard => Err(unsure()),
                Act::Unanswered => {
                    self.inner.act(cx, intent).await?;
                    Err(unsure())
                }
                Act::Repeated => {
                    self.inner.act(cx, intent).await?;
                    self.denies.store(true, Ordering::SeqCst);
                    Err(unsure())
                }
                Act::Denied => {
                    self.inner.act(cx, intent).await?;
                    Err(denied())
                }
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            self.inner.confirm(cx, receipt).await
        })
    }
}

impl<S: Compensate + ?Sized> Compensate for Examined<S> {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let failed = || UndoError("an exam: it is said not to be undone".into());
            match self.examiner.undo(&self.name(), intent.attempt()) {
                Undo::Works => self.inner.undo(cx, intent).await,
                Undo::NotDone => Err(failed()),
                Undo::Repeated => {
                    self.inner.undo(cx, intent).await?;
                    Err(failed())
                }
            }
        })
    }
}
