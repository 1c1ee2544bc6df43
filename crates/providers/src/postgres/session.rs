//! A session of keyroll's own.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use keyroll_secret::Secret;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row};

use super::endpoint::{ApplicationName, Endpoint};
use super::error::{PostgresError, words};
use super::login::{NoLogin, connect};
use super::quiet;
use super::time::{ServerTime, to_micros};
use super::transaction::{Scope, Tx};

/// How much longer the client waits than the server may work, so that the server's own answer comes first.
const MARGIN: Duration = Duration::from_secs(1);

/// An open session. Closed when dropped; what was not committed is rolled back.
///
/// Each operation takes at most the limit given to [`Session::open`] (lock waits at most half of it), by the server's
/// `statement_timeout` and by the client's own clock. A transaction of a suspended keyroll ends by
/// `idle_in_transaction_session_timeout`, so that it can neither hold locks nor commit after its time.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    at: String,
    application: ApplicationName,
    superuser: bool,
    in_recovery: bool,
    version: ServerVersion,
    limit: Duration,
}

/// A server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// `server_version_num`, for example 150018.
    pub number: i32,
    /// `server_version`, for example `15.18 (Debian 15.18-0+deb12u1)`.
    pub text: String,
}

impl Session {
    /// Logs in with `password` and makes the session safe: own time limits, UTC, synchronous commit.
    ///
    /// `limit` is for each operation, this one included.
    pub async fn open(
        endpoint: &Endpoint,
        password: &Secret,
        application: &ApplicationName,
        limit: Duration,
    ) -> Result<Self, PostgresError> {
        let at = endpoint.to_string();
        let (client, connection) = connect(endpoint, password, application.as_str(), limit)
            .await
            .map_err(|why| match why {
                NoLogin::Refused { code } => PostgresError::Refused {
                    at: at.clone(),
                    code,
                },
                NoLogin::Unknown(reason) => PostgresError::NotReached {
                    at: at.clone(),
                    reason,
                },
            })?;
        let connection = tokio::spawn(async move {
            // Its error also reaches whoever waits for an answer.
            let _ = connection.await;
        });
        let mut session = Self {
            client,
            connection,
            at,
            application: application.clone(),
            superuser: false,
            in_recovery: false,
            version: ServerVersion {
                number: 0,
                text: String::new(),
            },
            limit,
        };
        session.settle().await?;
        Ok(session)
    }

    async fn settle(&mut self) -> Result<(), PostgresError> {
        const DOING: &str = "setting the session up";
        let whole = self.limit.as_millis().max(1);
        let lock = (self.limit.as_millis() / 2).max(1);
        let settings = format!(
            "SET statement_timeout = {whole}; SET lock_timeout = {lock}; \
             SET idle_in_transaction_session_timeout = {whole}; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; \
             SET standard_conforming_strings = on; SET client_min_messages = error"
        );
        self.bounded(DOING, self.client.batch_execute(&settings))
            .await?;
        // An answered COMMIT must survive a crash of the server, also where the role has asynchronous commits.
        let rows = self
            .ask(
                DOING,
                "SELECT current_setting('is_superuser') = 'on', current_setting('server_version_num')::int, \
                 current_setting('server_version'), CASE WHEN current_setting('synchronous_commit') = 'off' \
                 THEN set_config('synchronous_commit', 'on', false) END, pg_is_in_recovery()",
                &[],
            )
            .await?;
        let row = &rows[0];
        self.superuser = row.get(0);
        self.version = ServerVersion {
            number: row.get(1),
            text: row.get(2),
        };
        self.in_recovery = row.get(4);
        if self.superuser {
            self.ask(DOING, quiet::BEFORE_TRANSACTIONS, &[]).await?;
        }
        Ok(())
    }

    /// Role, database and address, for messages.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Whether it has ended: the server closed it, or is gone. An open one may still fail.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether the server replayed another one's changes when the session began, and took none itself: a standby, or one that is being
    /// restored.
    pub fn is_in_recovery(&self) -> bool {
        self.in_recovery
    }

    /// Whether the session's role is a superuser.
    pub fn is_superuser(&self) -> bool {
        self.superuser
    }

    /// The server's version, read when the session was opened.
    pub fn server_version(&self) -> &ServerVersion {
        &self.version
    }

    /// The server's clock, now.
    pub async fn server_time(&self) -> Result<ServerTime, PostgresError> {
        let sql = format!("SELECT {}", to_micros("clock_timestamp()"));
        let rows = self.ask("reading the server's clock", &sql, &[]).await?;
        Ok(ServerTime::from_micros(rows[0].get(0)))
    }

    /// The size of the session's database on the server's disk, in bytes: an upper guide for a dump, which has no indexes.
    pub async fn database_size(&self) -> Result<u64, PostgresError> {
        let rows = self
            .ask(
                "measuring the database",
                "SELECT pg_database_size(current_database())",
                &[],
            )
            .await?;
        Ok(u64::try_from(rows[0].get::<_, i64>(0)).unwrap_or(0))
    }

    pub(super) fn application(&self) -> &ApplicationName {
        &self.application
    }

    /// A question; any failure is `Unknown`.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.bounded(doing, self.client.query(sql, params)).await
    }

    /// A question that the server may refuse for lack of the right `needs`.
    pub(super) async fn ask_with_right(
        &self,
        doing: &'static str,
        needs: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        match tokio::time::timeout(self.limit + MARGIN, self.client.query(sql, params)).await {
            Ok(Err(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Err(PostgresError::Forbidden {
                    at: self.at.clone(),
                    doing,
                    needs,
                })
            }
            Ok(answer) => answer.map_err(|e| self.unknown(doing, words(&e, &[]))),
            Err(_) => Err(self.unknown(doing, format!("no answer within {:?}", self.limit))),
        }
    }

    /// Begins a transaction for one change.
    pub(super) async fn begin(&mut self, doing: &'static str) -> Result<Tx<'_>, PostgresError> {
        let scope = Scope {
            at: self.at.clone(),
            doing,
            wait: self.limit + MARGIN,
            superuser: self.superuser,
        };
        let begin = self
            .client
            .build_transaction()
            // So that a lock wait ends with the row as it is now, whatever the role's default is.
            .isolation_level(IsolationLevel::ReadCommitted)
            .read_only(false)
            .start();
        match tokio::time::timeout(scope.wait, begin).await {
            Ok(Ok(inner)) => Ok(Tx::new(inner, scope)),
            Ok(Err(error)) => Err(scope.not_applied(words(&error, &[]))),
            Err(_) => Err(scope.not_applied("no answer to BEGIN".into())),
        }
    }

    async fn bounded<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match tokio::time::timeout(self.limit + MARGIN, work).await {
            Ok(answer) => answer.map_err(|e| self.unknown(doing, words(&e, &[]))),
            Err(_) => Err(self.unknown(doing, format!("no answer within {:?}", self.limit))),
        }
    }

    fn unknown(&self, doing: &'static str, reason: String) -> PostgresError {
        PostgresError::Unknown {
            at: self.at.clone(),
            doing,
            reason,
        }
    }

    /// Says goodbye and waits, at most the session's limit, until the connection is closed.
    pub async fn close(self) {
        let Self {
            client,
            connection,
            limit,
            ..
        } = self;
        drop(client);
        let _ = tokio::time::timeout(limit, connection).await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} as {})", self.at, self.application.as_str())
    }
}
