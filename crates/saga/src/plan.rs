//! Plans: which steps, what each waits for, and where there is no way back.

use std::collections::{BTreeMap, BTreeSet};

use keyroll_journal::StepName;
use thiserror::Error;

use crate::step::{Compensate, Step};

/// A step before the point of no return, with what it waits for in either direction.
#[derive(Debug)]
pub struct PlanStep {
    /// The step.
    pub step: Box<dyn Compensate>,
    /// Steps that are confirmed before this one starts.
    pub needs: Vec<StepName>,
    /// Steps that are undone before this one is undone, if they had started. Undo has an order of its own: file and
    /// database go back before the containers are made again, and only then is there something to log in to.
    pub undo_after: Vec<StepName>,
}

/// Exactly one pivot, because it is a field.
#[derive(Debug)]
pub struct Plan {
    /// What can be taken back.
    pub before: Vec<PlanStep>,
    /// The point of no return.
    pub pivot: Box<dyn Step>,
    /// What is rolled forward, in this order.
    pub after: Vec<Box<dyn Step>>,
}

/// A plan without its effects: all that deciding needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Steps before the pivot.
    pub before: Vec<ShapeStep>,
    /// The pivot.
    pub pivot: StepName,
    /// Steps after it, in order.
    pub after: Vec<StepName>,
}

/// One step of a [`Shape`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeStep {
    /// Its name.
    pub name: StepName,
    /// See [`PlanStep::needs`].
    pub needs: BTreeSet<StepName>,
    /// See [`PlanStep::undo_after`].
    pub undo_after: BTreeSet<StepName>,
}

/// A plan that could not be carried out in any world.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// Two steps share a name, so the journal could not tell them apart.
    #[error("the plan has two steps called {0}")]
    Duplicate(StepName),
    /// A step waits for one that is not before the pivot.
    #[error("step {step} waits for {missing}, which is not a step before the point of no return")]
    Missing {
        /// The step that waits.
        step: StepName,
        /// What it waits for.
        missing: StepName,
    },
    /// Steps wait for one another in a circle.
    #[error("steps wait for one another in a circle: {0:?}")]
    Circle(Vec<StepName>),
}

impl Plan {
    /// The plan's shape.
    pub fn shape(&self) -> Shape {
        let before = self
            .before
            .iter()
            .map(|s| ShapeStep {
                name: s.step.name(),
                needs: s.needs.iter().cloned().collect(),
                undo_after: s.undo_after.iter().cloned().collect(),
            })
            .collect();
        Shape {
            before,
            pivot: self.pivot.name(),
            after: self.after.iter().map(|s| s.name()).collect(),
        }
    }

    pub(crate) fn step(&self, name: &StepName) -> Option<&dyn Step> {
        if self.pivot.name() == *name {
            return Some(&*self.pivot);
        }
        let before = self.before.iter().map(|s| &*s.step as &dyn Step);
        before
            .chain(self.after.iter().map(|s| &**s))
            .find(|s| s.name() == *name)
    }

    pub(crate) fn compensation(&self, name: &StepName) -> Option<&dyn Compensate> {
        self.before
            .iter()
            .map(|s| &*s.step)
            .find(|s| s.name() == *name)
    }
}

impl Shape {
    /// Every step's name, in the plan's order.
    pub fn names(&self) -> impl Iterator<Item = &StepName> {
        self.before
            .iter()
            .map(|s| &s.name)
            .chain([&self.pivot])
            .chain(&self.after)
    }

    /// Checks that names are unique and that both orders can be followed to the end.
    pub fn check(&self) -> Result<(), PlanError> {
        let mut seen = BTreeSet::new();
        for name in self.names() {
            if !seen.insert(name) {
                return Err(PlanError::Duplicate(name.clone()));
            }
        }
        let orders: [fn(&ShapeStep) -> &BTreeSet<StepName>; 2] = [|s| &s.needs, |s| &s.undo_after];
        for order in orders {
            self.check_order(order)?;
        }
        Ok(())
    }

    fn check_order(&self, order: fn(&ShapeStep) -> &BTreeSet<StepName>) -> Result<(), PlanError> {
        let mut open: BTreeMap<&StepName, &BTreeSet<StepName>> =
            self.before.iter().map(|s| (&s.name, order(s))).collect();
        for (step, waits_for) in &open {
            if let Some(missing) = waits_for.iter().find(|n| !open.contains_key(n)) {
                return Err(PlanError::Missing {
                    step: (*step).clone(),
                    missing: missing.clone(),
                });
            }
        }
        while !open.is_empty() {
            let still: BTreeSet<StepName> = open.keys().map(|n| (*n).clone()).collect();
            open.retain(|_, waits_for| !waits_for.is_disjoint(&still));
            if open.len() == still.len() {
                return Err(PlanError::Circle(still.into_iter().collect()));
            }
        }
        Ok(())
    }
}
