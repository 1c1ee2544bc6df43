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

/// Every second commit in a plain run, all of them in a full one.
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
    kill_forward("after", 1, stride()).await;
}
