//! Changing a role's password, and taking it back.

use std::time::{Duration, Instant};

use keyroll_providers::postgres::{
    Login, PasswordSet, PostgresError, Session, StoredPassword, VerifierKind, try_login,
};

use crate::support::{Cut, LIMIT, OLD, ROOT, Server, name, refused, secret, verifier};

const NEW: &str = "new-panel-password-2";

fn kind(stored: &StoredPassword) -> VerifierKind {
    match stored {
        StoredPassword::Verifier(verifier) => verifier.kind(),
        StoredPassword::None => panic!("no password is stored"),
    }
}

/// Sets, checks with both passwords, undoes verbatim, checks again.
async fn there_and_back(server: &Server, role: &str, old: &str) {
    let path = server.checked("panel", role);
    let mut session = server.session("panel").await;
    let before = session.stored_password(role).await.unwrap();
    let after = verifier(kind(&before), role, NEW);
    let set = session.set_password(role, &before, &after).await;
    assert_eq!(set.unwrap(), PasswordSet::Done);
    let stored = session.stored_password(role).await.unwrap();
    assert!(stored.same_as(&after), "stored verbatim");
    assert_eq!(try_login(&path, &secret(NEW), LIMIT).await, Login::Accepted);
    assert_eq!(try_login(&path, &secret(old), LIMIT).await, refused());

    let undone = session.set_password(role, &after, &before).await;
    assert_eq!(undone.unwrap(), PasswordSet::Done);
    let stored = session.stored_password(role).await.unwrap();
    assert!(stored.same_as(&before), "the old verifier is back verbatim");
    assert_eq!(try_login(&path, &secret(old), LIMIT).await, Login::Accepted);
    assert_eq!(try_login(&path, &secret(NEW), LIMIT).await, refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scram_role_gets_a_new_password_and_its_old_verifier_back_verbatim() {
    let Some(server) = Server::start().await else {
        return;
    };
    there_and_back(&server, "panel", OLD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_md5_role_stays_md5() {
    let Some(server) = Server::start().await else {
        return;
    };
    server
        .sql("SET password_encryption = 'md5'; CREATE ROLE panel_md5 LOGIN PASSWORD 'md5-password'")
        .await;
    there_and_back(&server, "panel_md5", "md5-password").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_more_iterations_keeps_them_and_logs_in() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let strong = VerifierKind::Scram { iterations: 20_000 };
    let raised = verifier(strong, "panel", OLD);
    session
        .set_password("panel", &before, &raised)
        .await
        .unwrap();
    there_and_back(&server, "panel", OLD).await;
    let stored = session.stored_password("panel").await.unwrap();
    assert_eq!(kind(&stored), strong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_password_gets_one_and_loses_it_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    // A name that breaks careless quoting.
    let role = "we\"ird 'Role\\";
    server.sql("CREATE ROLE \"we\"\"ird 'Role\\\" LOGIN").await;
    let mut session = server.session("panel").await;
    let before = session.stored_password(role).await.unwrap();
    assert!(matches!(before, StoredPassword::None));
    let after = verifier(VerifierKind::default(), role, NEW);
    session.set_password(role, &before, &after).await.unwrap();
    let path = server.checked("panel", role);
    assert_eq!(try_login(&path, &secret(NEW), LIMIT).await, Login::Accepted);
    session.set_password(role, &after, &before).await.unwrap();
    assert_eq!(try_login(&path, &secret(NEW), LIMIT).await, refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_what_is_set_already_changes_nothing_and_is_well() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    for expected in [PasswordSet::Done, PasswordSet::AlreadySo] {
        let set = session.set_password("panel", &before, &after).await;
        assert_eq!(set.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_somebody_changed_meanwhile_is_left_alone() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    server
        .sql("ALTER ROLE panel PASSWORD 'by-hand-by-hand'")
        .await;
    let error = session
        .set_password("panel", &before, &after)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::Changed { .. }), "{error}");
    let path = server.checked("panel", "panel");
    let by_hand = secret("by-hand-by-hand");
    assert_eq!(try_login(&path, &by_hand, LIMIT).await, Login::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_just_being_made_is_awaited_and_then_respected() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    let other = server.client("postgres", "postgres").await;
    other
        .batch_execute("BEGIN; ALTER ROLE panel PASSWORD 'by-hand-by-hand'")
        .await
        .unwrap();
    let watcher = server.client("postgres", "postgres").await;
    let commit = async {
        // Until keyroll waits for the other's lock.
        let deadline = Instant::now() + LIMIT;
        loop {
            let row = watcher
                .query_one("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'keyroll/r-1')", &[])
                .await
                .unwrap();
            if row.get(0) {
                break;
            }
            assert!(Instant::now() < deadline, "keyroll never waited");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (set, ()) = tokio::join!(session.set_password("panel", &before, &after), commit);
    let error = set.unwrap_err();
    assert!(matches!(error, PostgresError::Changed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_released_ends_in_not_applied_within_the_limit() {
    let Some(server) = Server::start().await else {
        return;
    };
    let limit = Duration::from_secs(1);
    let path = server.checked("panel", "postgres");
    let mut session = Session::open(&path, &secret(ROOT), &name("r-1"), limit)
        .await
        .unwrap();
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    let other = server.client("postgres", "postgres").await;
    other
        .batch_execute("BEGIN; ALTER ROLE panel PASSWORD 'by-hand-by-hand'")
        .await
        .unwrap();
    let started = Instant::now();
    let error = session
        .set_password("panel", &before, &after)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::NotApplied { .. }), "{error}");
    assert!(started.elapsed() < 2 * limit, "{:?}", started.elapsed());
    other.batch_execute("ROLLBACK").await.unwrap();
    let stored = session.stored_password("panel").await.unwrap();
    assert!(stored.same_as(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_commit_is_indeterminate_and_may_have_landed() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    server.relay().cut(Cut::AfterCommit);
    let error = session
        .set_password("panel", &before, &after)
        .await
        .unwrap_err();
    assert!(error.is_indeterminate(), "{error}");
    server.relay().cut(Cut::Never);
    let stored = server.session("panel").await.stored_password("panel").await;
    assert!(stored.unwrap().same_as(&after), "here it had landed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_cut_before_the_change_is_certainly_not_applied() {
    let Some(server) = Server::start().await else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    server.relay().cut(Cut::BeforeAlter);
    let error = session
        .set_password("panel", &before, &after)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::NotApplied { .. }), "{error}");
    server.relay().cut(Cut::Never);
    let stored = server.session("panel").await.stored_password("panel").await;
    assert!(stored.unwrap().same_as(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_keyroll_loses_its_transaction_and_its_lock() {
    let Some(server) = Server::start().await else {
        return;
    };
    let limit = Duration::from_secs(1);
    let path = server.checked("panel", "postgres");
    let mut suspended = Session::open(&path, &secret(ROOT), &name("r-1"), limit)
        .await
        .unwrap();
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let late = verifier(VerifierKind::default(), "panel", "a-late-password");
    server.relay().cut(Cut::FreezeAtAlter);
    let error = suspended
        .set_password("panel", &before, &late)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::NotApplied { .. }), "{error}");
    server.relay().cut(Cut::Never);
    // Its connection is still open, but the lock is free again.
    let after = verifier(VerifierKind::default(), "panel", NEW);
    let set = session.set_password("panel", &before, &after).await;
    assert_eq!(set.unwrap(), PasswordSet::Done);
    let left = session.own_backends(&name("r-1")).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_no_superuser_is_told_what_it_needs() {
    let Some(server) = Server::start().await else {
        return;
    };
    let path = server.checked("panel", "panel");
    let mut session = Session::open(&path, &secret(OLD), &name("r-1"), LIMIT)
        .await
        .unwrap();
    assert!(!session.is_superuser());
    let after = verifier(VerifierKind::default(), "panel", NEW);
    let read = session.stored_password("panel").await.unwrap_err();
    let set = session
        .set_password("panel", &StoredPassword::None, &after)
        .await
        .unwrap_err();
    for error in [read, set] {
        assert!(matches!(error, PostgresError::Forbidden { .. }), "{error}");
        assert!(error.to_string().contains("superuser"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_does_not_exist_is_named() {
    let Some(server) = Server::start().await else {
        return;
    };
    let session = server.session("panel").await;
    let error = session.stored_password("nobody").await.unwrap_err();
    assert!(matches!(error, PostgresError::NoSuchRole { .. }), "{error}");
    assert!(session.server_version().number >= 100_000);
    assert!(session.database_size().await.unwrap() > 1_000_000);
}
