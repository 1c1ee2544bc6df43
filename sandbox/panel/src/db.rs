//! The panel's connections: a few, kept open, opened again when broken. As in most applications, a connection that is open
//! survives a change of its password; it is only the next one that fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const QUERY_LIMIT: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 4;

/// The database did not answer. The text is for the log; it holds no value.
#[derive(Debug)]
pub(crate) struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "database: {}", self.0)
    }
}

/// A few connections. Opened when first needed.
pub(crate) struct Pool {
    config: Config,
    slots: Vec<Mutex<Option<Client>>>,
    next: AtomicUsize,
}

impl Pool {
    /// From `DATABASE_URL`, whose password is percent-encoded.
    pub(crate) fn from_url() -> Result<Self, String> {
        let config = crate::required("DATABASE_URL")?
            .parse::<Config>()
            .map_err(|_| "DATABASE_URL is not a PostgreSQL URL".to_owned())?;
        Ok(Self::new(config, CONNECTIONS))
    }

    /// From `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`, with one connection.
    pub(crate) fn from_parts() -> Result<Self, String> {
        let port = std::env::var("PGPORT").unwrap_or_else(|_| "5432".to_owned());
        let mut config = Config::new();
        config
            .host(crate::required("PGHOST")?)
            .port(port.parse().map_err(|_| "PGPORT is not a port number")?)
            .user(crate::required("PGUSER")?)
            .password(crate::required("PGPASSWORD")?)
            .dbname(crate::required("PGDATABASE")?);
        Ok(Self::new(config, 1))
    }

    fn new(config: Config, connections: usize) -> Self {
        Self {
            config,
            slots: (0..connections).map(|_| Mutex::new(None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Runs one statement. A connection that turns out to be broken is opened again, once.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Lost> {
        let mut slot = self.slot().await;
        let mut retried = false;
        loop {
            let client = match slot.take() {
                Some(client) if !client.is_closed() => client,
                _ => self.connect().await?,
            };
            let answer = timeout(QUERY_LIMIT, client.query(sql, params)).await;
            match answer {
                Ok(Ok(rows)) => {
                    *slot = Some(client);
                    return Ok(rows);
                }
                Ok(Err(error)) => {
                    let broken = client.is_closed()
                        || error.is_closed()
                        || error.code() == Some(&SqlState::ADMIN_SHUTDOWN);
                    if !broken {
                        *slot = Some(client);
                        return Err(lost(&error));
                    }
                    if retried {
                        return Err(lost(&error));
                    }
                    retried = true;
                }
                // The connection is dropped: nobody knows what it is doing.
                Err(_) => return Err(Lost("no answer in 5 seconds".to_owned())),
            }
        }
    }

    /// As [`Self::query`], for several statements without parameters.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Lost> {
        let client = self.connect().await?;
        client.batch_execute(sql).await.map_err(|e| lost(&e))
    }

    async fn slot(&self) -> MutexGuard<'_, Option<Client>> {
        if let Some(free) = self.slots.iter().find_map(|slot| slot.try_lock().ok()) {
            return free;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        self.slots[turn].lock().await
    }

    async fn connect(&self) -> Result<Client, Lost> {
        let (client, connection) = timeout(CONNECT_LIMIT, self.config.connect(NoTls))
            .await
            .map_err(|_| Lost("no connection in 2 seconds".to_owned()))?
            .map_err(|e| lost(&e))?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// The server's message says more than the client's ("db error").
fn lost(error: &tokio_postgres::Error) -> Lost {
    Lost(
        error
            .as_db_error()
            .map_or_else(|| error.to_string(), |db| db.message().to_owned()),
    )
}
