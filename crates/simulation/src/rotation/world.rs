//! The systems that hold the secrets, and how a call to them can end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyroll_journal::{Direction, Epoch, StepName};
use tokio::sync::Notify;

use crate::Random;

/// Which of the two sets is in force at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Old,
    New,
}

/// An application session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    Open,
    /// By whom, as the row's time tells: a rotation's mark, or an owner.
    Closed(&'static str),
}

/// The mark of the rotation's own revocation.
pub(super) const MARK: &str = "rotation";

/// What is outside of keyroll. All of it survives a loss of power: the servers commit, and files are synced before they are renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that is there or not, independent of the others"
)]
pub(super) struct Systems {
    pub(super) backup: bool,
    pub(super) env: Set,
    /// A line that an operator has added to the env file meanwhile.
    pub(super) edited: bool,
    pub(super) role: Set,
    /// What each container was made with.
    pub(super) containers: [Set; 2],
    pub(super) admin: Set,
    pub(super) sessions: [Session; 3],
    pub(super) old_database_sessions: bool,
    pub(super) summary: bool,
}

impl Systems {
    pub(super) fn before() -> Self {
        Self {
            backup: false,
            env: Set::Old,
            edited: false,
            role: Set::Old,
            containers: [Set::Old; 2],
            admin: Set::Old,
            sessions: [Session::Open, Session::Closed("owner"), Session::Open],
            old_database_sessions: true,
            summary: false,
        }
    }

    /// Whether this set is in force everywhere.
    pub(super) fn wholly(&self, set: Set) -> bool {
        self.env == set && self.role == set && self.containers == [set; 2] && self.admin == set
    }
}

/// Who calls, and by which intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) epoch: Epoch,
    pub(super) step: StepName,
    pub(super) direction: Direction,
    pub(super) attempt: u32,
}

/// How a call ended, for the caller.
#[derive(Debug)]
pub(super) enum CallError {
    NotApplied,
    Unsure,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotApplied => "refused",
            Self::Unsure => "the connection broke",
        })
    }
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    Twice,
    Refused,
    LandsAndFails,
    FailsUnsure,
    DiesBefore,
    DiesAfter,
    /// The process dies, and what it has started goes on.
    DiesUnderWay,
}

type Effect = Arc<dyn Fn(&mut Systems) + Send + Sync>;

/// A call whose caller is dead, and which goes on.
struct Orphan {
    caller: Caller,
    effect: Effect,
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing.
    Calm,
    /// Processes die. No call fails.
    Deadly,
    /// Everything.
    Rough,
}

struct State {
    systems: Systems,
    random: Random,
    weather: Weather,
    orphans: Vec<Orphan>,
    in_force: Option<Epoch>,
    landed: Vec<Caller>,
    broken: Vec<String>,
    /// Whether any call was told to have failed, or could not be seen.
    failed: bool,
}

/// The world of one run, shared with the steps of every process in it.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    body: Arc<Body>,
}

/// What the world does to one process.
#[derive(Debug, Default)]
struct Body {
    /// It is to die now.
    death: Notify,
    /// It is to stand still now.
    standstill: Notify,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({:?})", self.lock().systems)
    }
}

impl World {
    pub(super) fn new(random: Random) -> Self {
        let state = State {
            systems: Systems::before(),
            random,
            weather: Weather::Calm,
            orphans: vec![],
            in_force: None,
            landed: vec![],
            broken: vec![],
            failed: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            body: Arc::default(),
        }
    }

    /// The same world, for another process.
    pub(super) fn reborn(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            body: Arc::default(),
        }
    }

    pub(super) fn weather(&self) -> Weather {
        self.lock().weather
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn systems(&self) -> Systems {
        self.lock().systems.clone()
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(super) fn failed(&self) -> bool {
        self.lock().failed
    }

    pub(super) fn note_failure(&self) {
        self.lock().failed = true;
    }

    pub(super) fn landed(&self) -> Vec<Caller> {
        self.lock().landed.clone()
    }

    pub(super) fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    pub(super) fn broke(&self, law: String) {
        self.lock().broken.push(law);
    }

    pub(super) async fn death(&self) {
        self.body.death.notified().await;
    }

    pub(super) async fn standstill(&self) {
        self.body.standstill.notified().await;
    }

    /// An operator adds a line to the env file, which is a reason to go back.
    pub(super) fn edit(&self) {
        let mut state = self.lock();
        state.systems.edited = true;
        state.failed = true;
    }

    /// The commands that a killed process left behind, and its statements on the server, are found and ended, or they come to their
    /// end first. After this nothing of an older process is on its way.
    pub(super) fn end_orphans(&self, own: Epoch) {
        let mut state = self.lock();
        state.in_force = Some(own);
        for orphan in std::mem::take(&mut state.orphans) {
            if state.random.odds(1, 2) {
                (orphan.effect)(&mut state.systems);
                state.landed.push(orphan.caller);
            }
        }
    }

    /// The machine lost power: nothing is on its way any more.
    pub(super) fn reboot(&self) {
        self.lock().orphans.clear();
    }

    /// A place where the process may be suspended, or die, before it looks whether it is still the one in force.
    pub(super) async fn breath(&self) {
        let (dies, stands) = {
            let mut state = self.lock();
            match state.weather {
                Weather::Calm => (false, false),
                Weather::Deadly => (state.random.odds(1, 40), state.random.odds(1, 60)),
                Weather::Rough => (state.random.odds(1, 60), state.random.odds(1, 60)),
            }
        };
        if dies {
            self.body.death.notify_one();
            std::future::pending::<()>().await;
        }
        if stands {
            self.body.standstill.notify_one();
        }
        self.passes().await;
    }

    /// Time goes by, up to a second of it.
    async fn passes(&self) {
        let time = self.lock().random.below(1000);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    /// What the systems answer; `None` when they cannot be seen.
    pub(super) async fn look<T>(&self, at: impl FnOnce(&Systems) -> T) -> Option<T> {
        self.passes().await;
        let mut state = self.lock();
        state.orphans_go_on();
        if state.weather == Weather::Rough && state.random.odds(1, 12) {
            state.failed = true;
            return None;
        }
        Some(at(&state.systems))
    }

    /// Changes something out there.
    pub(super) async fn call(
        &self,
        caller: Caller,
        effect: impl Fn(&mut Systems) + Send + Sync + 'static,
    ) -> Result<(), CallError> {
        let effect: Effect = Arc::new(effect);
        let fate = self.lock().fate();
        if fate == Fate::DiesBefore {
            self.body.death.notify_one();
            std::future::pending::<()>().await;
        }
        {
            let mut state = self.lock();
            state.orphans_go_on();
            match fate {
                Fate::Works | Fate::LandsAndFails | Fate::DiesAfter => {
                    state.land(&caller, &effect);
                }
                Fate::Twice => {
                    state.land(&caller, &effect);
                    state.land(&caller, &effect);
                }
                Fate::DiesUnderWay => state.orphans.push(Orphan { caller, effect }),
                Fate::Refused | Fate::FailsUnsure | Fate::DiesBefore => {}
            }
        }
        if matches!(fate, Fate::DiesAfter | Fate::DiesUnderWay) {
            self.body.death.notify_one();
            std::future::pending::<()>().await;
        }
        self.passes().await;
        match fate {
            Fate::Works | Fate::Twice => Ok(()),
            Fate::Refused => Err(CallError::NotApplied),
            _ => Err(CallError::Unsure),
        }
    }
}

impl State {
    fn fate(&mut self) -> Fate {
        let fate = match (self.weather, self.random.below(60)) {
            (Weather::Calm, _) => Fate::Works,
            (_, 0) => Fate::DiesBefore,
            (_, 1) => Fate::DiesAfter,
            (_, 2) => Fate::DiesUnderWay,
            (_, 3) => Fate::Twice,
            (Weather::Rough, 4 | 5) => Fate::Refused,
            (Weather::Rough, 6 | 7) => Fate::LandsAndFails,
            (Weather::Rough, 8 | 9) => Fate::FailsUnsure,
            _ => Fate::Works,
        };
        self.failed |= matches!(
            fate,
            Fate::Refused | Fate::LandsAndFails | Fate::FailsUnsure
        );
        fate
    }

    /// What dead processes have started may come to its end at any moment.
    fn orphans_go_on(&mut self) {
        for orphan in std::mem::take(&mut self.orphans) {
            if self.random.odds(1, 3) {
                self.land(&orphan.caller, &orphan.effect);
            } else {
                self.orphans.push(orphan);
            }
        }
    }

    fn land(&mut self, caller: &Caller, effect: &Effect) {
        if self.in_force.is_some_and(|epoch| caller.epoch < epoch) {
            let law = format!("law 11: {caller:?} acted after epoch {:?}", self.in_force);
            self.broken.push(law);
        }
        effect(&mut self.systems);
        self.landed.push(caller.clone());
    }
}
