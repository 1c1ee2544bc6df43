//! The container engine is stopped, killed and started again in the middle of a rotation. It is an engine of the test's own.

use crate::common::{Bench, DONE, GOING_BACK, LIMIT, ROLLED_BACK, ROTATE, STUCK, went_back};
use keyroll_testkit::{OwnEngine, Running, StackOptions, containers_wanted, eventually};

impl Bench {
    /// Starts a rotation, up to the moment in which compose is at work on the containers.
    async fn recreates(&self) -> Running {
        let running = self.spawn(&ROTATE);
        let up = async || {
            let all = running.descendants();
            all.iter()
                .any(|p| p.arguments.iter().any(|a| a == "up"))
                .then_some(())
        };
        eventually("compose recreates", LIMIT, up).await.unwrap();
        running
    }
}

#[tokio::test]
async fn an_engine_that_is_killed_or_stopped_in_a_recreation_ends_on_one_set_and_one_that_stays_away_is_stuck_until_a_resume()
 {
    const NAME: &str = "engine::an_engine_that_is_killed_or_stopped_in_a_recreation_ends_on_one_set_and_one_that_stays_away_is_stuck_until_a_resume";
    if !containers_wanted() {
        return;
    }
    let Some(mut engine) = OwnEngine::enter(NAME).unwrap() else {
        return;
    };
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;

    // Started anew at once. Some engines then leave a container standing that they should start, and going back does it;
    // under others the rotation may just go on.
    let running = bench.recreates().await;
    engine.kill().unwrap();
    engine.start().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();
    if run.code == DONE {
        bench.runs_new_values(&before).await;
    } else {
        went_back(&run);
        bench.old_set_is_back(&before).await;
    }

    let before = bench.before().await;
    let running = bench.recreates().await;
    engine.stop().unwrap();
    running.says(GOING_BACK).await.unwrap();
    engine.start().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();
    went_back(&run);
    bench.old_set_is_back(&before).await;

    // Without an engine nothing can be shown, and the containers cannot go back.
    let running = bench.recreates().await;
    engine.stop().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();
    assert_eq!(run.code, STUCK, "{run:?}");
    engine.start().unwrap();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, ROLLED_BACK, "{resumed:?}");
    bench.old_set_is_back(&before).await;
    bench.rotate().await;
}
