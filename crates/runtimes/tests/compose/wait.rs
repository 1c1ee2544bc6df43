//! Waiting by the engine's events.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use keyroll_runtimes::compose::{Engine, WaitError, Waiting};
use keyroll_secret::{Redactor, Secret};

use crate::support::{Stack, docker, wanted};

async fn wait(stack: &Stack, engine: &Engine, limit: u64) -> Result<(), WaitError> {
    let ids: Vec<String> = stack
        .containers(engine)
        .await
        .into_iter()
        .map(|c| c.id)
        .collect();
    let mut waiting = Waiting::at_most(Duration::from_secs(limit));
    waiting.jobs = BTreeSet::from(["job".to_owned()]);
    engine.wait_healthy(&ids, &waiting).await
}

fn sick(result: Result<(), WaitError>) -> keyroll_runtimes::compose::NotHealthy {
    match result {
        Err(WaitError::NotHealthy(mut all)) if all.len() == 1 => all.remove(0),
        other => panic!("one sick container was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn health_a_moment_of_running_and_the_end_of_a_job_are_waited_for() {
    if !wanted() {
        return;
    }
    let compose = r#"
services:
  checked:
    image: IMAGE
    command: ["sh", "-c", "sleep 2; touch /healthy; exec sleep infinity"]
    init: true
    healthcheck: {test: ["CMD", "test", "-e", "/healthy"], interval: 1s, retries: 30}
  plain: {image: IMAGE, command: [sleep, infinity], init: true}
  job: {image: IMAGE, command: [sleep, "1"]}
"#;
    let stack = Stack::start("wait", compose, "A=1\n");
    let engine = stack.engine().await;
    wait(&stack, &engine, 60).await.unwrap();
    assert!(keyroll_runtimes::compose::sickness(&stack.containers(&engine).await).is_empty());
}

#[tokio::test]
async fn a_container_that_starts_and_dies_is_noticed_at_once_with_its_last_words() {
    if !wanted() {
        return;
    }
    let compose = r#"
services:
  dies:
    image: IMAGE
    command: ["sh", "-c", "sleep 2; echo cannot log in with hunter2-value; exit 7"]
    restart: always
    init: true
    healthcheck: {test: ["CMD", "false"], interval: 30s, start_period: 60s}
"#;
    let stack = Stack::start("dies", compose, "A=1\n");
    let mut redactor = Redactor::new();
    redactor.learn("PASSWORD", &Secret::new("hunter2-value"));
    let engine = stack.engine().await.redacting(redactor);
    let clock = Instant::now();
    let error = wait(&stack, &engine, 60).await;
    assert!(
        clock.elapsed() < Duration::from_secs(10),
        "{:?}",
        clock.elapsed()
    );
    let shown = error.as_ref().unwrap_err().to_string();
    let sick = sick(error);
    assert!(sick.why.contains("it ended"), "{}", sick.why);
    assert_eq!(sick.log.last().unwrap(), "cannot log in with [PASSWORD]");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn an_unhealthy_container_ends_the_waiting_and_an_undecided_one_the_limit() {
    if !wanted() {
        return;
    }
    let compose = r#"
services:
  bad:
    image: IMAGE
    command: [sleep, infinity]
    init: true
    healthcheck: {test: ["CMD", "false"], interval: 1s, retries: 2}
"#;
    let stack = Stack::start("bad", compose, "A=1\n");
    let engine = stack.engine().await;
    let found = sick(wait(&stack, &engine, 60).await);
    assert_eq!(found.why, "its health check fails");

    let slow = compose.replace("retries: 2", "retries: 2, start_period: 60s");
    let stack = Stack::start("slow", &slow, "A=1\n");
    let found = sick(wait(&stack, &engine, 1).await);
    assert!(
        found.why.contains("still not known after 1s"),
        "{}",
        found.why
    );
}

#[tokio::test]
async fn a_removed_container_is_not_waited_for() {
    if !wanted() {
        return;
    }
    let compose = "services:\n  s: {image: IMAGE, command: [sleep, infinity], init: true}\n";
    let stack = Stack::start("gone", compose, "A=1\n");
    let engine = stack.engine().await;
    let id = stack.container(&engine, "s").await.id;
    docker(&["rm", "-f", &id]);
    let waiting = Waiting::at_most(Duration::from_secs(20));
    let found = sick(engine.wait_healthy(&[id], &waiting).await);
    assert_eq!(found.why, "it was removed");
}
