//! Containers that do not stay what they were when they had just been recreated.

mod common;

use common::{Bench, GOING_BACK, LIMIT, ROTATE, docker, run, went_back};
use keyroll_testkit::{Running, StackOptions, containers_wanted, eventually};

impl Bench {
    /// Rotates until the containers are new and well.
    async fn recreated(&self) -> Running {
        let running = self.spawn(&ROTATE);
        running.says("recreate: done").await.unwrap();
        running
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
    let running = bench.recreated().await;
    running.suspend().unwrap();
    fault.set();
    let worker = bench.stack.container("worker").await.unwrap();
    run("kill", &["-9", &worker.pid.to_string()]);
    eventually("the engine starts it again", LIMIT, async || {
        let now = bench.stack.container("worker").await.ok()?;
        (now.restarts > 0).then_some(())
    })
    .await
    .unwrap();
    running.proceed().unwrap();
    running.says(GOING_BACK).await.unwrap();
    fault.clear();
    let ended = running.wait(LIMIT * 2).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;

    // Well, and then no longer.
    let fault = bench.stack.fault("health-503");
    let running = bench.recreated().await;
    fault.set();
    running.says(GOING_BACK).await.unwrap();
    fault.clear();
    let ended = running.wait(LIMIT * 2).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;

    // Nobody lets it go on but keyroll, which makes it anew.
    let running = bench.recreated().await;
    docker(&["pause", &bench.stack.container_name("api")]);
    let ended = running.wait(LIMIT * 3).await.unwrap();
    went_back(&ended);
    bench.old_set_is_back(&before).await;
}
