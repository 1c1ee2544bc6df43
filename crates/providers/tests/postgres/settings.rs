//! The application's settings.

use keyroll_providers::postgres::{
    Cell, Named, PostgresError, Session, SettingChange, SettingsSet, SettingsTable, Table,
};
use keyroll_secret::Secret;

use crate::support::{LIMIT, OLD, Server, name, secret};

const KEY: &str = "payments.paystack.secretKey";
const PREVIOUS: &str = "payments.paystack.secretKey_previous";

fn settings(table: &str, scope: Option<&str>) -> SettingsTable {
    SettingsTable {
        table: Table {
            schema: None,
            name: Named::new("settings.table", table),
        },
        key_column: Named::new("settings.key_column", "key"),
        value_column: Named::new("settings.value_column", "value"),
        scope: scope.map(|s| (Named::new("settings.scope_column", "scope"), s.to_owned())),
        updated: None,
    }
}

fn value(text: &str) -> Cell {
    Cell::Value(secret(text))
}

/// The current value moves to the previous row.
fn to_new(previous: Cell) -> [SettingChange; 2] {
    [
        SettingChange {
            key: KEY.into(),
            from: value("old'\"\\"),
            to: value("new'\"\\$1"),
        },
        SettingChange {
            key: PREVIOUS.into(),
            from: previous,
            to: value("old'\"\\"),
        },
    ]
}

fn back(changes: &[SettingChange]) -> Vec<SettingChange> {
    let turn = |c: &SettingChange| SettingChange {
        key: c.key.clone(),
        from: c.to.clone(),
        to: c.from.clone(),
    };
    changes.iter().map(turn).collect()
}

async fn server(kind: &str) -> Option<(Server, Session)> {
    let server = Server::start().await?;
    let client = server.client("panel", "panel").await;
    let value = if kind == "text" {
        "$$old'\"\\$$"
    } else {
        "to_json($$old'\"\\$$::text)"
    };
    client
        .batch_execute(&format!(
            "CREATE SCHEMA AUTHORIZATION panel; \
             CREATE TABLE \"Setting\" (scope text NOT NULL DEFAULT 'global', key text NOT NULL, value {kind}); \
             INSERT INTO \"Setting\" (key, value) VALUES ('{KEY}', {value}), ('theme', NULL); \
             INSERT INTO \"Setting\" (scope, key, value) VALUES ('tenant', '{KEY}', {value})"
        ))
        .await
        .unwrap();
    let path = server.checked("panel", "panel");
    let session = Session::open(&path, &secret(OLD), &name("r-1"), LIMIT)
        .await
        .unwrap();
    Some((server, session))
}

async fn read(session: &Session, at: &SettingsTable) -> Vec<String> {
    let found = session.read_settings(at, &[KEY, PREVIOUS]).await.unwrap();
    let told = |cell: Cell| match cell {
        Cell::Value(text) => text.expose().to_owned(),
        other => format!("{other:?}"),
    };
    found.into_iter().map(told).collect()
}

#[tokio::test]
async fn current_and_previous_change_together_and_go_back_as_if_nothing_had_been() {
    for kind in ["text", "jsonb", "json"] {
        let Some((server, mut session)) = server(kind).await else {
            return;
        };
        let at = settings("Setting", Some("global"));
        assert_eq!(read(&session, &at).await, ["old'\"\\", "Missing"], "{kind}");
        let changes = to_new(Cell::Missing);
        for _ in 0..2 {
            let done = session.change_settings(&at, &changes).await.unwrap();
            assert_eq!(done, SettingsSet::Done, "{kind}");
            assert_eq!(
                read(&session, &at).await,
                ["new'\"\\$1", "old'\"\\"],
                "{kind}"
            );
        }
        // The same name in another scope is somebody else's.
        let other = settings("Setting", Some("tenant"));
        assert_eq!(
            read(&session, &other).await,
            ["old'\"\\", "Missing"],
            "{kind}"
        );
        for _ in 0..2 {
            let done = session.change_settings(&at, &back(&changes)).await.unwrap();
            assert_eq!(done, SettingsSet::Done, "{kind}");
            assert_eq!(read(&session, &at).await, ["old'\"\\", "Missing"], "{kind}");
        }
        let client = server.client("panel", "panel").await;
        let rows = client
            .query("SELECT 1 FROM \"Setting\"", &[])
            .await
            .unwrap();
        assert_eq!(rows.len(), 3, "{kind}: a row is left");
    }
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_named_and_nothing_is_written() {
    let Some((server, mut session)) = server("text").await else {
        return;
    };
    let at = settings("Setting", Some("global"));
    let client = server.client("panel", "panel").await;
    let edit =
        format!("UPDATE \"Setting\" SET value = 'theirs' WHERE key = '{KEY}' AND scope = 'global'");
    client.batch_execute(&edit).await.unwrap();
    let changes = to_new(Cell::Missing);
    let drifted = session.change_settings(&at, &changes).await.unwrap();
    assert_eq!(drifted, SettingsSet::Drifted(vec![KEY.into()]));
    assert_eq!(read(&session, &at).await, ["theirs", "Missing"]);
    // A window that somebody has opened by hand.
    let edit = format!(
        "UPDATE \"Setting\" SET value = $$old'\"\\$$ WHERE key = '{KEY}'; INSERT INTO \"Setting\" (key, value) VALUES ('{PREVIOUS}', 'theirs')"
    );
    client.batch_execute(&edit).await.unwrap();
    let drifted = session.change_settings(&at, &changes).await.unwrap();
    assert_eq!(drifted, SettingsSet::Drifted(vec![PREVIOUS.into()]));
    let from_theirs = to_new(value("theirs"));
    assert_eq!(
        session.change_settings(&at, &from_theirs).await.unwrap(),
        SettingsSet::Done
    );
    assert_eq!(read(&session, &at).await, ["new'\"\\$1", "old'\"\\"]);
    let cleared = [SettingChange {
        key: PREVIOUS.into(),
        from: value("old'\"\\"),
        to: Cell::Null,
    }];
    assert_eq!(
        session.change_settings(&at, &cleared).await.unwrap(),
        SettingsSet::Done
    );
    assert_eq!(read(&session, &at).await, ["new'\"\\$1", "Null"]);
}

#[tokio::test]
async fn a_table_that_cannot_be_meant_is_refused_with_the_profiles_key() {
    let Some((_server, session)) = server("text").await else {
        return;
    };
    let wrong = async |at: SettingsTable| {
        session
            .read_settings(&at, &[KEY])
            .await
            .unwrap_err()
            .to_string()
    };
    let twice = session
        .read_settings(&settings("Setting", None), &[KEY])
        .await
        .unwrap_err();
    assert!(
        matches!(twice, PostgresError::Ambiguous { rows: 2, .. }),
        "{twice}"
    );
    let told = wrong(settings("settings", None)).await;
    assert!(
        told.contains("settings.table") && told.contains("Setting"),
        "{told}"
    );
    let other = SettingsTable {
        value_column: Named::new("settings.value_column", "val"),
        ..settings("Setting", None)
    };
    let told = wrong(other).await;
    assert!(
        told.contains("settings.value_column") && told.contains("scope, key, value"),
        "{told}"
    );
    let number = Secret::new("x");
    assert!(!format!("{:?}", Cell::Value(number)).contains('x'));
}

#[tokio::test]
async fn a_row_says_when_it_was_changed_also_one_that_is_new() {
    for kind in ["timestamp(3)", "timestamptz"] {
        let Some((server, mut session)) = server("text").await else {
            return;
        };
        let client = server.client("panel", "panel").await;
        let table = format!(
            "ALTER TABLE \"Setting\" ADD \"updatedAt\" {kind} NOT NULL DEFAULT '2001-01-01'; ALTER TABLE \"Setting\" ALTER \"updatedAt\" DROP DEFAULT"
        );
        client.batch_execute(&table).await.unwrap();
        let mut at = settings("Setting", Some("global"));
        let changes = to_new(Cell::Missing);
        let refused = session.change_settings(&at, &changes).await;
        assert!(refused.is_err(), "a row without it was taken: {kind}");
        at.updated = Some(Named::new("settings.updated_column", "updatedAt"));
        let done = session.change_settings(&at, &changes).await.unwrap();
        assert_eq!(done, SettingsSet::Done, "{kind}");
        let fresh = "SELECT count(*) FROM \"Setting\" WHERE scope = 'global' AND key LIKE 'payments.%' \
                     AND abs(extract(epoch FROM \"updatedAt\" - (now() AT TIME ZONE 'UTC'))) < 60";
        let fresh = if kind == "timestamptz" {
            fresh.replace("(now() AT TIME ZONE 'UTC')", "now()")
        } else {
            fresh.to_owned()
        };
        let rows = client.query_one(&fresh, &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 2, "{kind}");
        at.updated = Some(Named::new("settings.updated_column", "key"));
        let wrong = session
            .change_settings(&at, &back(&changes))
            .await
            .unwrap_err();
        assert!(
            wrong.to_string().contains("settings.updated_column"),
            "{wrong}"
        );
    }
}
