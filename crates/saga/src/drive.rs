//! The thin shell: does what [`decide`] says, and records every event before it goes on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use keyroll_journal::{Ending, Event, JournalError, Receipt, StepName};
use thiserror::Error;

use crate::decide::{Decision, Task, decide};
use crate::plan::{Plan, PlanError, Shape};
use crate::state::{Illegal, Phase, State, StepState};
use crate::step::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};

/// How often and how long a step is tried.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Acts for one step, in one process.
    pub attempts: u32,
    /// Undos for one step, in one process. More than acts: a forward step that fails costs a rotation, an undo that fails
    /// leaves the stack between two sets.
    pub undos: u32,
    /// Looks at a world that cannot be seen, for one attempt.
    pub looks: u32,
    /// Pause after the first failure; doubles with each further one.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 3,
            // With the doubling pause 20 s in all: a server that was restarted is back by then.
            undos: 8,
            looks: 6,
            pause: Duration::from_millis(200),
        }
    }
}

/// Is told what happens, for a terminal or a log. It cannot change anything.
pub trait Watcher: Send + Sync {
    /// This event has been committed.
    fn event(&self, event: &Event);

    /// `text` without any value that must not be recorded. The driver passes every reason through this, so that no step
    /// and no provider can forget it.
    fn clean(&self, text: &str) -> String {
        text.to_owned()
    }
}

/// Why the engine stopped without an ending. The rotation is unfinished; `keyroll resume` goes on with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The journal refused or failed: nothing may be done that it does not know of.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The records that were read back contradict one another, or the plan.
    #[error("the journal's records of this rotation do not fit the plan: {0}; nothing was done")]
    Illegal(#[from] Illegal),
    /// The plan itself cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Goes on with a rotation, from whatever its records say, to its ending.
///
/// The caller has begun the rotation, or recorded that it was resumed, under the same writer. A rotation whose records end
/// in `Stuck` is over until a `Resumed` follows.
pub async fn drive(
    plan: &Plan,
    cx: &StepCx,
    limits: Limits,
    watcher: &dyn Watcher,
) -> Result<Ending, DriveError> {
    let shape = plan.shape();
    shape.check()?;
    let records = cx.writer().records(cx.rotation())?;
    let state = State::replay(&shape, records.iter().map(|r| &r.event))?;
    let driver = Driver {
        plan,
        shape,
        cx,
        limits,
        watcher,
        state: Arc::new(Mutex::new(state)),
    };
    driver.run().await
}

struct Driver<'a> {
    plan: &'a Plan,
    shape: Shape,
    cx: &'a StepCx,
    limits: Limits,
    watcher: &'a dyn Watcher,
    state: Arc<Mutex<State>>,
}

impl Driver<'_> {
    async fn run(&self) -> Result<Ending, DriveError> {
        let mut running = BTreeSet::new();
        let mut tasks: FuturesUnordered<BoxFuture<'_, (Task, Result<(), DriveError>)>> =
            FuturesUnordered::new();
        loop {
            let decision = decide(
                &self.shape,
                &self.snapshot(),
                &running,
                self.cx.stop().requested(),
            );
            match decision {
                Decision::Run(new) => {
                    for task in new {
                        running.insert(task.clone());
                        tasks.push(Box::pin(async move {
                            let result = if task.forward {
                                self.forward(&task.step).await
                            } else {
                                self.backward(&task.step).await
                            };
                            (task, result)
                        }));
                    }
                }
                Decision::Wait => {}
                Decision::TurnBack(reason) => {
                    self.record(&Event::TurnedBack { reason })?;
                    continue;
                }
                Decision::End(ending, reason) => {
                    self.record(&Event::Ended { ending, reason })?;
                    continue;
                }
                Decision::Over(ending) => return Ok(ending),
            }
            // Every decision but Run and Wait has gone on above, and both leave something that runs.
            if let Some((task, result)) = tasks.next().await {
                running.remove(&task);
                result?;
            }
        }
    }

    fn snapshot(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn step_state(&self, step: &StepName) -> StepState {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .step(step)
            .clone()
    }

    /// Checks, commits, remembers, tells: in this order, so that memory never runs ahead of the disk.
    fn record(&self, event: &Event) -> Result<(), DriveError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.clone().apply(event)?;
        self.cx
            .writer()
            .append(self.cx.rotation(), event, self.cx.now())?;
        *state = next;
        drop(state);
        self.watcher.event(event);
        Ok(())
    }

    /// Like [`Driver::record`] for an intent; the journal's token is the result.
    fn intend<D>(
        &self,
        task: &Task,
        attempt: u32,
        commit: impl FnOnce() -> Result<keyroll_journal::Intended<D>, JournalError>,
    ) -> Result<keyroll_journal::Intended<D>, DriveError> {
        let event = Event::Intended {
            step: task.step.clone(),
            direction: task.direction(),
            attempt,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.clone().apply(&event)?;
        let token = commit()?;
        *state = next;
        drop(state);
        self.watcher.event(&event);
        Ok(token)
    }

    async fn pause(&self, failures: u32) {
        tokio::time::sleep(
            self.limits.pause * 2_u32.saturating_pow(failures.saturating_sub(1)).min(32),
        )
        .await;
    }

    async fn forward(&self, name: &StepName) -> Result<(), DriveError> {
        let step = self
            .plan
            .step(name)
            .expect("tasks come from this plan's shape");
        let Some(receipt) = self.apply(step).await? else {
            return Ok(());
        };
        let mut failures = 0;
        loop {
            match step.confirm(self.cx, &receipt).await {
                Ok(evidence) => {
                    return self.record(&Event::Confirmed {
                        step: name.clone(),
                        evidence,
                    });
                }
                Err(error) => {
                    failures += 1;
                    // What was looked at and found wrong is not looked at again; what could not be seen is.
                    let looks = if matches!(error, ConfirmError::Refuted(_)) {
                        1
                    } else {
                        self.limits.looks
                    };
                    if failures >= looks {
                        let reason = self.watcher.clean(&error.to_string());
                        return self.record(&Event::Failed {
                            step: name.clone(),
                            reason,
                            may_have_landed: true,
                        });
                    }
                    self.pause(failures).await;
                }
            }
        }
    }

    /// Brings the effect about and records it; `None` when the step was given up, which is recorded too.
    async fn apply(&self, step: &dyn Step) -> Result<Option<Receipt>, DriveError> {
        let name = step.name();
        let mut tries = 0;
        let mut last = String::new();
        let give_up = |reason: String, may_have_landed| {
            self.record(&Event::Failed {
                step: name.clone(),
                reason: self.watcher.clean(&reason),
                may_have_landed,
            })
        };
        loop {
            let attempt = match self.step_state(&name) {
                // Recorded as applied before a crash: the world may have been changed since, but that is for confirm to see.
                StepState::Applied { receipt } => return Ok(Some(receipt)),
                StepState::Intended { attempt } => {
                    match self.look(step).await {
                        Observed::After(receipt) => {
                            self.record(&Event::Applied {
                                step: name,
                                receipt: receipt.clone(),
                                observed: true,
                            })?;
                            return Ok(Some(receipt));
                        }
                        Observed::Before | Observed::Overlap => {}
                        Observed::Drifted(seen) => {
                            give_up(format!("somebody else changed it: {}", seen.says), true)?;
                            return Ok(None);
                        }
                        Observed::Unknown(why) => {
                            give_up(
                                format!(
                                    "it may have taken effect, and could not be looked at: {why}"
                                ),
                                true,
                            )?;
                            return Ok(None);
                        }
                    }
                    attempt + 1
                }
                _ => 1,
            };
            if tries >= self.limits.attempts {
                give_up(format!("gave up after {tries} attempts: {last}"), true)?;
                return Ok(None);
            }
            if tries > 0 {
                self.pause(tries).await;
            }
            tries += 1;
            let task = Task {
                step: name.clone(),
                forward: true,
            };
            let token = self.intend(&task, attempt, || {
                self.cx
                    .writer()
                    .intend_forward(self.cx.rotation(), &name, attempt, self.cx.now())
            })?;
            match step.act(self.cx, token).await {
                Ok(receipt) => {
                    self.record(&Event::Applied {
                        step: name,
                        receipt: receipt.clone(),
                        observed: false,
                    })?;
                    return Ok(Some(receipt));
                }
                Err(ActError::NotApplied(reason)) => {
                    // After the pivot there is no other way than forward, so it is tried again.
                    if !self.snapshot().past_pivot() {
                        give_up(reason, false)?;
                        return Ok(None);
                    }
                    last = reason;
                }
                Err(ActError::Indeterminate(reason)) => last = reason,
                Err(ActError::Fenced { newer }) => {
                    return Err(JournalError::Fenced {
                        own: self.cx.writer().own_epoch(),
                        newer,
                    }
                    .into());
                }
            }
        }
    }

    /// Observes until something is seen, or the looks are used up.
    async fn look(&self, step: &dyn Step) -> Observed {
        for failures in 1.. {
            match step.observe(self.cx).await {
                Observed::Unknown(_) if failures < self.limits.looks => self.pause(failures).await,
                seen => return seen,
            }
        }
        unreachable!("the loop returns at the last look")
    }

    async fn backward(&self, name: &StepName) -> Result<(), DriveError> {
        let step = self
            .plan
            .compensation(name)
            .expect("only steps before the pivot are undone");
        let mut failures = 0;
        loop {
            let attempt = match self.step_state(name) {
                StepState::Undoing { attempt } => attempt + 1,
                _ => 1,
            };
            let task = Task {
                step: name.clone(),
                forward: false,
            };
            let token = self.intend(&task, attempt, || {
                self.cx
                    .writer()
                    .intend_backward(self.cx.rotation(), name, attempt, self.cx.now())
            })?;
            match step.undo(self.cx, token).await {
                Ok(evidence) => {
                    return self.record(&Event::Undone {
                        step: name.clone(),
                        evidence,
                    });
                }
                Err(error) => {
                    // A writer that was fenced meanwhile must not go on to say that an undo failed.
                    self.cx.fence()?;
                    failures += 1;
                    if failures >= self.limits.undos {
                        return self.record(&Event::UndoFailed {
                            step: name.clone(),
                            reason: self.watcher.clean(&error.to_string()),
                        });
                    }
                    self.pause(failures).await;
                }
            }
        }
    }
}

impl Phase {
    /// The ending, when there is one.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Ended { ending, .. } => Some(*ending),
            _ => None,
        }
    }
}
