//! The application's tables, named by a profile that may be wrong.

use postgres_protocol::escape::escape_identifier;

use super::error::PostgresError;
use super::session::Session;

/// A name and the profile's key that it came from, so that an error can say what to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The profile's key, for example `sessions.table`.
    pub key: String,
    /// The name as the database knows it, not quoted, case kept.
    pub name: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema; none means the role's search path.
    pub schema: Option<String>,
    /// Its name.
    pub name: Named,
}

/// A table that exists.
pub(super) struct Found {
    /// Schema and table, quoted.
    pub(super) sql: String,
    columns: Vec<Column>,
}

/// One of its columns.
#[derive(Clone)]
pub(super) struct Column {
    /// The name, quoted.
    pub(super) sql: String,
    name: String,
    /// `format_type`, usable in a cast.
    pub(super) type_sql: String,
    pub(super) type_oid: u32,
    /// `pg_type.typcategory`: S for strings.
    pub(super) category: String,
}

impl Named {
    /// `name`, which the profile gives under `key`.
    pub fn new(key: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            name: name.into(),
        }
    }
}

impl Table {
    fn quoted(&self) -> String {
        let name = escape_identifier(&self.name.name);
        match &self.schema {
            Some(schema) => format!("{}.{name}", escape_identifier(schema)),
            None => name,
        }
    }
}

impl Found {
    /// The column, or an error that lists what there is.
    pub(super) fn column(&self, at: &str, wanted: &Named) -> Result<Column, PostgresError> {
        let found = self.columns.iter().find(|c| c.name == wanted.name);
        found.cloned().ok_or_else(|| PostgresError::NoSuchColumn {
            at: at.to_owned(),
            column: format!("{}.{}", self.sql, escape_identifier(&wanted.name)),
            columns: self
                .columns
                .iter()
                .map(|c| c.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            key: wanted.key.clone(),
        })
    }

    /// The error for a column that cannot mean what the profile says.
    pub(super) fn wrong_type(
        &self,
        at: &str,
        column: &Column,
        named: &Named,
        wanted: &'static str,
    ) -> PostgresError {
        PostgresError::WrongType {
            at: at.to_owned(),
            column: format!("{}.{}", self.sql, column.sql),
            found: column.type_sql.clone(),
            wanted,
            key: named.key.clone(),
        }
    }
}

impl Session {
    /// Looks the table up in the catalogue.
    pub(super) async fn find(&self, table: &Table) -> Result<Found, PostgresError> {
        const DOING: &str = "looking a table up";
        let quoted = table.quoted();
        let rows = self
            .ask(
                DOING,
                "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p')",
                &[&quoted],
            )
            .await?;
        let Some(row) = rows.first() else {
            return Err(self.no_such_table(table, quoted).await);
        };
        let (oid, schema, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let rows = self
            .ask(
                DOING,
                "SELECT a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), t.typcategory::text \
                 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                &[&oid],
            )
            .await?;
        let columns = rows.iter().map(|row| {
            let name: String = row.get(0);
            Column {
                sql: escape_identifier(&name),
                name,
                type_oid: row.get(1),
                type_sql: row.get(2),
                category: row.get(3),
            }
        });
        Ok(Found {
            sql: format!(
                "{}.{}",
                escape_identifier(&schema),
                escape_identifier(&name)
            ),
            columns: columns.collect(),
        })
    }

    async fn no_such_table(&self, table: &Table, quoted: String) -> PostgresError {
        // `auth_session`, `authsession` and `AuthSession` are what tools make of one model's name.
        let similar = self
            .ask(
                "looking a table up",
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
                 AND rtrim(lower(replace(c.relname::text, '_', '')), 's') = rtrim(lower(replace($1, '_', '')), 's') \
                 ORDER BY 1 LIMIT 5",
                &[&table.name.name],
            )
            .await;
        let similar = match similar {
            Ok(rows) => rows,
            Err(error) => return error,
        };
        let names: Vec<String> = similar.iter().map(|row| row.get(0)).collect();
        PostgresError::NoSuchTable {
            at: self.at().to_owned(),
            table: quoted,
            key: table.name.key.clone(),
            hint: if names.is_empty() {
                String::new()
            } else {
                format!(" (there is {})", names.join(", "))
            },
        }
    }
}
