//! Sessions on the server: those opened with an old password, and those that a killed keyroll left.
//!
//! A session goes on after its role's password has changed. Only its start tells with which password it was opened, and a
//! backend notes its start *before* it authenticates: one that started after the commit of the new password has certainly
//! been asked for the new one. One that started before is ended, also when it had the new one; its owner reconnects.
//!
//! A client that is still in the middle of its authentication shows in no list yet, and may finish with the old verifier
//! (for `authentication_timeout`, a minute by default). So list again at the end of a rotation.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::endpoint::ApplicationName;
use super::error::PostgresError;
use super::session::Session;
use super::time::{ServerTime, from_micros, to_micros};

const SEES_ALL: &str = "a superuser, the role itself, or pg_read_all_stats";
const MAY_END: &str =
    "a superuser, the role itself, or pg_signal_backend (not for a superuser's sessions)";
/// How often the server is asked whether ended sessions are gone.
const POLL: Duration = Duration::from_millis(20);

/// One session on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Process id on the server.
    pub pid: i32,
    /// Its database, if it has one.
    pub database: Option<String>,
    /// What it calls itself.
    pub application: String,
    /// Where it comes from; none for a socket.
    pub client: Option<String>,
    /// `client backend`, `walsender`, `parallel worker`, …
    pub kind: String,
    /// `active`, `idle`, `idle in transaction`, …
    pub state: Option<String>,
    /// When it started, before it authenticated.
    pub started: ServerTime,
}

/// What ending sessions came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// Gone, by the server's own list.
    pub ended: Vec<Backend>,
    /// Still there: not gone within the limit, or not a client's session (a standby's `walsender` is listed and left alone:
    /// it would come back with its old password and stop replicating).
    pub left: Vec<Backend>,
}

/// Which sessions are meant.
#[derive(Clone, Copy)]
enum Which<'a> {
    /// Of a role, started before a time, except sessions named as this one.
    Old(&'a str, ServerTime),
    /// Named so, except this one itself.
    Named(&'a ApplicationName),
}

impl Session {
    /// The sessions of `role`, in every database, that started before `before`; without those of this rotation itself (by
    /// application name).
    pub async fn old_sessions(
        &self,
        role: &str,
        before: ServerTime,
    ) -> Result<Vec<Backend>, PostgresError> {
        self.list(Which::Old(role, before)).await
    }

    /// Ends the client sessions that [`Session::old_sessions`] lists, and waits until they are gone, at most `limit`.
    pub async fn terminate_sessions(
        &self,
        role: &str,
        before: ServerTime,
        limit: Duration,
    ) -> Result<Terminated, PostgresError> {
        self.end(Which::Old(role, before), limit).await
    }

    /// The sessions that carry `name`, except this one: what a killed run of that rotation left on the server.
    pub async fn own_backends(
        &self,
        name: &ApplicationName,
    ) -> Result<Vec<Backend>, PostgresError> {
        self.list(Which::Named(name)).await
    }

    /// Ends the sessions that [`Session::own_backends`] lists, and waits until they are gone, at most `limit`.
    pub async fn terminate_own_backends(
        &self,
        name: &ApplicationName,
        limit: Duration,
    ) -> Result<Terminated, PostgresError> {
        self.end(Which::Named(name), limit).await
    }

    async fn list(&self, which: Which<'_>) -> Result<Vec<Backend>, PostgresError> {
        self.select(which, "listing sessions", SEES_ALL, "NULL::bool")
            .await
    }

    async fn end(&self, which: Which<'_>, limit: Duration) -> Result<Terminated, PostgresError> {
        let deadline = Instant::now() + limit;
        let mut seen: Vec<Backend> = Vec::new();
        // One statement lists and signals, so that no pid can have gone to another session in between. Asking again is
        // harmless, and finds those that were only just starting.
        let signal = "CASE WHEN backend_type = 'client backend' THEN pg_terminate_backend(pid) END";
        loop {
            let there = self
                .select(which, "ending sessions", MAY_END, signal)
                .await?;
            for backend in &there {
                if !seen.iter().any(|s| same(s, backend)) {
                    seen.push(backend.clone());
                }
            }
            let waiting = there.iter().any(|b| b.kind == "client backend");
            if !waiting || Instant::now() >= deadline {
                seen.retain(|s| !there.iter().any(|t| same(s, t)));
                return Ok(Terminated {
                    ended: seen,
                    left: there,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn select(
        &self,
        which: Which<'_>,
        doing: &'static str,
        needs: &'static str,
        extra: &str,
    ) -> Result<Vec<Backend>, PostgresError> {
        let filter = match which {
            Which::Old(..) => format!(
                "usename = $1 AND application_name <> $2 AND (backend_start IS NULL OR backend_start < {})",
                from_micros(3)
            ),
            Which::Named(_) => "application_name = $1".to_owned(),
        };
        let sql = format!(
            "SELECT pid, datname::text, application_name, client_addr::text, backend_type, state, {}, {extra} \
             FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {filter} ORDER BY pid",
            to_micros("backend_start")
        );
        let rows = match which {
            Which::Old(role, before) => {
                self.ask_with_right(
                    doing,
                    needs,
                    &sql,
                    &[&role, &self.application().as_str(), &before.micros()],
                )
                .await?
            }
            Which::Named(name) => {
                self.ask_with_right(doing, needs, &sql, &[&name.as_str()])
                    .await?
            }
        };
        // The server blanks what the asking role may not see: then there are sessions, and nobody knows which.
        rows.iter()
            .map(|row| {
                backend(row).ok_or_else(|| PostgresError::Forbidden {
                    at: self.at().to_owned(),
                    doing,
                    needs: SEES_ALL,
                })
            })
            .collect()
    }
}

fn backend(row: &Row) -> Option<Backend> {
    Some(Backend {
        pid: row.get(0),
        database: row.get(1),
        application: row.get(2),
        client: row.get(3),
        kind: row.get::<_, Option<String>>(4)?,
        state: row.get(5),
        started: ServerTime::from_micros(row.get::<_, Option<i64>>(6)?),
    })
}

/// A pid alone may have gone to a newer session.
fn same(a: &Backend, b: &Backend) -> bool {
    a.pid == b.pid && a.started == b.started
}
