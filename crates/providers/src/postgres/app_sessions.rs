//! The application's own sessions: rows with a column that says when, or whether, they were revoked.
//!
//! A rotation that unwinds must reopen exactly the rows it revoked, also when keyroll died right after the COMMIT. So the
//! caller chooses the time of the revocation beforehand ([`Session::server_time`]), writes it down, and only then revokes:
//! the time in the column marks keyroll's own rows. A second call with the same time finds them again. A boolean column has
//! no room for a mark; there the caller should have written down the open ids as well ([`Session::open_sessions`]).

use super::error::PostgresError;
use super::session::Session;
use super::table::{Column, Named, Table};
use super::time::{ServerTime, TIMESTAMP, TIMESTAMPTZ, from_micros};

/// Where the application keeps its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTable {
    /// The table.
    pub table: Table,
    /// The row's id (of any type; handled as text). Not a column that holds a token.
    pub id: Named,
    /// When the session was revoked (`timestamp` or `timestamptz`, null while open), or whether (`boolean`, not true while
    /// open).
    pub revoked: Named,
}

/// What a revocation wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The revoked rows, sorted. With a time column, all that carry `at`: an earlier act's rows too.
    pub ids: Vec<String>,
    /// The time that was written, before the column's own rounding. A boolean column does not keep it.
    pub at: ServerTime,
}

/// What a reopening came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopened {
    /// Those of the given rows that are open now.
    pub open: Vec<String>,
    /// Those that are not: deleted, or revoked by somebody else at another time.
    pub left: Vec<String>,
}

/// A session table that was found to be as the profile says, in SQL.
struct Rows {
    table: String,
    id: String,
    revoked: String,
    /// The mark, from parameter 1 (microseconds), in the column's own type and rounding; none for a boolean.
    mark: Option<String>,
}

impl Rows {
    fn is_open(&self) -> String {
        match self.mark {
            Some(_) => format!("{} IS NULL", self.revoked),
            None => format!("{} IS NOT TRUE", self.revoked),
        }
    }
}

impl Session {
    /// The ids of the open rows, sorted. Also the check, before anything changes, that the profile names what exists.
    pub async fn open_sessions(&self, table: &SessionTable) -> Result<Vec<String>, PostgresError> {
        let rows = self.session_rows(table).await?;
        let sql = format!(
            "SELECT {}::text FROM {} WHERE {} ORDER BY 1",
            rows.id,
            rows.table,
            rows.is_open()
        );
        let found = self.ask("listing open sessions", &sql, &[]).await?;
        Ok(found.iter().map(|row| row.get(0)).collect())
    }

    /// Revokes every open row, marked with `at`. May run again with the same `at`.
    pub async fn revoke_sessions(
        &mut self,
        table: &SessionTable,
        at: ServerTime,
    ) -> Result<Revoked, PostgresError> {
        let rows = self.session_rows(table).await?;
        let (name, id, revoked) = (&rows.table, &rows.id, &rows.revoked);
        let tx = self.begin("revoking the application's sessions").await?;
        let found = if let Some(mark) = &rows.mark {
            tx.ask(
                &format!("UPDATE {name} SET {revoked} = {mark} WHERE {revoked} IS NULL"),
                &[&at.micros()],
            )
            .await?;
            tx.ask(
                &format!("SELECT {id}::text FROM {name} WHERE {revoked} = {mark} ORDER BY 1"),
                &[&at.micros()],
            )
            .await?
        } else {
            tx.ask(
                &format!("UPDATE {name} SET {revoked} = true WHERE {revoked} IS NOT TRUE RETURNING {id}::text"),
                &[],
            )
            .await?
        };
        let mut ids: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        ids.sort();
        tx.commit().await?;
        Ok(Revoked { ids, at })
    }

    /// The rows that carry the mark of a revocation, sorted; changes nothing. None for a boolean column, which keeps no mark.
    pub async fn sessions_revoked_at(
        &self,
        table: &SessionTable,
        at: ServerTime,
    ) -> Result<Vec<String>, PostgresError> {
        let rows = self.session_rows(table).await?;
        let Some(mark) = &rows.mark else {
            return Ok(vec![]);
        };
        let sql = format!(
            "SELECT {}::text FROM {} WHERE {} = {mark} ORDER BY 1",
            rows.id, rows.table, rows.revoked
        );
        let found = self
            .ask("listing revoked sessions", &sql, &[&at.micros()])
            .await?;
        Ok(found.iter().map(|row| row.get(0)).collect())
    }

    /// Reopens those of the given rows that still carry the mark of that revocation (a boolean column: that are still
    /// revoked). May run again.
    pub async fn reopen_sessions(
        &mut self,
        table: &SessionTable,
        revoked: &Revoked,
    ) -> Result<Reopened, PostgresError> {
        let rows = self.session_rows(table).await?;
        let (name, id, column) = (&rows.table, &rows.id, &rows.revoked);
        let tx = self.begin("reopening the application's sessions").await?;
        if let Some(mark) = &rows.mark {
            tx.ask(
                &format!("UPDATE {name} SET {column} = NULL WHERE {column} = {mark} AND {id}::text = ANY($2::text[])"),
                &[&revoked.at.micros(), &revoked.ids],
            )
            .await?;
        } else {
            tx.ask(
                &format!("UPDATE {name} SET {column} = false WHERE {column} AND {id}::text = ANY($1::text[])"),
                &[&revoked.ids],
            )
            .await?;
        }
        let found = tx
            .ask(
                &format!(
                    "SELECT {id}::text FROM {name} WHERE {} AND {id}::text = ANY($1::text[])",
                    rows.is_open()
                ),
                &[&revoked.ids],
            )
            .await?;
        let mut open: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        open.sort();
        tx.commit().await?;
        let left = revoked.ids.iter().filter(|id| !open.contains(id));
        Ok(Reopened {
            left: left.cloned().collect(),
            open,
        })
    }

    async fn session_rows(&self, table: &SessionTable) -> Result<Rows, PostgresError> {
        const BOOL: u32 = 16;
        let found = self.find(&table.table).await?;
        let id = found.column(self.at(), &table.id)?;
        let revoked = found.column(self.at(), &table.revoked)?;
        let mark = |Column { type_sql, .. }: &Column| match revoked.type_oid {
            TIMESTAMPTZ => format!("{}::{type_sql}", from_micros(1)),
            // Without a zone: UTC, as Prisma writes it.
            _ => format!("({} AT TIME ZONE 'UTC')::{type_sql}", from_micros(1)),
        };
        let mark = match revoked.type_oid {
            BOOL => None,
            TIMESTAMP | TIMESTAMPTZ => Some(mark(&revoked)),
            _ => {
                return Err(found.wrong_type(
                    self.at(),
                    &revoked,
                    &table.revoked,
                    "timestamp, timestamptz or boolean",
                ));
            }
        };
        Ok(Rows {
            table: found.sql,
            id: id.sql,
            revoked: revoked.sql,
            mark,
        })
    }
}
