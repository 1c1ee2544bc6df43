//! The plan's steps as they act on the simulated [`World`], by the names of the real ones.

use keyroll_journal::{
    Backward, Direction, Ending, Event, Evidence, Forward, Intended, Kept, Receipt, StepName,
    VersionState,
};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Plan, PlanStep, Shape, Step, StepCx,
    UndoError,
};
use keyroll_secret::Sealed;
use serde_json::json;

use super::plant::Plant;
use super::stored::{append_trail, told};
use super::world::{CallError, Caller, MARK, Session, Set, Systems, World};

/// One step of the plan.
#[derive(Debug, Clone)]
struct Sim {
    name: StepName,
    world: World,
    plant: Option<Plant>,
}

/// Every step that is modelled here. One that is not would seem to do nothing, and never to fail.
const MODELLED: [&str; 13] = [
    "backup",
    "env-candidate",
    "baseline",
    "env-file",
    "database-password",
    "recreate",
    "admin-password",
    "app-sessions",
    "database-sessions",
    "verify",
    "commit",
    "trail",
    "summary",
];

/// The first step of a plan that there is no model of.
pub(super) fn unknown(shape: &Shape) -> Option<&StepName> {
    shape
        .names()
        .find(|name| !MODELLED.contains(&name.as_str()))
}

/// The plan of this shape, in this world.
pub(super) fn plan(shape: Shape, world: &World, plant: Option<Plant>) -> Plan {
    let sim = |name: StepName| Sim {
        name,
        world: world.clone(),
        plant,
    };
    let before = shape.before.into_iter().map(|step| PlanStep {
        needs: step.needs.into_iter().collect(),
        undo_after: step.undo_after.into_iter().collect(),
        step: Box::new(sim(step.name)),
    });
    Plan {
        before: before.collect(),
        pivot: Box::new(sim(shape.pivot)),
        after: shape
            .after
            .into_iter()
            .map(|name| Box::new(sim(name)) as Box<dyn Step>)
            .collect(),
    }
}

/// What a step keeps sealed before it acts, and what its undo goes back to.
const SAVED: [&str; 3] = ["database-password", "admin-password", "app-sessions"];

fn not_applied(error: &dyn std::fmt::Display) -> ActError {
    ActError::NotApplied(error.to_string())
}

impl Sim {
    fn caller(&self, cx: &StepCx, direction: Direction, attempt: u32) -> Caller {
        Caller {
            epoch: cx.writer().own_epoch(),
            step: self.name.clone(),
            direction,
            attempt,
        }
    }

    /// What the act does to the systems.
    fn effect(&self) -> fn(&mut Systems) {
        match self.name.as_str() {
            "backup" => |s| s.backup = true,
            "env-file" => |s| {
                // Compared and renamed under one name: an edit in between is not lost.
                if !s.edited {
                    s.env = Set::New;
                }
            },
            "database-password" => |s| s.role = Set::New,
            "recreate" => |s| s.containers = [s.env; 2],
            "admin-password" => |s| s.admin = s.containers[0],
            "app-sessions" => |s| {
                for session in &mut s.sessions {
                    if *session == Session::Open {
                        *session = Session::Closed(MARK);
                    }
                }
            },
            "database-sessions" => |s| s.old_database_sessions = false,
            "summary" => |s| s.summary = true,
            _ => |_| {},
        }
    }

    /// Whether the act has come about, half or whole: all of it, none of it, or neither.
    fn seen(&self, systems: &Systems) -> Option<bool> {
        let both = |is: bool, was: bool| match (is, was) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        match self.name.as_str() {
            "backup" => Some(systems.backup),
            "env-file" => Some(systems.env == Set::New),
            "database-password" => Some(systems.role == Set::New),
            "recreate" => both(
                systems.containers == [Set::New; 2],
                systems.containers == [Set::Old; 2],
            ),
            "admin-password" => Some(systems.admin == Set::New),
            "app-sessions" => Some(!systems.sessions.contains(&Session::Open)),
            "database-sessions" => Some(!systems.old_database_sessions),
            "summary" => Some(systems.summary),
            _ => Some(true),
        }
    }

    /// Seals what the undo needs, once.
    fn save(&self, cx: &StepCx) -> Result<(), ActError> {
        if SAVED.contains(&self.name.as_str()) {
            let kept = Kept {
                name: self.name.to_string(),
                sealed: Sealed::from_stored(b"as it was".to_vec()),
            };
            cx.writer().keep(cx.rotation(), &[kept], cx.now())?;
        }
        Ok(())
    }

    async fn forward(&self, cx: &StepCx, attempt: u32) -> Result<Receipt, ActError> {
        match self.name.as_str() {
            "baseline" | "verify" => return Ok(Receipt::Null),
            "commit" => {
                self.world.breath().await;
                let stale = std::collections::BTreeMap::new();
                return match cx.writer().promote(cx.rotation(), &[], &stale, cx.now()) {
                    Ok(()) => Ok(Receipt::Null),
                    Err(keyroll_journal::JournalError::Fenced { newer, .. }) => {
                        Err(ActError::Fenced { newer })
                    }
                    Err(error) => Err(ActError::Indeterminate(error.to_string())),
                };
            }
            "trail" => {
                self.world.breath().await;
                append_trail(cx.writer(), cx.rotation(), Ending::Completed)
                    .map_err(|e| ActError::Indeterminate(e.to_string()))?;
                return Ok(Receipt::Null);
            }
            // What somebody has edited since preflight is not overwritten, and not deployed by surprise.
            "env-file" | "recreate" if self.world.look(|s| s.edited).await.unwrap_or(true) => {
                return Err(not_applied(&"edited, or not to be seen"));
            }
            _ => {}
        }
        self.save(cx)?;
        self.world.breath().await;
        cx.fence()?;
        let caller = self.caller(cx, Direction::Forward, attempt);
        if self.plant == Some(Plant::OutcomeFirst) && self.name.as_str() == "database-password" {
            let (world, effect) = (self.world.clone(), self.effect());
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                let _ = world.call(caller, effect).await;
            });
            return Ok(json!({"attempt": attempt}));
        }
        let answer = self.world.call(caller, self.effect()).await;
        answer.map_err(|e| match e {
            CallError::NotApplied => not_applied(&e),
            CallError::Unsure => ActError::Indeterminate(e.to_string()),
        })?;
        Ok(json!({"attempt": attempt}))
    }

    async fn looked(&self, cx: &StepCx) -> Observed {
        match self.name.as_str() {
            "baseline" | "verify" => return Observed::After(Receipt::Null),
            // Acting again is what shows.
            "env-candidate" | "database-sessions" | "app-sessions" => return Observed::Overlap,
            "commit" => {
                return match cx.writer().versions_of_rotation(cx.rotation()) {
                    Ok(all) if all.iter().any(|v| v.state == VersionState::Pending) => {
                        Observed::Before
                    }
                    Ok(_) => Observed::After(Receipt::Null),
                    Err(error) => Observed::Unknown(error.to_string()),
                };
            }
            "trail" => {
                return match told(cx.writer()) {
                    Ok(Some(Ending::Completed)) => Observed::After(Receipt::Null),
                    Ok(_) => Observed::Before,
                    Err(error) => Observed::Unknown(error.to_string()),
                };
            }
            _ => {}
        }
        if self.plant == Some(Plant::TrustingObserve) {
            return Observed::After(Receipt::Null);
        }
        match self.world.look(|s| self.seen(s)).await {
            None => Observed::Unknown("fog".into()),
            Some(Some(true)) => Observed::After(Receipt::Null),
            Some(Some(false)) => Observed::Before,
            Some(None) => Observed::Overlap,
        }
    }

    async fn shown(&self, cx: &StepCx) -> Result<Evidence, ConfirmError> {
        let unknown = |e: &dyn std::fmt::Display| ConfirmError::Unknown(e.to_string());
        let (good, what) = match self.name.as_str() {
            "commit" | "trail" => match self.looked(cx).await {
                Observed::After(_) => (true, "in the journal"),
                Observed::Unknown(why) => return Err(unknown(&why)),
                _ => (false, "not in the journal"),
            },
            "env-candidate" => (true, "judged"),
            "baseline" => match self.world.look(|s| s.wholly(Set::Old)).await {
                Some(good) => (good, "the old set"),
                None => return Err(unknown(&"fog")),
            },
            "verify" => match self.world.look(|s| s.wholly(Set::New)).await {
                Some(good) => (good, "the new set"),
                None => return Err(unknown(&"fog")),
            },
            _ => match self.world.look(|s| self.seen(s)).await {
                Some(seen) => (seen == Some(true), "the act"),
                None => return Err(unknown(&"fog")),
            },
        };
        if good {
            Ok(Evidence::new(what))
        } else {
            Err(ConfirmError::Refuted(format!("{what}: not there")))
        }
    }

    async fn backward(&self, cx: &StepCx, attempt: u32) -> Result<Evidence, UndoError> {
        let failed = |e: &dyn std::fmt::Display| UndoError(e.to_string());
        let fog = || UndoError("fog".into());
        let saved = cx.writer().kept(cx.rotation(), self.name.as_str());
        let saved = saved.map_err(|e| failed(&e))?;
        let effect: fn(&mut Systems) = match self.name.as_str() {
            "baseline" => {
                let good = self.world.look(|s| s.wholly(Set::Old)).await;
                return if good.ok_or_else(fog)? {
                    Ok(Evidence::new("the old set is in force"))
                } else {
                    Err(failed(&"the old set is not in force"))
                };
            }
            "verify" | "backup" | "env-candidate" | "database-sessions" => {
                return Ok(Evidence::new("nothing to take back"));
            }
            // Only keyroll's own keys go back where somebody has edited the file.
            "env-file" => |s| s.env = Set::Old,
            "recreate" => |s| s.containers = [s.env; 2],
            name if saved.is_none() => {
                // Kept before the act: without it there was none.
                let seen = self.world.look(|s| self.seen(s)).await;
                let untouched = seen.ok_or_else(fog)? == Some(false);
                return if untouched || name == "app-sessions" {
                    Ok(Evidence::new("it was never changed"))
                } else {
                    Err(failed(&"what it was is lost"))
                };
            }
            "database-password" => |s| s.role = Set::Old,
            "admin-password" => |s| s.admin = Set::Old,
            _ => |s| {
                for session in &mut s.sessions {
                    if *session == Session::Closed(MARK) {
                        *session = Session::Open;
                    }
                }
            },
        };
        self.world.breath().await;
        cx.fence().map_err(|e| failed(&e))?;
        let caller = self.caller(cx, Direction::Backward, attempt);
        let answer = self.world.call(caller, effect).await;
        answer.map_err(|e| failed(&e))?;
        Ok(Evidence::new("taken back"))
    }
}

impl Step for Sim {
    fn name(&self) -> StepName {
        self.name.clone()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(self.looked(cx))
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async move { self.forward(cx, intent.attempt()).await })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(self.shown(cx))
    }
}

impl Compensate for Sim {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        intent: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async move { self.backward(cx, intent.attempt()).await })
    }
}

/// The intent that a caller acted by.
pub(super) fn intent_of(caller: &Caller) -> Event {
    Event::Intended {
        step: caller.step.clone(),
        direction: caller.direction,
        attempt: caller.attempt,
    }
}
