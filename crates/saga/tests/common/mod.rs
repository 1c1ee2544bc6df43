//! A toy world: steps whose effects, failures and landings are drawn at random, and which take notes of how they were used.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use keyroll_journal::{Backward, Direction, Event, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Plan, PlanStep, Step, StepCx,
    UndoError,
};

/// What happens at one call of an act or undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    Works,
    NotApplied,
    LandsButFails,
    FailsIndeterminate,
}

/// What happens at one call of observe or confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    Clear,
    Blind,
    Refutes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Observe(StepName),
    Act(StepName, u32, Luck),
    Undo(StepName, u32, Luck),
}

/// The outside: for each step whether its effect is there, what luck is left, and every call in order.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) landed: BTreeMap<StepName, bool>,
    pub(crate) luck: VecDeque<Luck>,
    pub(crate) sight: VecDeque<Sight>,
    /// This step's act never works.
    pub(crate) refuses: Option<StepName>,
    pub(crate) calls: Vec<Call>,
    pub(crate) broken_laws: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<World>>;

#[derive(Debug)]
pub(crate) struct Toy {
    pub(crate) name: StepName,
    pub(crate) world: Shared,
}

impl Toy {
    /// Law 1 as seen from the effect: when it starts, the intent is on disk.
    fn check_intent(&self, cx: &StepCx, direction: Direction, attempt: u32, world: &mut World) {
        let written = cx
            .writer()
            .records(cx.rotation())
            .unwrap()
            .into_iter()
            .any(|r| {
                r.event
                    == Event::Intended {
                        step: self.name.clone(),
                        direction,
                        attempt,
                    }
            });
        if !written {
            world.broken_laws.push(format!(
                "law 1: {} {direction:?} {attempt} without a committed intent",
                self.name
            ));
        }
    }
}

impl Step for Toy {
    fn name(&self) -> StepName {
        self.name.clone()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            tokio::task::yield_now().await;
            let mut world = self.world.lock().unwrap();
            world.calls.push(Call::Observe(self.name.clone()));
            match world.sight.pop_front().unwrap_or(Sight::Clear) {
                Sight::Blind => Observed::Unknown("fog".into()),
                _ if world.landed[&self.name] => Observed::After(Receipt::Null),
                _ => Observed::Before,
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut world = self.world.lock().unwrap();
            self.check_intent(cx, Direction::Forward, intent.attempt(), &mut world);
            let luck = if world.refuses.as_ref() == Some(&self.name) {
                Luck::NotApplied
            } else {
                world.luck.pop_front().unwrap_or(Luck::Works)
            };
            world
                .calls
                .push(Call::Act(self.name.clone(), intent.attempt(), luck));
            if matches!(luck, Luck::Works | Luck::LandsButFails) {
                world.landed.insert(self.name.clone(), true);
            }
            match luck {
                Luck::Works => Ok(Receipt::Null),
                Luck::NotApplied => Err(ActError::NotApplied("no".into())),
                Luck::LandsButFails | Luck::FailsIndeterminate => {
                    Err(ActError::Indeterminate("cut off".into()))
                }
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            let mut world = self.world.lock().unwrap();
            match world.sight.pop_front().unwrap_or(Sight::Clear) {
                Sight::Blind => Err(ConfirmError::Unknown("fog".into())),
                Sight::Refutes => Err(ConfirmError::Refuted("it does not work".into())),
                Sight::Clear if world.landed[&self.name] => Ok(Evidence::new("seen")),
                Sight::Clear => Err(ConfirmError::Refuted("it is not there".into())),
            }
        })
    }
}

impl Compensate for Toy {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut world = self.world.lock().unwrap();
            self.check_intent(cx, Direction::Backward, intent.attempt(), &mut world);
            let luck = world.luck.pop_front().unwrap_or(Luck::Works);
            world
                .calls
                .push(Call::Undo(self.name.clone(), intent.attempt(), luck));
            if matches!(luck, Luck::Works | Luck::LandsButFails) {
                world.landed.insert(self.name.clone(), false);
            }
            if luck == Luck::Works {
                Ok(Evidence::new("gone"))
            } else {
                Err(UndoError("not now".into()))
            }
        })
    }
}

/// A plan of toys: `needs[i]` and `undo_after[i]` are indices of earlier steps.
pub(crate) fn plan(
    needs: &[Vec<usize>],
    undo_after: &[Vec<usize>],
    after: usize,
    world: &Shared,
) -> Plan {
    let name = |i: usize| StepName::new(format!("step-{i}"));
    let toy = |name: StepName| {
        world
            .lock()
            .unwrap()
            .landed
            .entry(name.clone())
            .or_insert(false);
        Toy {
            name,
            world: world.clone(),
        }
    };
    let before = (0..needs.len())
        .map(|i| PlanStep {
            step: Box::new(toy(name(i))),
            needs: needs[i].iter().map(|n| name(*n)).collect(),
            undo_after: undo_after[i].iter().map(|n| name(*n)).collect(),
        })
        .collect();
    let after = (0..after)
        .map(|i| Box::new(toy(StepName::new(format!("after-{i}")))) as Box<dyn Step>)
        .collect();
    Plan {
        before,
        pivot: Box::new(toy("pivot".into())),
        after,
    }
}
