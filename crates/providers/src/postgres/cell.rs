//! One text in one row of the application's: the admin's saved password hash.

use keyroll_secret::Secret;

use super::error::PostgresError;
use super::quiet::{Carries, keep_quiet};
use super::session::Session;
use super::table::{Named, Table};

/// Where the text stands: the row whose `key_column` (as text) is `key`, column `value_column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellAt {
    /// The table.
    pub table: Table,
    /// The column that tells rows apart, for example the e-mail.
    pub key_column: Named,
    /// Its text in the row that is meant.
    pub key: String,
    /// The column that holds the text; of a string type.
    pub value_column: Named,
}

/// What a cell holds.
#[derive(Debug, Clone)]
pub enum Cell {
    /// This text.
    Value(Secret),
    /// Null.
    Null,
    /// There is no such row.
    Missing,
}

/// What a compare-and-set came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// The new text is there: written now, or by an earlier act.
    Done,
    /// Neither the expected nor the new text is there; nothing was changed.
    Changed,
    /// There is no such row; nothing was changed.
    Missing,
}

/// The parts of the SQL, quoted.
struct Place {
    table: String,
    key: String,
    value: String,
}

impl Session {
    /// Reads the cell. Two rows with the key are [`PostgresError::Ambiguous`].
    pub async fn read_cell(&self, at: &CellAt) -> Result<Cell, PostgresError> {
        let place = self.place(at).await?;
        let sql = format!(
            "SELECT {}::text FROM {} WHERE {}::text = $1 LIMIT 2",
            place.value, place.table, place.key
        );
        let rows = self.ask("reading a saved value", &sql, &[&at.key]).await?;
        if rows.len() > 1 {
            return Err(self.ambiguous(at, &place, rows.len()));
        }
        Ok(
            match rows.first().map(|row| row.get::<_, Option<String>>(0)) {
                None => Cell::Missing,
                Some(None) => Cell::Null,
                Some(Some(text)) => Cell::Value(Secret::new(text)),
            },
        )
    }

    /// Writes `new` if the cell holds `expected`, under a row lock. The expected text never leaves this side; the new one is
    /// sent as a parameter, with statement recording off.
    pub async fn compare_and_set_cell(
        &mut self,
        at: &CellAt,
        expected: &Secret,
        new: &Secret,
    ) -> Result<Cas, PostgresError> {
        let place = self.place(at).await?;
        let Place { table, key, value } = &place;
        let tx = self.begin("writing a saved value back").await?;
        let rows = tx
            .ask(
                &format!("SELECT {value}::text FROM {table} WHERE {key}::text = $1 FOR UPDATE"),
                &[&at.key],
            )
            .await?;
        if rows.len() > 1 {
            let count = rows.len();
            drop(tx);
            return Err(self.ambiguous(at, &place, count));
        }
        let Some(row) = rows.first() else {
            return Ok(Cas::Missing);
        };
        match row.get::<_, Option<String>>(0).map(Secret::new) {
            Some(found) if found.same_as(new) => return Ok(Cas::Done),
            Some(found) if found.same_as(expected) => {}
            _ => return Ok(Cas::Changed),
        }
        keep_quiet(&tx, Carries::Parameter).await?;
        tx.run_hiding(
            new,
            &format!("UPDATE {table} SET {value} = $2::text WHERE {key}::text = $1"),
            &[&at.key, &new.expose()],
        )
        .await?;
        tx.commit().await?;
        Ok(Cas::Done)
    }

    async fn place(&self, at: &CellAt) -> Result<Place, PostgresError> {
        let found = self.find(&at.table).await?;
        let key = found.column(self.at(), &at.key_column)?;
        let value = found.column(self.at(), &at.value_column)?;
        if value.category != "S" {
            return Err(found.wrong_type(
                self.at(),
                &value,
                &at.value_column,
                "text or another string type",
            ));
        }
        Ok(Place {
            table: found.sql,
            key: key.sql,
            value: value.sql,
        })
    }

    fn ambiguous(&self, at: &CellAt, place: &Place, rows: usize) -> PostgresError {
        PostgresError::Ambiguous {
            at: self.at().to_owned(),
            table: place.table.clone(),
            column: at.key_column.name.clone(),
            rows,
            key: at.key_column.key.clone(),
        }
    }
}
