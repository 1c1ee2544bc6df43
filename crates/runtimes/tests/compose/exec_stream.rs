//! Commands inside containers as streams, and their end.

use std::io::ErrorKind;
use std::time::Duration;

use keyroll_runtimes::compose::{Exec, ExecError, ExecStream};
use keyroll_runtimes::orphans;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{engine, eventually, one_service, unique, wanted};

fn shell(id: &str, rotation: &str, script: &str) -> Exec {
    Exec::new(id, ["sh", "-c", script]).rotation(rotation)
}

fn runs(rotation: &str) -> bool {
    !orphans::find(rotation).unwrap().orphans.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_pass_in_both_directions_at_once() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("both").await;
    let stream = engine.exec_stream(&Exec::new(&id, ["cat"])).await.unwrap();
    let data: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = vec![0; data.len()];
    let (sent, got) = tokio::join!(write.write_all(&data), read.read_exact(&mut back));
    sent.unwrap();
    got.unwrap();
    assert!(back == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_carries_the_mark_and_ends_with_its_stream() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("drop").await;
    let rotation = unique("rotation");
    let mut stream = engine
        .exec_stream(&shell(&id, &rotation, "echo here; cat"))
        .await
        .unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert!(runs(&rotation));
    drop(stream);
    eventually("it has ended", async || !runs(&rotation)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_end_with_its_input_is_ended() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("deaf").await;
    let rotation = unique("rotation");
    let mut stream = engine
        .exec_stream(&shell(
            &id,
            &rotation,
            "trap '' TERM HUP PIPE; echo here; sleep 1000; sleep 1000",
        ))
        .await
        .unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    drop(stream);
    eventually("it was ended", async || !runs(&rotation)).await;
}

#[tokio::test]
async fn a_command_whose_process_of_ours_is_gone_sees_the_end_of_its_input() {
    if !wanted() {
        return;
    }
    let (_stack, _, id) = one_service("gone").await;
    let rotation = unique("rotation");
    let exec = shell(&id, &rotation, "cat");
    // Everything on this side vanishes at once, with nobody to end anything, as by a kill -9.
    let ours = tokio::runtime::Runtime::new().unwrap();
    let stream: ExecStream = ours
        .spawn(async move { engine().await.exec_stream(&exec).await.unwrap() })
        .await
        .unwrap();
    eventually("it runs", async || runs(&rotation)).await;
    ours.shutdown_background();
    eventually("it has ended", async || !runs(&rotation)).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_command_is_told_with_its_last_words() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("words").await;
    let end = async |script: &str| {
        let exec = shell(&id, "none", script);
        let mut stream = engine.exec_stream(&exec).await.unwrap();
        let mut text = String::new();
        let end = stream.read_to_string(&mut text).await;
        (text, end.map_err(|e| (e.kind(), e.to_string())))
    };
    let (text, quiet) = end("echo done").await;
    assert_eq!((text.as_str(), quiet), ("done\n", Ok(5)));
    let (_, failed) = end("echo connection refused >&2; exit 1").await;
    assert_eq!(
        failed,
        Err((ErrorKind::ConnectionAborted, "connection refused".into()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_told_from_one_that_fails() {
    if !wanted() {
        return;
    }
    let (_stack, engine, id) = one_service("absent").await;
    match engine
        .exec_stream(&Exec::new(&id, ["no-such-command"]))
        .await
    {
        Ok(mut stream) => {
            let mut text = String::new();
            let end =
                tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text));
            let error = end.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        Err(error) => assert!(matches!(error, ExecError::NotStarted { .. }), "{error}"),
    }
    let gone = engine
        .exec_stream(&Exec::new("no-such-container", ["true"]))
        .await;
    assert!(matches!(gone, Err(ExecError::NotStarted { .. })));
}
