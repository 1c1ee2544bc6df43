//! What to do next: a pure function, so that every situation can be tested without a stack.

use std::collections::BTreeSet;

use keyroll_journal::{Direction, Ending, StepName};

use crate::plan::{Shape, ShapeStep};
use crate::state::{Phase, State, StepState};

/// One step to be taken in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// The step.
    pub step: StepName,
    /// True towards the new set.
    pub forward: bool,
}

impl Task {
    fn forward(step: &StepName) -> Self {
        Self {
            step: step.clone(),
            forward: true,
        }
    }

    fn backward(step: &StepName) -> Self {
        Self {
            step: step.clone(),
            forward: false,
        }
    }

    /// The direction as the journal writes it.
    pub fn direction(&self) -> Direction {
        if self.forward {
            Direction::Forward
        } else {
            Direction::Backward
        }
    }
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start these, side by side with what runs already.
    Run(Vec<Task>),
    /// Nothing to start before something that runs has ended.
    Wait,
    /// Record that the rotation goes back, for this reason.
    TurnBack(String),
    /// Record this ending.
    End(Ending, Option<String>),
    /// It has ended.
    Over(Ending),
}

/// Decides, given the tasks that are running now and whether the operator asked to stop.
pub fn decide(shape: &Shape, state: &State, running: &BTreeSet<Task>, stop: bool) -> Decision {
    match state.phase() {
        Phase::Ended { ending, .. } => Decision::Over(*ending),
        Phase::Forward => forward(shape, state, running, stop),
        Phase::Backward { because } => backward(shape, state, running, because),
    }
}

fn forward(shape: &Shape, state: &State, running: &BTreeSet<Task>, stop: bool) -> Decision {
    let failed = shape.names().find_map(|n| match state.step(n) {
        StepState::Failed { reason, .. } => Some(format!("{n}: {reason}")),
        _ => None,
    });
    let interrupted = || {
        (stop && !state.pivot_may_have_landed()).then(|| "the operator asked to stop".to_owned())
    };
    if let Some(reason) = failed.or_else(interrupted) {
        return if !running.is_empty() {
            Decision::Wait
        } else if state.pivot_may_have_landed() {
            Decision::End(Ending::Stuck, Some(reason))
        } else {
            Decision::TurnBack(reason)
        };
    }
    let confirmed = |n: &StepName| matches!(state.step(n), StepState::Confirmed { .. });
    let ready = |s: &&ShapeStep| !confirmed(&s.name) && s.needs.iter().all(confirmed);
    let mut tasks: Vec<Task> = shape
        .before
        .iter()
        .filter(ready)
        .map(|s| Task::forward(&s.name))
        .collect();
    if shape.before.iter().all(|s| confirmed(&s.name)) {
        match [&shape.pivot]
            .into_iter()
            .chain(&shape.after)
            .find(|n| !confirmed(n))
        {
            Some(next) => tasks.push(Task::forward(next)),
            None => return Decision::End(Ending::Completed, None),
        }
    }
    start(tasks, running)
}

fn backward(shape: &Shape, state: &State, running: &BTreeSet<Task>, because: &str) -> Decision {
    let clean =
        |n: &StepName| matches!(state.step(n), StepState::Waiting | StepState::Undone { .. });
    let gave_up = |n: &StepName| matches!(state.step(n), StepState::UndoFailed { .. });
    let open = shape
        .before
        .iter()
        .filter(|s| !clean(&s.name) && !gave_up(&s.name));
    let tasks: Vec<Task> = open
        .filter(|s| s.undo_after.iter().all(clean))
        .map(|s| Task::backward(&s.name))
        .collect();
    if !tasks.is_empty() || !running.is_empty() {
        return start(tasks, running);
    }
    let stuck: Vec<String> = shape
        .before
        .iter()
        .filter_map(|s| match state.step(&s.name) {
            StepState::UndoFailed { reason } => Some(format!("undo of {}: {reason}", s.name)),
            _ => None,
        })
        .collect();
    if stuck.is_empty() {
        Decision::End(Ending::Compensated, Some(because.to_owned()))
    } else {
        Decision::End(
            Ending::Stuck,
            Some(format!(
                "{}; it went back because {because}",
                stuck.join("; ")
            )),
        )
    }
}

fn start(tasks: Vec<Task>, running: &BTreeSet<Task>) -> Decision {
    let new: Vec<Task> = tasks.into_iter().filter(|t| !running.contains(t)).collect();
    if new.is_empty() {
        Decision::Wait
    } else {
        Decision::Run(new)
    }
}
