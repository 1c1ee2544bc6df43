//! The application's own settings: rows of a table, read together and changed together.
//!
//! A secret that an operator types into the browser ends up here, and a webhook secret in its grace window takes two rows, the current
//! value and the previous one. They change in one transaction or not at all, each compared with what it was when it was looked at: what
//! somebody has typed since is never overwritten.

use keyroll_secret::Secret;
use tokio_postgres::types::ToSql;

use super::cell::Cell;
use super::error::PostgresError;
use super::quiet::{Carries, keep_quiet};
use super::session::Session;
use super::table::{Found, Named, Table};
use super::time::{TIMESTAMP, TIMESTAMPTZ};
use super::transaction::Tx;

/// Where the settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsTable {
    /// The table.
    pub table: Table,
    /// The column with a setting's name; compared as text.
    pub key_column: Named,
    /// The column with its value: of a string type, or `json` or `jsonb` holding a string.
    pub value_column: Named,
    /// A column that must hold this text, where one table has the settings of several.
    pub scope: Option<(Named, String)>,
    /// A `timestamp` or `timestamptz` column that says when the row was changed last. An application's library often fills it by itself,
    /// and the table then has no default for a row that is new.
    pub updated: Option<Named>,
}

/// What one setting goes from and to.
#[derive(Debug, Clone)]
pub struct SettingChange {
    /// Its name.
    pub key: String,
    /// What it must hold now.
    pub from: Cell,
    /// What it holds afterwards. A row is inserted or deleted where one of the two is [`Cell::Missing`].
    pub to: Cell,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsSet {
    /// All hold what they should: written now, or by an earlier act.
    Done,
    /// These hold neither what they should go from nor to; nothing was changed.
    Drifted(Vec<String>),
}

/// The parts of the SQL, quoted.
struct Place {
    table: String,
    key: String,
    value: String,
    /// Reads the value as text.
    read: String,
    /// Writes parameter 2.
    write: String,
    scope: Option<(String, String)>,
    /// A column, and now in its type.
    updated: Option<(String, String)>,
}

impl Place {
    /// The condition for one of many names in parameter 1, or for one.
    fn which(&self, many: bool) -> String {
        let equals = if many { "= ANY($1)" } else { "= $1" };
        let scope = self
            .scope
            .as_ref()
            .map_or_else(String::new, |(column, text)| {
                let text = postgres_protocol::escape::escape_literal(text);
                format!(" AND {column}::text = {text}")
            });
        format!("{}::text {equals}{scope}", self.key)
    }

    fn select(&self) -> String {
        format!(
            "SELECT {}::text, {} FROM {} WHERE {}",
            self.key,
            self.read,
            self.table,
            self.which(true)
        )
    }
}

impl Session {
    /// Reads these settings, in the order of their names.
    pub async fn read_settings(
        &self,
        at: &SettingsTable,
        keys: &[&str],
    ) -> Result<Vec<Cell>, PostgresError> {
        let place = self.settings(at).await?;
        let rows = self
            .ask("reading settings", &place.select(), &[&keys])
            .await?;
        cells(&rows, keys).map_err(|(key, rows)| self.twice(at, &place, &key, rows))
    }

    /// Changes these settings in one transaction, if each holds what it should go from, or already what it should go to.
    pub async fn change_settings(
        &mut self,
        at: &SettingsTable,
        changes: &[SettingChange],
    ) -> Result<SettingsSet, PostgresError> {
        let place = self.settings(at).await?;
        let keys: Vec<&str> = changes.iter().map(|c| c.key.as_str()).collect();
        let tx = self.begin("changing settings").await?;
        if changes.iter().any(|c| matches!(c.from, Cell::Missing)) {
            // There is no row to lock yet, and nobody may make it meanwhile.
            let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", place.table);
            tx.ask(&lock, &[]).await?;
        }
        let rows = tx
            .ask(&format!("{} FOR UPDATE", place.select()), &[&keys])
            .await?;
        let found = match cells(&rows, &keys) {
            Ok(found) => found,
            Err((key, rows)) => {
                drop(tx);
                return Err(self.twice(at, &place, &key, rows));
            }
        };
        let pairs = changes.iter().zip(&found);
        let drifted: Vec<String> = pairs
            .clone()
            .filter(|(change, now)| !same(now, &change.from) && !same(now, &change.to))
            .map(|(change, _)| change.key.clone())
            .collect();
        if !drifted.is_empty() {
            return Ok(SettingsSet::Drifted(drifted));
        }
        let left: Vec<_> = pairs
            .filter(|(change, now)| !same(now, &change.to))
            .collect();
        if left.is_empty() {
            return Ok(SettingsSet::Done);
        }
        keep_quiet(&tx, Carries::Parameter).await?;
        for (change, now) in left {
            write(&tx, &place, change, now).await?;
        }
        tx.commit().await?;
        Ok(SettingsSet::Done)
    }

    async fn settings(&self, at: &SettingsTable) -> Result<Place, PostgresError> {
        let found = self.find(&at.table).await?;
        let key = found.column(self.at(), &at.key_column)?;
        let value = found.column(self.at(), &at.value_column)?;
        let scope = match &at.scope {
            Some((column, text)) => Some((found.column(self.at(), column)?.sql, text.clone())),
            None => None,
        };
        let updated = match &at.updated {
            Some(column) => Some(self.now_in(&found, column)?),
            None => None,
        };
        let (read, write) = match (value.category.as_str(), value.type_sql.as_str()) {
            ("S", _) => (format!("{}::text", value.sql), "$2::text".to_owned()),
            (_, json @ ("json" | "jsonb")) => (
                // The text of a JSON string; of a JSON null, null.
                format!("{} #>> '{{}}'", value.sql),
                format!("to_json($2::text)::{json}"),
            ),
            _ => {
                let wanted = "text, another string type, json or jsonb";
                return Err(found.wrong_type(self.at(), &value, &at.value_column, wanted));
            }
        };
        Ok(Place {
            table: found.sql,
            key: key.sql,
            value: value.sql,
            read,
            write,
            scope,
            updated,
        })
    }

    fn now_in(&self, found: &Found, named: &Named) -> Result<(String, String), PostgresError> {
        let column = found.column(self.at(), named)?;
        let now = match column.type_oid {
            TIMESTAMPTZ => format!("now()::{}", column.type_sql),
            // Without a zone: UTC, as Prisma writes it.
            TIMESTAMP => format!("(now() AT TIME ZONE 'UTC')::{}", column.type_sql),
            _ => {
                return Err(found.wrong_type(
                    self.at(),
                    &column,
                    named,
                    "timestamp or timestamptz",
                ));
            }
        };
        Ok((column.sql, now))
    }

    fn twice(&self, at: &SettingsTable, place: &Place, key: &str, rows: usize) -> PostgresError {
        PostgresError::Ambiguous {
            at: self.at().to_owned(),
            table: place.table.clone(),
            column: format!("{} = {key}", at.key_column.name),
            rows,
            key: at.key_column.key.clone(),
        }
    }
}

/// What was found of each name; the error is a name that several rows have.
fn cells(rows: &[tokio_postgres::Row], keys: &[&str]) -> Result<Vec<Cell>, (String, usize)> {
    let of = |key: &&str| {
        let mut own = rows.iter().filter(|row| row.get::<_, &str>(0) == *key);
        let (first, more) = (own.next(), own.count());
        if more > 0 {
            return Err(((*key).to_owned(), more + 1));
        }
        Ok(match first.map(|row| row.get::<_, Option<String>>(1)) {
            None => Cell::Missing,
            Some(None) => Cell::Null,
            Some(Some(text)) => Cell::Value(Secret::new(text)),
        })
    };
    keys.iter().map(of).collect()
}

fn same(one: &Cell, other: &Cell) -> bool {
    match (one, other) {
        (Cell::Value(one), Cell::Value(other)) => one.same_as(other),
        (Cell::Null, Cell::Null) | (Cell::Missing, Cell::Missing) => true,
        _ => false,
    }
}

async fn write(
    tx: &Tx<'_>,
    place: &Place,
    change: &SettingChange,
    now: &Cell,
) -> Result<(), PostgresError> {
    let (key, nothing) = (&change.key, Secret::new(""));
    let (hidden, text) = match &change.to {
        Cell::Value(secret) => (secret, Some(secret.expose())),
        _ => (&nothing, None),
    };
    let Place {
        table,
        key: key_column,
        value,
        write,
        ..
    } = place;
    if matches!(change.to, Cell::Missing) {
        let sql = format!("DELETE FROM {table} WHERE {}", place.which(false));
        return tx.run_hiding(hidden, &sql, &[key]).await;
    }
    if !matches!(now, Cell::Missing) {
        let also = place.updated.as_ref();
        let also = also.map_or_else(String::new, |(column, now)| format!(", {column} = {now}"));
        let sql = format!(
            "UPDATE {table} SET {value} = {write}{also} WHERE {}",
            place.which(false)
        );
        return tx.run_hiding(hidden, &sql, &[key, &text]).await;
    }
    let (mut columns, mut values) = (format!("{key_column}, {value}"), format!("$1, {write}"));
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![key, &text];
    let mut also = |column: &str, value: &str| {
        columns = format!("{columns}, {column}");
        values = format!("{values}, {value}");
    };
    if let Some((column, now)) = &place.updated {
        also(column, now);
    }
    if let Some((column, scope)) = &place.scope {
        also(column, "$3");
        parameters.push(scope);
    }
    let sql = format!("INSERT INTO {table} ({columns}) VALUES ({values})");
    tx.run_hiding(hidden, &sql, &parameters).await
}
