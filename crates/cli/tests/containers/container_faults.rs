//! Containers that do not stay what they were when they had just been recreated.

use crate::common::{Bench, GOING_BACK, LIMIT, ROTATE, docker, run, went_back};
use keyroll_testkit::{Fault, Running, StackOptions, containers_wanted, eventually};

impl Bench {
    /// Rotates until the containers are new and well. It goes on once the fault is cleared: the seed command waits for that.
    async fn recreated(&self) -> (Running, Fault) {
        let held = self.stack.fault("seed-waits");
        held.set();
        let running = self.spawn(&ROTATE);
        running.says("recreate: done").await.unwrap();
        (running, held)
    }

    /// Ends the worker, and waits until the engine has started it again.
    async fn worker_dies(&self) {
        let worker = self.stack.container("worker").await.unwrap();
        run("kill", &["-9", &worker.pid.to_string()]);
        eventually("the engine starts it again", LIMIT, async || {
            let now = self.stack.container("worker").await.ok()?;
            (now.restarts > 0).then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_container_that_dies_freezes_or_falls_ill_once_it_was_recreated_turns_the_rotation_back()
{
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;

    // It dies, and from then on whenever the engine starts it again.
    let fault = bench.stack.fault("worker-start-fail");
    let (running, held) = bench.recreated().await;
    fault.set();
    bench.worker_dies().await;
    held.clear();
    running.says(GOING_BACK).await.unwrap();
    fault.clear();
    let ended = running.wait(LIMIT * 2).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;

    // It dies once, and is well again.
    let (running, held) = bench.recreated().await;
    bench.worker_dies().await;
    bench.stack.healthy("worker", LIMIT).await.unwrap();
    held.clear();
    let ended = running.wait(LIMIT * 2).await.unwrap();
    went_back(&ended);
    assert!(
        ended.stderr.contains("has ended since it was made anew"),
        "{ended:?}"
    );
    bench.old_set_is_back(&before).await;

    // Well, and then no longer.
    let fault = bench.stack.fault("health-503");
    let (running, held) = bench.recreated().await;
    fault.set();
    held.clear();
    running.says(GOING_BACK).await.unwrap();
    fault.clear();
    let ended = running.wait(LIMIT * 2).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;

    // Nobody lets it go on but keyroll, which makes it anew.
    let (running, held) = bench.recreated().await;
    docker(&["pause", &bench.stack.container_name("worker")]);
    held.clear();
    let ended = running.wait(LIMIT * 3).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;
}
