//! The application's rows: sessions and one saved hash.

use keyroll_providers::postgres::{
    Cas, Cell, CellAt, Named, PostgresError, Session, SessionTable, Table,
};

use crate::support::{LIMIT, OLD, Server, name, secret};

fn table(name: &str) -> Table {
    Table {
        schema: None,
        name: Named::new("sessions.table", name),
    }
}

fn sessions(revoked: &str) -> SessionTable {
    SessionTable {
        table: table("AuthSession"),
        id: Named::new("sessions.id", "id"),
        revoked: Named::new("sessions.revoked", revoked),
    }
}

fn hash_of(email: &str) -> CellAt {
    CellAt {
        table: Table {
            schema: None,
            name: Named::new("admin.table", "User"),
        },
        key_column: Named::new("admin.email_column", "email"),
        key: email.into(),
        value_column: Named::new("admin.hash_column", "passwordHash"),
    }
}

/// The application's role, which owns the tables and is no superuser.
async fn application(server: &Server) -> Session {
    let path = server.checked("panel", "panel");
    Session::open(&path, &secret(OLD), &name("r-1"), LIMIT)
        .await
        .unwrap()
}

async fn with_sessions(column: &str, closed: &str) -> Option<Server> {
    let server = Server::start().await?;
    let client = server.client("panel", "panel").await;
    client
        .batch_execute(&format!(
            "CREATE SCHEMA AUTHORIZATION panel; \
             CREATE TABLE \"AuthSession\" (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int, \"revoked\" {column}); \
             INSERT INTO \"AuthSession\" (n, revoked) VALUES (1, NULL), (2, NULL), (3, {closed})"
        ))
        .await
        .unwrap();
    Some(server)
}

async fn open_numbers(server: &Server) -> Vec<i32> {
    let client = server.client("panel", "panel").await;
    let rows = client
        .query("SELECT n FROM \"AuthSession\" WHERE revoked IS NULL OR revoked::text = 'false' ORDER BY n", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_revoked_rows_are_reopened_whatever_the_column_is() {
    let columns = [
        ("timestamp(3)", "now()"),
        ("timestamptz", "now()"),
        ("timestamp(0)", "now() - interval '1 day'"),
        ("boolean", "true"),
    ];
    for (column, closed) in columns {
        let Some(server) = with_sessions(column, closed).await else {
            return;
        };
        let mut session = application(&server).await;
        let table = sessions("revoked");
        let open = session.open_sessions(&table).await.unwrap();
        let at = session.server_time().await.unwrap();
        let revoked = session.revoke_sessions(&table, at).await.unwrap();
        assert_eq!(revoked.ids, open, "{column}");
        assert_eq!(open_numbers(&server).await, Vec::<i32>::new(), "{column}");

        let reopened = session.reopen_sessions(&table, &revoked).await.unwrap();
        assert_eq!(reopened.open, open, "{column}");
        assert!(reopened.left.is_empty(), "{column}");
        assert_eq!(open_numbers(&server).await, [1, 2], "{column}");
        let again = session.reopen_sessions(&table, &revoked).await.unwrap();
        assert_eq!(again, reopened, "{column}: may run again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_runs_again_reports_the_rows_of_the_first_run_too() {
    let Some(server) = with_sessions("timestamp(3)", "now()").await else {
        return;
    };
    let mut session = application(&server).await;
    let table = sessions("revoked");
    let at = session.server_time().await.unwrap();
    let first = session.revoke_sessions(&table, at).await.unwrap();
    server
        .client("panel", "panel")
        .await
        .batch_execute("INSERT INTO \"AuthSession\" (n) VALUES (4)")
        .await
        .unwrap();
    let second = session.revoke_sessions(&table, at).await.unwrap();
    assert_eq!((first.ids.len(), second.ids.len()), (2, 3));
    assert!(first.ids.iter().all(|id| second.ids.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_revoked_by_somebody_else_or_deleted_stays_so() {
    let Some(server) = with_sessions("timestamptz", "now()").await else {
        return;
    };
    let mut session = application(&server).await;
    let table = sessions("revoked");
    let at = session.server_time().await.unwrap();
    let revoked = session.revoke_sessions(&table, at).await.unwrap();
    server
        .client("panel", "panel")
        .await
        .batch_execute("UPDATE \"AuthSession\" SET revoked = now() WHERE n = 1; DELETE FROM \"AuthSession\" WHERE n = 2")
        .await
        .unwrap();
    let reopened = session.reopen_sessions(&table, &revoked).await.unwrap();
    assert_eq!((reopened.open.len(), reopened.left.len()), (0, 2));
    assert_eq!(open_numbers(&server).await, Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_names_what_is_not_there_is_told_which_key_to_mend() {
    let Some(server) = with_sessions("timestamptz", "now()").await else {
        return;
    };
    let session = application(&server).await;
    let complaint =
        async |table: SessionTable| session.open_sessions(&table).await.unwrap_err().to_string();
    let mut wrong = sessions("revoked");
    wrong.table = table("auth_sessions");
    let no_table = complaint(wrong).await;
    assert!(no_table.contains("Mend sessions.table"), "{no_table}");
    assert!(
        no_table.contains("\"AuthSession\""),
        "offers it: {no_table}"
    );
    let no_column = complaint(sessions("revokedAt")).await;
    assert!(no_column.contains("Mend sessions.revoked"), "{no_column}");
    assert!(no_column.contains("id, n, revoked"), "{no_column}");
    let no_time = complaint(sessions("n")).await;
    assert!(no_time.contains("is of type integer"), "{no_time}");
    let mut elsewhere = sessions("revoked");
    elsewhere.table.schema = Some("pg_catalog".into());
    assert!(complaint(elsewhere).await.contains("pg_catalog"));
    let mut right = sessions("revoked");
    right.table.schema = Some("panel".into());
    assert_eq!(session.open_sessions(&right).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_hash_is_written_only_over_the_expected_one() {
    let Some(server) = Server::start().await else {
        return;
    };
    let client = server.client("panel", "panel").await;
    client
        .batch_execute(
            "CREATE SCHEMA AUTHORIZATION panel; \
             CREATE TABLE \"User\" (email varchar(200), \"passwordHash\" varchar(100), age int); \
             INSERT INTO \"User\" VALUES ('a@x', 'hash-one'), ('b@x', NULL), ('c@x', 'x'), ('c@x', 'y')",
        )
        .await
        .unwrap();
    let mut session = application(&server).await;
    let (one, two, three) = (secret("hash-one"), secret("hash-two"), secret("three"));
    let admin = hash_of("a@x");
    let read = async |session: &Session, at: &CellAt| match session.read_cell(at).await.unwrap() {
        Cell::Value(text) => text.expose().to_owned(),
        Cell::Null => "(null)".into(),
        Cell::Missing => "(missing)".into(),
    };
    assert_eq!(read(&session, &admin).await, "hash-one");
    assert_eq!(read(&session, &hash_of("b@x")).await, "(null)");
    assert_eq!(read(&session, &hash_of("z@x")).await, "(missing)");

    let mut set = async |at: &CellAt, expected, new| {
        session
            .compare_and_set_cell(at, expected, new)
            .await
            .unwrap()
    };
    assert_eq!(set(&admin, &one, &two).await, Cas::Done);
    assert_eq!(set(&admin, &one, &two).await, Cas::Done, "may run again");
    assert_eq!(set(&admin, &one, &three).await, Cas::Changed);
    assert_eq!(set(&hash_of("b@x"), &one, &two).await, Cas::Changed);
    assert_eq!(set(&hash_of("z@x"), &one, &two).await, Cas::Missing);
    assert_eq!(read(&session, &admin).await, "hash-two");

    let twice = session.read_cell(&hash_of("c@x")).await.unwrap_err();
    assert!(matches!(twice, PostgresError::Ambiguous { .. }), "{twice}");
    let mut number = admin.clone();
    number.value_column = Named::new("admin.hash_column", "age");
    let error = session.read_cell(&number).await.unwrap_err().to_string();
    assert!(error.contains("Mend admin.hash_column"), "{error}");
}
