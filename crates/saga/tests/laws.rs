//! Laws 1 to 4 over random plans, random outcomes and crashes at every record.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Call, Luck, Shared, Sight, World, plan};
use jiff::Timestamp;
use keyroll_journal::{
    Ending, Event, Journal, Lock, Moment, NewRotation, RotationId, StepName, Writer,
};
use keyroll_saga::{DriveError, Limits, Plan, State, StepCx, StepState, Stop, Watcher, drive};
use proptest::prelude::*;

struct Silent;
impl Watcher for Silent {
    fn event(&self, _: &Event) {}
}

fn id() -> RotationId {
    RotationId::from_text("r")
}

fn writer(directory: &Path, lock: &Lock, crash_at: Option<Moment>) -> Writer {
    let mut writer = Journal::open(directory).unwrap().take_over(lock).unwrap();
    if let Some(at) = crash_at {
        // Like a dead process, a crashed writer never writes again.
        let dead = std::sync::atomic::AtomicBool::new(false);
        writer.inject(move |moment| {
            if moment == at {
                dead.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            !dead.load(std::sync::atomic::Ordering::SeqCst)
        });
    }
    writer
}

#[derive(Debug, Clone)]
struct Case {
    needs: Vec<Vec<usize>>,
    undo_after: Vec<Vec<usize>>,
    after: usize,
    luck: Vec<Luck>,
    sight: Vec<Sight>,
    crashes: Vec<(bool, u64)>,
    refuses: Option<usize>,
}

fn earlier(steps: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    (0..steps)
        .map(|i| proptest::sample::subsequence((0..i).collect::<Vec<_>>(), 0..=i))
        .collect::<Vec<_>>()
}

fn case() -> impl Strategy<Value = Case> {
    let luck = prop_oneof![
        6 => Just(Luck::Works),
        1 => Just(Luck::NotApplied),
        1 => Just(Luck::LandsButFails),
        1 => Just(Luck::FailsIndeterminate)
    ];
    let sight =
        prop_oneof![8 => Just(Sight::Clear), 2 => Just(Sight::Blind), 1 => Just(Sight::Refutes)];
    (1_usize..6).prop_flat_map(move |steps| {
        (
            earlier(steps),
            earlier(steps),
            0_usize..3,
            proptest::collection::vec(luck.clone(), 0..20),
            proptest::collection::vec(sight.clone(), 0..30),
            proptest::collection::vec((any::<bool>(), 1_u64..14), 0..5),
        )
            .prop_map(|(needs, undo_after, after, luck, sight, crashes)| Case {
                needs,
                undo_after,
                after,
                luck,
                sight,
                crashes,
                refuses: None,
            })
    })
}

fn run(case: &Case) -> (Ending, Shared, Plan, Vec<Event>) {
    let directory = tempfile::Builder::new()
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let lock = Lock::acquire(directory.path(), directory.path(), Timestamp::UNIX_EPOCH).unwrap();
    let world: Shared = Arc::new(Mutex::new(World {
        luck: case.luck.clone().into(),
        sight: case.sight.clone().into(),
        refuses: case.refuses.map(|i| StepName::new(format!("step-{i}"))),
        ..World::default()
    }));
    let plan = plan(&case.needs, &case.undo_after, case.after, &world);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let begun = writer(directory.path(), &lock, None);
    let new = NewRotation {
        id: id(),
        about: serde_json::Value::Null,
        versions: vec![],
        kept: vec![],
    };
    begun.begin(&new, Timestamp::UNIX_EPOCH).unwrap();
    drop(begun);
    let mut crashes = case.crashes.iter();
    let ending = loop {
        let crash = crashes.next().map(|(before, n)| {
            if *before {
                Moment::Before(*n)
            } else {
                Moment::After(*n)
            }
        });
        let cx = StepCx::new(
            id(),
            Arc::new(writer(directory.path(), &lock, crash)),
            Stop::default(),
        );
        let limits = Limits {
            attempts: 3,
            undos: 3,
            looks: 3,
            pause: Duration::from_millis(10),
        };
        match runtime.block_on(drive(&plan, &cx, limits, &Silent)) {
            Ok(ending) => break ending,
            Err(DriveError::Journal(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    let records = Journal::open(directory.path())
        .unwrap()
        .records(&id())
        .unwrap();
    (
        ending,
        world,
        plan,
        records.into_iter().map(|r| r.event).collect(),
    )
}

/// Law 3, and law 2 after a crash: whenever a step is acted on again, it was observed since the time before.
fn assert_observed_before_acting_again(calls: &[Call]) {
    let mut must_look: BTreeMap<StepName, bool> = BTreeMap::new();
    for call in calls {
        match call {
            Call::Observe(step) => {
                must_look.insert(step.clone(), false);
            }
            Call::Act(step, ..) => {
                assert!(
                    !must_look.get(step).unwrap_or(&false),
                    "{step} was acted on again without a look: {calls:?}"
                );
                must_look.insert(step.clone(), true);
            }
            Call::Undo(..) => {}
        }
    }
}

/// No step starts before what it needs was confirmed, none is undone before what its undo waits for.
fn assert_order(plan: &Plan, events: &[Event]) {
    let shape = plan.shape();
    let mut state = State::new(&shape);
    for event in events {
        if let Event::Intended {
            step,
            direction,
            attempt: 1,
        } = event
            && let Some(planned) = shape.before.iter().find(|s| s.name == *step)
        {
            let forward = *direction == keyroll_journal::Direction::Forward;
            for other in if forward {
                &planned.needs
            } else {
                &planned.undo_after
            } {
                let there = state.step(other);
                let fine = if forward {
                    matches!(there, StepState::Confirmed { .. })
                } else {
                    matches!(there, StepState::Undone { .. } | StepState::Waiting)
                };
                assert!(fine, "{step} {direction:?} although {other} was {there:?}");
            }
        }
        state = state.apply(event).unwrap();
    }
}

fn assert_laws(case: &Case) {
    let (ending, world, plan, events) = run(case);
    let world = world.lock().unwrap();
    assert!(world.broken_laws.is_empty(), "{:?}", world.broken_laws);
    assert_observed_before_acting_again(&world.calls);
    assert_order(&plan, &events);
    let shape = plan.shape();
    match ending {
        Ending::Completed => {
            for name in shape.names() {
                assert!(world.landed[name], "completed, but {name} is not there");
            }
        }
        Ending::Compensated => {
            for name in shape.names() {
                assert!(
                    !world.landed[name],
                    "compensated, but {name} is still there"
                );
            }
        }
        Ending::Stuck => {
            let state = State::replay(&shape, &events).unwrap();
            let undo_gave_up = state
                .steps()
                .any(|(_, s)| matches!(s, StepState::UndoFailed { .. }));
            assert!(
                undo_gave_up || state.pivot_may_have_landed(),
                "stuck without a reason"
            );
        }
        Ending::Abandoned => panic!("nobody abandoned it"),
    }
    if events.iter().any(|e| matches!(e, Event::TurnedBack { .. })) {
        assert!(
            !world.landed[&shape.pivot],
            "it went back although the point of no return was passed"
        );
        assert!(
            !world
                .calls
                .iter()
                .any(|c| matches!(c, Call::Act(s, ..) if s.as_str().starts_with("after")))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_world_ends_wholly_old_or_wholly_new_or_says_why_not(case in case()) {
        assert_laws(&case);
    }
}

fn simple(luck: Vec<Luck>, crashes: Vec<(bool, u64)>) -> Case {
    Case {
        needs: vec![vec![], vec![0], vec![0]],
        undo_after: vec![vec![], vec![0], vec![1]],
        after: 1,
        luck,
        sight: vec![],
        crashes,
        refuses: None,
    }
}

#[test]
fn a_crash_alone_is_no_failure_at_any_record() {
    for at in 1..=30 {
        for before in [true, false] {
            let case = simple(vec![], vec![(before, at)]);
            assert_eq!(
                run(&case).0,
                Ending::Completed,
                "crash before={before} record {at}"
            );
            assert_laws(&case);
        }
    }
}

#[test]
fn a_step_that_fails_before_the_pivot_unwinds_even_when_killed_at_any_record_of_it() {
    for at in 1..=20 {
        let case = Case {
            refuses: Some(2),
            ..simple(vec![], vec![(true, at), (false, at)])
        };
        assert_eq!(run(&case).0, Ending::Compensated, "crash at record {at}");
        assert_laws(&case);
    }
}

#[test]
fn an_act_that_landed_but_failed_is_seen_and_not_repeated() {
    let (ending, world, ..) = run(&simple(vec![Luck::LandsButFails], vec![]));
    assert_eq!(ending, Ending::Completed);
    let first = StepName::from("step-0");
    let calls = world.lock().unwrap().calls.clone();
    assert_eq!(
        calls
            .iter()
            .filter(|c| matches!(c, Call::Act(s, ..) if *s == first))
            .count(),
        1
    );
}

#[test]
fn steps_without_a_dependency_run_side_by_side() {
    let (_, _, _, events) = run(&simple(vec![], vec![]));
    let position = |wanted: &Event| events.iter().position(|e| e == wanted).unwrap();
    let intended = |step: &str| Event::Intended {
        step: step.into(),
        direction: keyroll_journal::Direction::Forward,
        attempt: 1,
    };
    let confirmed = events
        .iter()
        .position(|e| matches!(e, Event::Confirmed { step, .. } if step.as_str() == "step-1"));
    assert!(position(&intended("step-2")) < confirmed.unwrap());
}

#[test]
fn an_undo_that_keeps_failing_is_stuck_with_its_reason() {
    let mut luck = vec![Luck::Works, Luck::NotApplied, Luck::NotApplied];
    luck.extend([Luck::NotApplied; 30]);
    let (ending, _, _, events) = run(&simple(luck, vec![]));
    assert_eq!(ending, Ending::Stuck);
    let Some(Event::Ended {
        reason: Some(reason),
        ..
    }) = events.last()
    else {
        panic!("{events:?}")
    };
    assert!(reason.contains("not now"), "{reason}");
}

struct StopAtFirst(Stop);

impl Watcher for StopAtFirst {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Applied { .. }) {
            self.0.request();
        }
    }
}

#[test]
fn a_stop_is_honoured_between_steps_and_unwinds() {
    let directory = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(directory.path(), directory.path(), Timestamp::UNIX_EPOCH).unwrap();
    let world: Shared = Arc::default();
    let plan = plan(&[vec![], vec![0]], &[vec![], vec![0]], 0, &world);
    let writer = writer(directory.path(), &lock, None);
    let new = NewRotation {
        id: id(),
        about: serde_json::Value::Null,
        versions: vec![],
        kept: vec![],
    };
    writer.begin(&new, Timestamp::UNIX_EPOCH).unwrap();
    let stop = Stop::default();
    let cx = StepCx::new(id(), Arc::new(writer), stop.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let ending = runtime
        .block_on(drive(&plan, &cx, Limits::default(), &StopAtFirst(stop)))
        .unwrap();
    assert_eq!(ending, Ending::Compensated);
    assert!(world.lock().unwrap().landed.values().all(|landed| !landed));
}

#[test]
fn records_that_contradict_one_another_are_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(directory.path(), directory.path(), Timestamp::UNIX_EPOCH).unwrap();
    let world: Shared = Arc::default();
    let plan = plan(&[vec![]], &[vec![]], 0, &world);
    let writer = writer(directory.path(), &lock, None);
    let new = NewRotation {
        id: id(),
        about: serde_json::Value::Null,
        versions: vec![],
        kept: vec![],
    };
    writer.begin(&new, Timestamp::UNIX_EPOCH).unwrap();
    let confirmed = Event::Confirmed {
        step: "step-0".into(),
        evidence: keyroll_journal::Evidence::new("?"),
    };
    writer
        .append(&id(), &confirmed, Timestamp::UNIX_EPOCH)
        .unwrap();
    let cx = StepCx::new(id(), Arc::new(writer), Stop::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let error = runtime
        .block_on(drive(&plan, &cx, Limits::default(), &Silent))
        .unwrap_err();
    assert!(matches!(error, DriveError::Illegal(_)), "{error}");
    assert!(world.lock().unwrap().calls.is_empty());
}
