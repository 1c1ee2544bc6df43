//! What has happened, and the one function that says what may happen next.

use std::collections::BTreeMap;

use keyroll_journal::{Direction, Ending, Event, Evidence, Receipt, StepName};
use thiserror::Error;

use crate::plan::Shape;

/// Where one step stands.
#[derive(Debug, Clone, PartialEq)]
pub enum StepState {
    /// Never intended: certainly without effect.
    Waiting,
    /// Intended; the effect may be there.
    Intended {
        /// The latest attempt.
        attempt: u32,
    },
    /// The effect is there.
    Applied {
        /// What confirmation and undo need.
        receipt: Receipt,
    },
    /// The effect was shown as a consumer sees it.
    Confirmed {
        /// What undo needs.
        receipt: Receipt,
        /// What was seen.
        evidence: Evidence,
    },
    /// Given up in the forward direction.
    Failed {
        /// Why.
        reason: String,
        /// Whether an effect may be there.
        may_have_landed: bool,
    },
    /// Its undo was intended; the effect may or may not be there.
    Undoing {
        /// The latest attempt.
        attempt: u32,
    },
    /// The effect is gone.
    Undone {
        /// What was seen.
        evidence: Evidence,
    },
    /// Its undo gave up.
    UndoFailed {
        /// Why.
        reason: String,
    },
}

/// Which way the rotation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// To the new set.
    Forward,
    /// To the old set.
    Backward {
        /// What made it turn back.
        because: String,
    },
    /// Nowhere any more.
    Ended {
        /// How it ended.
        ending: Ending,
        /// Why, where it is not Completed.
        reason: Option<String>,
    },
}

/// Everything that deciding needs to know of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    steps: BTreeMap<StepName, StepState>,
    phase: Phase,
    /// The phase that a Stuck rotation returns to when it is resumed.
    before_stuck: Option<Phase>,
    pivot: StepName,
    undoable: Vec<StepName>,
}

/// An event that cannot follow. In a running engine it is a bug, in a record that was read back it is damage; neither is
/// acted upon.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{event} cannot follow when {state}")]
pub struct Illegal {
    event: String,
    state: String,
}

impl State {
    /// Nothing has happened.
    pub fn new(shape: &Shape) -> Self {
        Self {
            steps: shape
                .names()
                .map(|n| (n.clone(), StepState::Waiting))
                .collect(),
            phase: Phase::Forward,
            before_stuck: None,
            pivot: shape.pivot.clone(),
            undoable: shape.before.iter().map(|s| s.name.clone()).collect(),
        }
    }

    /// The state after these events, every one of them checked.
    pub fn replay<'a>(
        shape: &Shape,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, Illegal> {
        events.into_iter().try_fold(Self::new(shape), Self::apply)
    }

    /// Which way.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Where a step stands; unknown names are `Waiting`.
    pub fn step(&self, name: &StepName) -> &StepState {
        self.steps.get(name).unwrap_or(&StepState::Waiting)
    }

    /// All steps with where they stand, by name.
    pub fn steps(&self) -> impl Iterator<Item = (&StepName, &StepState)> {
        self.steps.iter()
    }

    /// Whether the point of no return was passed.
    pub fn past_pivot(&self) -> bool {
        matches!(
            self.step(&self.pivot),
            StepState::Applied { .. } | StepState::Confirmed { .. }
        )
    }

    /// Authors every transition: the state after `event`, or why it cannot follow.
    pub fn apply(mut self, event: &Event) -> Result<Self, Illegal> {
        let illegal = |state: &dyn std::fmt::Debug| Illegal {
            event: name_of(event),
            state: format!("{state:?}"),
        };
        match event {
            Event::Intended { step, .. }
            | Event::Applied { step, .. }
            | Event::Confirmed { step, .. }
            | Event::Failed { step, .. }
            | Event::Undone { step, .. }
            | Event::UndoFailed { step, .. } => {
                let Some(now) = self.steps.get(step) else {
                    return Err(illegal(&"the plan has no such step"));
                };
                let next = self
                    .next_of(step, now, event)
                    .ok_or_else(|| illegal(&(&self.phase, now)))?;
                self.steps.insert(step.clone(), next);
            }
            Event::TurnedBack { reason } => {
                if self.phase != Phase::Forward || self.pivot_may_have_landed() {
                    return Err(illegal(&self.phase));
                }
                self.phase = Phase::Backward {
                    because: reason.clone(),
                };
            }
            Event::Resumed { .. } => {
                if let Phase::Ended { ending, .. } = &self.phase {
                    if *ending != Ending::Stuck {
                        return Err(illegal(&self.phase));
                    }
                    self.phase = self.before_stuck.take().unwrap_or(Phase::Forward);
                    self.reopen();
                }
            }
            Event::Ended { ending, reason } => {
                if !self.may_end(*ending) {
                    return Err(illegal(&self.phase));
                }
                let ended = Phase::Ended {
                    ending: *ending,
                    reason: reason.clone(),
                };
                let before = std::mem::replace(&mut self.phase, ended);
                if *ending == Ending::Stuck {
                    self.before_stuck = Some(before);
                }
            }
            _ => return Err(illegal(&"this version does not know the event")),
        }
        Ok(self)
    }

    fn next_of(&self, step: &StepName, now: &StepState, event: &Event) -> Option<StepState> {
        use StepState::{
            Applied, Confirmed, Failed, Intended, UndoFailed, Undoing, Undone, Waiting,
        };
        let forward = self.phase == Phase::Forward;
        let backward = matches!(self.phase, Phase::Backward { .. });
        match (event, now) {
            (
                Event::Intended {
                    direction: Direction::Forward,
                    attempt,
                    ..
                },
                Waiting,
            ) if forward && *attempt == 1 => Some(Intended { attempt: 1 }),
            (
                Event::Intended {
                    direction: Direction::Forward,
                    attempt,
                    ..
                },
                Intended { attempt: last },
            ) if forward && *attempt == last + 1 => Some(Intended { attempt: *attempt }),
            (Event::Applied { receipt, .. }, Intended { .. }) if forward => Some(Applied {
                receipt: receipt.clone(),
            }),
            (Event::Confirmed { evidence, .. }, Applied { receipt }) if forward => {
                Some(Confirmed {
                    receipt: receipt.clone(),
                    evidence: evidence.clone(),
                })
            }
            (
                Event::Failed {
                    reason,
                    may_have_landed,
                    ..
                },
                Intended { .. } | Applied { .. },
            ) if forward => {
                // Once applied, an effect is there whatever the event says.
                let landed = *may_have_landed || matches!(now, Applied { .. });
                Some(Failed {
                    reason: reason.clone(),
                    may_have_landed: landed,
                })
            }
            (
                Event::Intended {
                    direction: Direction::Backward,
                    attempt,
                    ..
                },
                Intended { .. } | Applied { .. } | Confirmed { .. } | Failed { .. },
            ) if backward && *attempt == 1 && self.undoable.contains(step) => {
                Some(Undoing { attempt: 1 })
            }
            (
                Event::Intended {
                    direction: Direction::Backward,
                    attempt,
                    ..
                },
                Undoing { attempt: last },
            ) if backward && *attempt == last + 1 => Some(Undoing { attempt: *attempt }),
            (Event::Undone { evidence, .. }, Undoing { .. }) if backward => Some(Undone {
                evidence: evidence.clone(),
            }),
            (Event::UndoFailed { reason, .. }, Undoing { .. }) if backward => Some(UndoFailed {
                reason: reason.clone(),
            }),
            _ => None,
        }
    }

    /// A resumed Stuck rotation tries again what had been given up.
    fn reopen(&mut self) {
        for state in self.steps.values_mut() {
            match state {
                StepState::UndoFailed { .. } => *state = StepState::Undoing { attempt: 1 },
                StepState::Failed { .. } if self.phase == Phase::Forward => {
                    *state = StepState::Intended { attempt: 1 };
                }
                _ => {}
            }
        }
    }

    fn may_end(&self, ending: Ending) -> bool {
        match (ending, &self.phase) {
            (Ending::Completed, Phase::Forward) => self
                .steps
                .values()
                .all(|s| matches!(s, StepState::Confirmed { .. })),
            (Ending::Compensated, Phase::Backward { .. }) => {
                let gone =
                    |n| matches!(self.step(n), StepState::Waiting | StepState::Undone { .. });
                self.undoable.iter().all(gone) && !self.pivot_may_have_landed()
            }
            (Ending::Stuck, Phase::Forward | Phase::Backward { .. }) => true,
            (Ending::Abandoned, phase) => !matches!(
                phase,
                Phase::Ended {
                    ending: Ending::Completed | Ending::Compensated | Ending::Abandoned,
                    ..
                }
            ),
            _ => false,
        }
    }

    /// Whether turning back could leave an effect that nothing takes back.
    pub fn pivot_may_have_landed(&self) -> bool {
        match self.step(&self.pivot) {
            StepState::Waiting => false,
            StepState::Failed {
                may_have_landed, ..
            } => *may_have_landed,
            _ => true,
        }
    }
}

fn name_of(event: &Event) -> String {
    match event {
        Event::Intended {
            step,
            direction,
            attempt,
        } => format!("intent {attempt} {direction:?} of {step}"),
        Event::Applied { step, .. } => format!("applied {step}"),
        Event::Confirmed { step, .. } => format!("confirmed {step}"),
        Event::Failed { step, .. } => format!("failed {step}"),
        Event::TurnedBack { .. } => "turning back".into(),
        Event::Undone { step, .. } => format!("undone {step}"),
        Event::UndoFailed { step, .. } => format!("failed undo of {step}"),
        Event::Resumed { .. } => "resuming".into(),
        Event::Ended { ending, .. } => format!("ending {ending}"),
        _ => "an unknown event".into(),
    }
}
