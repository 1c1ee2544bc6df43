//! Commands inside containers, and finding what outlived its client.

use std::process::Stdio;
use std::time::Duration;

use keyroll_runtimes::compose::{Exec, ExecError, NoInput};
use keyroll_runtimes::orphans;
use keyroll_secret::{Redactor, Secret};

use crate::support::{eventually, one_service, unique, wanted};

#[tokio::test]
async fn exit_code_output_and_redacted_errors_come_back() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("exec").await;
    let mut redactor = Redactor::new();
    redactor.learn("PASSWORD", &Secret::new("hunter2-value"));
    let engine = engine.redacting(redactor);
    let script = "echo out; echo no login with hunter2-value >&2; echo $EXTRA; exit 3";
    let exec = Exec::new(&id, ["sh", "-c", script]).env("EXTRA", "more");
    let done = engine.exec(&exec).await.unwrap();
    assert_eq!(done.exit_code, 3);
    assert_eq!(done.stdout.expose(), "out\nmore\n");
    assert_eq!(done.stderr, "no login with [PASSWORD]\n");
}

#[tokio::test]
async fn megabytes_pass_through_unchanged_in_both_directions() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("stream").await;
    // Every byte value, and lines of every length: nothing may be taken for text.
    let data: Vec<u8> = (0..5_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let exec = Exec::new(&id, ["cat"]);
    let mut out = Vec::new();
    let done = engine
        .exec_streamed(&exec, Some(data.as_slice()), &mut out)
        .await
        .unwrap();
    assert_eq!(done.exit_code, 0);
    assert!(
        out == data,
        "{} bytes came back of {}",
        out.len(),
        data.len()
    );
}

#[tokio::test]
async fn a_command_that_reads_only_a_part_of_its_input_ends_well() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("part").await;
    let data = vec![b'x'; 3_000_000];
    let exec = Exec::new(&id, ["head", "-c", "3"]);
    let mut out = Vec::new();
    let done = engine
        .exec_streamed(&exec, Some(data.as_slice()), &mut out)
        .await
        .unwrap();
    assert_eq!((done.exit_code, out.as_slice()), (0, &b"xxx"[..]));
}

#[tokio::test]
async fn what_does_not_exist_never_started() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("none").await;
    let error = engine
        .exec(&Exec::new("no-such-container", ["true"]))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::NotStarted { .. }), "{error}");
    match engine.exec(&Exec::new(&id, ["no-such-command"])).await {
        Ok(done) => assert!(matches!(done.exit_code, 126 | 127), "{done:?}"),
        Err(error) => assert!(matches!(error, ExecError::NotStarted { .. }), "{error}"),
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_inside_the_container_and_its_effect_unknown() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("late").await;
    let rotation = unique("rotation");
    let script = "trap '' TERM; echo x; sleep 1000 & sleep 1000";
    let exec = Exec::new(&id, ["sh", "-c", script])
        .rotation(&rotation)
        .limit(Duration::from_secs(1));
    let error = engine.exec(&exec).await.unwrap_err();
    assert!(
        matches!(error, ExecError::Indeterminate { ended: true, .. }),
        "{error}"
    );
    assert_eq!(orphans::find(&rotation).unwrap().orphans, []);
}

#[tokio::test]
async fn a_full_sink_ends_the_command() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("sink").await;
    let rotation = unique("rotation");
    let exec = Exec::new(&id, ["sh", "-c", "yes; sleep 1000"]).rotation(&rotation);
    let mut full = tokio::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .await
        .unwrap();
    let result = engine
        .exec_streamed(&exec, None::<NoInput>, &mut full)
        .await;
    assert!(
        matches!(result, Err(ExecError::Indeterminate { ended: true, .. })),
        "{result:?}"
    );
    assert_eq!(orphans::find(&rotation).unwrap().orphans, []);
}

#[tokio::test]
async fn what_a_vanished_client_left_behind_is_found_inside_and_outside_and_ended() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("orphan").await;
    let rotation = unique("rotation");
    let exec = Exec::new(&id, ["sh", "-c", "env -i sleep 1000; true"]).rotation(&rotation);
    // The client goes away in the middle, as by a kill -9.
    let client = tokio::spawn({
        let (engine, exec) = (engine.clone(), exec.clone());
        async move { engine.exec(&exec).await }
    });
    let mut outside = std::process::Command::new("sleep")
        .arg("1000")
        .env_clear()
        .env(orphans::MARK, &rotation)
        .stdin(Stdio::null())
        .spawn_in_path();
    let all = async || orphans::find(&rotation).unwrap().orphans.len() == 3;
    eventually("a shell, its unmarked child, and one outside", all).await;
    client.abort();
    let _ = client.await;

    let found = orphans::find(&rotation).unwrap().orphans;
    assert_eq!(found.len(), 3, "the client's end ends nothing: {found:?}");
    let inside: Vec<_> = found.iter().filter(|o| o.in_container.is_some()).collect();
    assert_eq!(inside.len(), 2);
    assert!(inside.iter().all(|o| o.in_container.as_ref() == Some(&id)));
    let gone = orphans::gone_within(&found, Duration::from_millis(100)).await;
    assert!(!gone.unwrap());

    orphans::end(&found, Duration::from_secs(20)).await.unwrap();
    let _ = outside.wait();
    assert_eq!(orphans::find(&rotation).unwrap().orphans, []);
    // A second time there is nothing to do.
    orphans::end(&found, Duration::from_secs(5)).await.unwrap();
}

trait SpawnInPath {
    fn spawn_in_path(&mut self) -> std::process::Child;
}

impl SpawnInPath for std::process::Command {
    fn spawn_in_path(&mut self) -> std::process::Child {
        self.env("PATH", "/usr/bin:/bin").spawn().unwrap()
    }
}
