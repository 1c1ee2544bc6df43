//! Sessions that must not outlive a password, or a killed keyroll.

use keyroll_providers::postgres::{PostgresError, Session};

use crate::support::{LIMIT, OLD, Server, name, secret};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_older_than_the_change_are_ended_in_every_database_and_no_others() {
    let Some(server) = Server::start().await else {
        return;
    };
    server.sql("CREATE ROLE other LOGIN").await;
    let old = [
        server.client("panel", "panel").await,
        server.client("postgres", "panel").await,
    ];
    let other = server.client("panel", "other").await;
    let own = Session::open(
        &server.checked("panel", "panel"),
        &secret(OLD),
        &name("r-1"),
        LIMIT,
    )
    .await
    .unwrap();
    let session = server.session("panel").await;
    let change = session.server_time().await.unwrap();
    let new = server.client("panel", "panel").await;

    let listed = session.old_sessions("panel", change).await.unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|b| b.application == "panel-api"));
    let ended = session
        .terminate_sessions("panel", change, LIMIT)
        .await
        .unwrap();
    assert_eq!(ended.ended.len(), 2, "{ended:?}");
    assert!(ended.left.is_empty(), "{ended:?}");

    for client in &old {
        assert!(client.simple_query("SELECT 1").await.is_err());
    }
    assert!(other.simple_query("SELECT 1").await.is_ok());
    assert!(new.simple_query("SELECT 1").await.is_ok());
    assert!(own.server_time().await.is_ok(), "this rotation's own stays");
    let again = session.terminate_sessions("panel", change, LIMIT).await;
    assert!(again.unwrap().ended.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_of_the_same_rotation_left_is_found_and_ended() {
    let Some(server) = Server::start().await else {
        return;
    };
    let left = server.session("panel").await;
    let session = server.session("postgres").await;
    let found = session.own_backends(&name("r-1")).await.unwrap();
    assert_eq!(found.len(), 1, "not itself: {found:?}");
    assert_eq!(found[0].database.as_deref(), Some("panel"));
    assert!(session.own_backends(&name("r-2")).await.unwrap().is_empty());
    let ended = session
        .terminate_own_backends(&name("r-1"), LIMIT)
        .await
        .unwrap();
    assert_eq!((ended.ended.len(), ended.left.len()), (1, 0));
    let error = left.server_time().await.unwrap_err();
    assert!(matches!(error, PostgresError::Unknown { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_see_the_sessions_does_not_report_that_there_are_none() {
    let Some(server) = Server::start().await else {
        return;
    };
    server.sql("CREATE ROLE other LOGIN").await;
    let _open = server.client("panel", "other").await;
    let session = Session::open(
        &server.checked("panel", "panel"),
        &secret(OLD),
        &name("r-1"),
        LIMIT,
    )
    .await
    .unwrap();
    let now = session.server_time().await.unwrap();
    let error = session.old_sessions("other", now).await.unwrap_err();
    assert!(matches!(error, PostgresError::Forbidden { .. }), "{error}");
    let error = session
        .terminate_sessions("other", now, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::Forbidden { .. }), "{error}");
}
