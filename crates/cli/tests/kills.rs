//! A rotation is killed with SIGKILL right before and right after each commit of its journal, and resumed.
//!
//! Before a commit the effect may have landed and its outcome is not recorded; after it the intent is recorded and nothing was
//! done. Either way one command must bring the stack to one complete set, without being told what happened.
//!
//! Built with `--features fault-injection` only; `cargo xtask test` does.

mod recovery;

use keyroll_testkit::{StackOptions, containers_wanted, full_wanted};
use recovery::{Bench, DONE, ROLLED_BACK, ROTATE};

const KILLED: Option<i32> = Some(9);
/// No rotation commits so often; a loop that comes here never found the end.
const TOO_MANY: u64 = 200;

/// Kills a rotation at every `step`th commit from `first`, until one ends by itself; resumes and looks each time.
async fn kill_forward(moment: &str, first: u64, step: u64) {
    let bench = Bench::start(StackOptions::new()).await;
    let mut number = first;
    let mut resumed = [0, 0];
    loop {
        assert!(number < TOO_MANY, "the end was never reached");
        let before = bench.held();
        let at = format!("{moment}:{number}");
        let begun = std::time::Instant::now();
        let killed = bench.run_killed(&ROTATE, &at).await;
        if killed.signal != KILLED {
            assert_eq!(killed.code, Some(DONE), "{at}: {killed:?}");
            break;
        }
        let rotated = begun.elapsed();
        let recovered = bench.recover(&before, &at).await;
        println!(
            "{at}: killed after {rotated:.1?}, well again after {:.1?}, {:?}",
            begun.elapsed(),
            recovered.resumed.code
        );
        resumed[usize::from(recovered.resumed.code == Some(ROLLED_BACK))] += 1;
        number += step;
    }
    println!(
        "{number} commits; {} went on, {} went back",
        resumed[0], resumed[1]
    );
    assert!(number > 20, "the hook is not there, or counts wrongly");
    assert_eq!(resumed[1], 0, "a crash alone is no failure");
}

/// Every second commit in a plain run, so that each is met from one side; all of them from both in a full one.
fn stride() -> u64 {
    if full_wanted() { 1 } else { 2 }
}

#[tokio::test]
async fn killed_right_before_a_record_of_the_journal_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    kill_forward("before", 1, stride()).await;
}

#[tokio::test]
async fn killed_right_after_a_record_of_the_journal_a_rotation_resumes_to_the_new_set() {
    if !containers_wanted() {
        return;
    }
    kill_forward("after", stride(), stride()).await;
}

#[tokio::test]
async fn killed_around_a_record_of_a_rotation_that_goes_back_it_resumes_to_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let seed = bench.stack.fault("seed-exit1");
    let (mut turned_back, mut went_on) = (0, 0);
    let full = full_wanted();
    // The seed fails after the thirtieth commit or so.
    let mut number = if full { 1 } else { 25 };
    loop {
        assert!(number < TOO_MANY, "the end was never reached");
        let moments: &[&str] = match (full, number % 4) {
            (true, _) => &["before", "after"],
            (false, 1) => &["before"],
            (false, _) => &["after"],
        };
        let mut ended = false;
        for moment in moments {
            let before = bench.held();
            seed.set();
            let at = format!("{moment}:{number}");
            let killed = bench.run_killed(&ROTATE, &at).await;
            if killed.signal != KILLED {
                assert_eq!(killed.code, Some(ROLLED_BACK), "{at}: {killed:?}");
                ended = true;
                break;
            }
            // What has turned back goes back although the reason is gone; what has not meets the reason again.
            if killed.stderr.contains("going back") {
                seed.clear();
                turned_back += 1;
            } else {
                went_on += 1;
            }
            let recovered = bench.recover(&before, &at).await;
            if recovered.unfinished.is_some() {
                assert_eq!(
                    recovered.resumed.code,
                    Some(ROLLED_BACK),
                    "{at}: {:?}",
                    recovered.resumed
                );
            }
        }
        if ended {
            break;
        }
        number += if full { 1 } else { 2 };
    }
    println!("{number} commits; killed {turned_back} times while it went back, {went_on} before");
    assert!(turned_back > 5, "it was never killed while it went back");
}

#[tokio::test]
async fn a_rotation_that_is_killed_again_whenever_it_resumes_still_ends_completed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.held();
    let killed = bench.run_killed(&ROTATE, "after:3").await;
    assert_eq!(killed.signal, KILLED, "{killed:?}");
    let rotation = bench.unfinished().await.expect("a rotation")["rotation"].clone();
    let mut kills = 1;
    // Each gets a little further than the one before.
    for number in (2..TOO_MANY).step_by(3) {
        let at = format!("before:{number}");
        let again = bench.run_killed(&["resume"], &at).await;
        if again.signal != KILLED {
            assert_eq!(again.code, Some(DONE), "{at}: {again:?}");
            break;
        }
        kills += 1;
        let unfinished = bench.unfinished().await;
        if let Some(unfinished) = &unfinished {
            assert_eq!(unfinished["rotation"], rotation, "{at}");
        }
    }
    println!("killed {kills} times");
    assert!(kills > 3, "it was not killed while it resumed");
    let recovered = bench.recover(&before, "in the end").await;
    assert!(recovered.unfinished.is_none());
    let now = bench.held();
    assert!(!now.value("JWT_SECRET").same_as(before.value("JWT_SECRET")));
}
