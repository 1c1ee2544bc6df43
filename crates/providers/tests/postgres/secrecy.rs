//! What the server keeps of it all.

use keyroll_providers::postgres::{
    CellAt, Named, PostgresError, Session, StoredPassword, Table, VerifierKind, try_login,
};

use crate::support::{LIMIT, OLD, Server, name, secret, verifier};

const NEW: &str = "new-panel-password-2";
const HASH: &str = "$2b$10$the-new-saved-hash";

fn hash() -> CellAt {
    CellAt {
        table: Table {
            schema: Some("public".into()),
            name: Named::new("admin.table", "User"),
        },
        key_column: Named::new("admin.email_column", "email"),
        key: "a@x".into(),
        value_column: Named::new("admin.hash_column", "hash"),
    }
}

async fn with_user(settings: &[&str]) -> Option<Server> {
    let server = Server::with_settings(settings).await?;
    server
        .client("panel", "postgres")
        .await
        .batch_execute(
            "CREATE TABLE public.\"User\" (email text, hash text); \
             INSERT INTO public.\"User\" VALUES ('a@x', 'old'); \
             GRANT ALL ON public.\"User\" TO panel; CREATE EXTENSION pg_stat_statements",
        )
        .await
        .unwrap();
    Some(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_logs_everything_logs_no_password_no_verifier_and_no_hash() {
    let Some(server) = with_user(&[
        "log_statement=all",
        "log_min_duration_statement=0",
        "log_transaction_sample_rate=1",
        "log_duration=on",
        "shared_preload_libraries=pg_stat_statements",
    ])
    .await
    else {
        return;
    };
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", NEW);
    session
        .set_password("panel", &before, &after)
        .await
        .unwrap();
    session
        .compare_and_set_cell(&hash(), &secret("old"), &secret(HASH))
        .await
        .unwrap();
    let path = server.checked("panel", "panel");
    let _ = try_login(&path, &secret(NEW), LIMIT).await;
    let _ = try_login(&path, &secret("a-wrong-password"), LIMIT).await;

    let statements = server.client("panel", "postgres").await;
    let rows = statements
        .query("SELECT query FROM pg_stat_statements", &[])
        .await
        .unwrap();
    let mut kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    kept.push(server.log());
    let kept = kept.join("\n");
    assert!(
        kept.contains("FOR UPDATE") && kept.contains("password authentication failed"),
        "the records are being kept"
    );
    let StoredPassword::Verifier(after) = after else {
        unreachable!()
    };
    for value in [NEW, HASH, "a-wrong-password", after.secret().expose()] {
        assert!(!kept.contains(value), "{value} was recorded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_silence_the_log_is_refused_where_it_would_be_written() {
    let Some(server) = with_user(&["shared_preload_libraries=pg_stat_statements"]).await else {
        return;
    };
    let path = server.checked("panel", "panel");
    let open = async || {
        Session::open(&path, &secret(OLD), &name("r-1"), LIMIT)
            .await
            .unwrap()
    };
    server
        .sql("ALTER ROLE panel SET log_statement = 'mod'")
        .await;
    let error = open()
        .await
        .compare_and_set_cell(&hash(), &secret("old"), &secret(HASH))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PostgresError::WouldBeLogged { setting, .. } if setting == "log_statement"),
        "{error}"
    );
    server
        .sql("ALTER ROLE panel SET log_statement = 'ddl'")
        .await;
    open()
        .await
        .compare_and_set_cell(&hash(), &secret("old"), &secret(HASH))
        .await
        .unwrap();
    assert!(!server.log().contains(HASH));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_server_refuses_does_not_log_the_verifier_either() {
    let Some(server) = Server::start().await else {
        return;
    };
    // From contrib: refuses a password that is the role's name, also when only its verifier is given.
    server
        .sql("ALTER ROLE postgres SET session_preload_libraries = 'passwordcheck'")
        .await;
    let mut session = server.session("panel").await;
    let before = session.stored_password("panel").await.unwrap();
    let after = verifier(VerifierKind::default(), "panel", "panel");
    // A step of a rotation runs as a task: what it awaits must be `Send`.
    let (error, log) = tokio::spawn(async move {
        let error = session
            .set_password("panel", &before, &after)
            .await
            .unwrap_err();
        let StoredPassword::Verifier(after) = after else {
            unreachable!()
        };
        let log = server.log();
        assert!(!log.contains(after.secret().expose()));
        (error, log)
    })
    .await
    .unwrap();
    assert!(matches!(error, PostgresError::NotApplied { .. }), "{error}");
    assert!(log.contains("password must not equal user name"), "{log}");
}
