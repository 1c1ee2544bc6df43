//! A rotation is killed while something that it started is at work, and it is asked to stop.
//!
//! What a killed client started goes on: compose goes on recreating, and a command in a container does not even notice. It
//! could still change what a resume has just looked at, so a resume ends it first.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::recovery::{Bench, DONE, Held, REFUSED, ROLLED_BACK, ROTATE, marked, processes_with};
use keyroll_testkit::{Run, Running, StackOptions, containers_wanted, descendants, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// No step of the sandbox takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// A short-lived process can come and go between two looks; the rotation completes then, and another one is tried.
const TRIES: u32 = 8;

/// What keyroll has started.
#[derive(Clone, Copy)]
enum Work {
    /// A process below keyroll with this word among its arguments.
    Compose(&'static str),
    /// A command in a container, by its name.
    InContainer(&'static str),
    /// Compose, at the moment when the old container of this service has just ended.
    Gone(&'static str),
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Compose(name) | Self::InContainer(name) | Self::Gone(name) => name,
        }
    }

    /// `old` is the process number of the service's container before the rotation.
    fn goes_on(self, keyroll: u32, rotation: &str, old: u64) -> bool {
        match self {
            Self::Gone(_) => !Path::new(&format!("/proc/{old}")).exists(),
            Self::Compose(word) => descendants(keyroll)
                .iter()
                .any(|p| p.arguments.iter().any(|a| a == word)),
            Self::InContainer(name) => processes_with(&format!("KEYROLL_ROTATION={rotation}"))
                .iter()
                .any(|(_, found)| found == name),
        }
    }
}

/// The rotation's name, once the run has told it.
fn rotation_of(running: &Running) -> Option<String> {
    let text = running.stderr_so_far().ok()?;
    // Without a last line that is still being written.
    let (whole, _) = text.rsplit_once('\n')?;
    whole
        .lines()
        .find_map(|line| line.split_once(" rotation "))
        .map(|(_, name)| name.trim().to_owned())
}

/// Starts a rotation and kills it as soon as it is at this work. The answer is the rotation; none when it ended first.
async fn kill_at(bench: &Bench, work: Work) -> (Option<String>, Run) {
    let old = match work {
        Work::Gone(service) => bench.stack.container(service).await.unwrap().pid,
        _ => 0,
    };
    let running = bench.spawn(&ROTATE);
    let keyroll = running.pid().unwrap();
    let rotation = eventually("the rotation begins", LIMIT, async || rotation_of(&running))
        .await
        .unwrap();
    // A loop of its own: every look counts.
    let (name, end) = (rotation.clone(), Instant::now() + LIMIT);
    let killed = Pid::from_raw(i32::try_from(keyroll).unwrap()).unwrap();
    let seen = tokio::task::spawn_blocking(move || {
        let stat = format!("/proc/{keyroll}/stat");
        loop {
            if work.goes_on(keyroll, &name, old) {
                return kill_process(killed, Signal::KILL).is_ok();
            }
            let alive = std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z "));
            if !alive || Instant::now() > end {
                return false;
            }
        }
    })
    .await
    .unwrap();
    let run = running.wait(LIMIT).await.unwrap();
    let hit = seen && run.signal == Some(9);
    (hit.then_some(rotation), run)
}

/// Kills rotations at each of these works, resumes and looks.
async fn killed_at(bench: &Bench, works: &[Work]) {
    for work in works {
        let what = format!("killed at {}", work.name());
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries <= TRIES, "{what}: it was never seen");
            let before = bench.held();
            let (hit, run) = kill_at(bench, *work).await;
            if hit.is_none() {
                assert_eq!(run.code, Some(DONE), "{what}: {run:?}");
                continue;
            }
            let recovered = bench.recover(&before, &what).await;
            assert!(recovered.unfinished.is_some(), "{what}");
            assert_eq!(recovered.resumed.code, Some(DONE), "{what}: {recovered:?}");
            break;
        }
        println!("{what}: seen at try {tries}");
    }
}

#[tokio::test]
async fn killed_while_compose_reads_or_recreates_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    killed_at(
        &bench,
        &[
            Work::Compose("config"),
            Work::Compose("up"),
            Work::Gone("api"),
            Work::Gone("worker"),
        ],
    )
    .await;
}

#[tokio::test]
async fn containers_that_were_made_and_never_started_are_made_again_by_a_resume() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    let (hit, run) = kill_at(&bench, Work::Compose("up")).await;
    let rotation = hit.unwrap_or_else(|| panic!("compose was never seen: {run:?}"));
    eventually("compose is gone", LIMIT, async || {
        marked(&rotation).is_empty().then_some(())
    })
    .await
    .unwrap();
    // What is left when compose is ended between making and starting.
    let make = "up --no-start --force-recreate --no-deps --no-build api worker";
    let make: Vec<&str> = make.split(' ').collect();
    bench.stack.compose(&make).await.unwrap();
    let api = bench.stack.container("api").await.unwrap();
    assert_eq!(api.state, "created");

    let recovered = bench.recover(&before, "never started").await;
    assert_eq!(recovered.resumed.code, Some(DONE), "{recovered:?}");
}

#[tokio::test]
async fn killed_while_the_database_is_saved_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Enough for a dump, and a reading back, to be seen.
    bench
        .stack
        .sql("CREATE TABLE bulk AS SELECT i, md5(i::text) AS a, md5((i+1)::text) AS b FROM generate_series(1, 300000) i;")
        .await
        .unwrap();
    killed_at(
        &bench,
        &[
            Work::InContainer("pg_dump"),
            Work::InContainer("pg_restore"),
            Work::InContainer("pg_dumpall"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_seed_that_goes_on_after_keyroll_was_killed_is_ended_before_anything_else() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let hang = bench.stack.fault("seed-hang");
    hang.set();
    let before = bench.held();
    let running = bench.spawn(&ROTATE);
    let seeding = async || {
        let all = bench.stack.processes("api").await.ok()?;
        all.into_iter()
            .find(|p| p.arguments.iter().any(|a| a == "seed"))
            .map(|p| p.pid)
    };
    let first = eventually("the seed runs", LIMIT, seeding).await.unwrap();
    let rotation = rotation_of(&running).unwrap();
    let killed = running.kill_hard().await.unwrap();
    assert_eq!(killed.signal, Some(9));
    assert_eq!(
        seeding().await,
        Some(first),
        "the command in the container does not notice"
    );
    assert!(!marked(&rotation).is_empty());

    hang.clear();
    let recovered = bench.recover(&before, "seed").await;
    assert_eq!(recovered.resumed.code, Some(DONE), "{recovered:?}");
    assert!(
        recovered
            .resumed
            .stderr
            .contains("ending what the killed run left"),
        "{recovered:?}"
    );
    assert_eq!(seeding().await, None);
}

/// Asks a rotation to stop once it says `at`.
async fn stopped_at(
    bench: &Bench,
    at: &str,
    ask: impl Fn(&Running) -> Result<(), keyroll_testkit::TestkitError>,
) {
    let before: Held = bench.held();
    let running = bench.spawn(&ROTATE);
    running.says(at).await.unwrap();
    let rotation = rotation_of(&running);
    ask(&running).unwrap();
    let run = running.wait(LIMIT * 2).await.unwrap();
    assert_eq!(run.code, Some(ROLLED_BACK), "{at}: {run:?}");
    assert!(run.stderr.contains("stopping:"), "{at}: {run:?}");
    bench.one_set_in_force(&before, &before, at).await;
    assert!(
        bench
            .held()
            .value("JWT_SECRET")
            .same_as(before.value("JWT_SECRET"))
    );
    if let Some(rotation) = rotation {
        assert_eq!(marked(&rotation), Vec::<String>::new());
    }
}

#[tokio::test]
async fn asked_to_stop_once_a_rotation_finishes_its_step_and_goes_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    stopped_at(&bench, "backup: started", Running::interrupt).await;
    stopped_at(&bench, "recreate: started", Running::terminate).await;
    stopped_at(&bench, "admin-password: started", Running::interrupt).await;
    let after = bench.run(&ROTATE).await;
    assert_eq!(after.code, Some(DONE), "{after:?}");
}

#[tokio::test]
async fn asked_to_stop_twice_or_together_with_what_it_started_a_rotation_still_goes_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let twice = |running: &Running| {
        running.interrupt()?;
        running.interrupt()
    };
    stopped_at(&bench, "recreate: started", twice).await;
    // On the way back there is nothing else to do.
    let seed = bench.stack.fault("seed-exit1");
    seed.set();
    stopped_at(&bench, "undo env-file: started", Running::terminate).await;
    seed.clear();
    // As a service manager does, and a terminal.
    let all = |running: &Running| {
        for process in running.descendants() {
            let pid = Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap();
            let _ = kill_process(pid, Signal::TERM);
        }
        running.terminate()
    };
    stopped_at(&bench, "recreate: started", all).await;
    let after = bench.run(&ROTATE).await;
    assert_eq!(after.code, Some(DONE), "{after:?}");
}

#[tokio::test]
async fn killed_while_it_goes_back_a_rotation_resumes_to_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let seed = bench.stack.fault("seed-exit1");
    for at in ["undo env-file: started", "undo recreate: started"] {
        seed.set();
        let before = bench.held();
        let running = bench.spawn(&ROTATE);
        running.says(at).await.unwrap();
        let killed = running.kill_hard().await.unwrap();
        assert_eq!(killed.signal, Some(9), "{killed:?}");
        seed.clear();
        let recovered = bench.recover(&before, at).await;
        assert_eq!(recovered.resumed.code, Some(ROLLED_BACK), "{recovered:?}");
    }
}

#[tokio::test]
async fn asked_to_stop_before_it_began_a_rotation_changes_nothing_and_after_its_commit_it_ends() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    let running = bench.spawn(&ROTATE);
    running
        .says("preflight: the running containers")
        .await
        .unwrap();
    running.interrupt().unwrap();
    let run = running.wait(LIMIT).await.unwrap();
    assert!(matches!(run.code, Some(REFUSED | ROLLED_BACK)), "{run:?}");
    bench.one_set_in_force(&before, &before, "preflight").await;

    let running = bench.spawn(&ROTATE);
    running.says("commit: started").await.unwrap();
    running.interrupt().unwrap();
    let run = running.wait(LIMIT).await.unwrap();
    assert!(matches!(run.code, Some(DONE | ROLLED_BACK)), "{run:?}");
    bench
        .one_set_in_force(&before, &bench.held(), "commit")
        .await;
}
