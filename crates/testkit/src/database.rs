//! The stack's database, by two doors: the container's own address, where passwords count, and the inside, where they do not.

use std::time::Duration;

use keyroll_secret::Secret;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::command::{docker, output};
use crate::{Stack, TestkitError};

const LIMIT: Duration = Duration::from_secs(10);

/// How to come to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// From the host, to the container's own address: `pg_hba.conf` asks for the password.
    Network,
    /// Inside the container, over 127.0.0.1: `trust`, as in the official image.
    Loopback,
}

/// What the server said to a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbLogin {
    /// It let the role in.
    Accepted,
    /// It refused the password (28P01).
    Refused,
    /// Neither: not there, starting, another error.
    Unknown(String),
}

impl Stack {
    /// A connection as the stack's role with `password`, over the network.
    pub async fn connect(&self, password: &Secret) -> Result<Client, TestkitError> {
        let address =
            self.container("postgres").await?.address.ok_or_else(|| {
                TestkitError::Unexpected("the database has no address".to_owned())
            })?;
        let mut config = Config::new();
        config
            .host(address.to_string())
            .port(5432)
            .user(self.role())
            .password(password.expose())
            .dbname(self.database())
            .connect_timeout(LIMIT);
        let (client, connection) =
            config
                .connect(NoTls)
                .await
                .map_err(|source| TestkitError::Database {
                    address: address.to_string(),
                    source,
                })?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Tries `password` for the stack's role.
    pub async fn db_login(&self, password: &Secret, door: Door) -> DbLogin {
        match door {
            Door::Network => match timeout(LIMIT, self.connect(password)).await {
                Ok(Ok(_)) => DbLogin::Accepted,
                Ok(Err(TestkitError::Database { source, .. }))
                    if source.code() == Some(&SqlState::INVALID_PASSWORD) =>
                {
                    DbLogin::Refused
                }
                // The library's own text is "db error"; the server's is its source.
                Ok(Err(TestkitError::Database { source, .. })) => DbLogin::Unknown(
                    source
                        .as_db_error()
                        .map_or_else(|| source.to_string(), ToString::to_string),
                ),
                Ok(Err(other)) => DbLogin::Unknown(other.to_string()),
                Err(_) => DbLogin::Unknown("no answer".to_owned()),
            },
            Door::Loopback => self.loopback_login(password).await,
        }
    }

    /// The password goes to psql by standard input: `read` is a builtin, so it is in no argument list.
    async fn loopback_login(&self, password: &Secret) -> DbLogin {
        let script = "IFS= read -r PGPASSWORD; export PGPASSWORD; \
                      exec psql -h 127.0.0.1 -w -U \"$0\" -d \"$1\" -Atc 'SELECT 1'";
        let mut exec = docker([
            "exec",
            "-i",
            &self.container_name("postgres"),
            "sh",
            "-c",
            script,
            self.role(),
            self.database(),
        ]);
        match output(&mut exec, format!("{}\n", password.expose()).as_bytes()).await {
            Ok(_) => DbLogin::Accepted,
            Err(TestkitError::Command { said, .. })
                if said.contains("password authentication failed") =>
            {
                DbLogin::Refused
            }
            Err(other) => DbLogin::Unknown(other.to_string()),
        }
    }

    /// Runs SQL inside the container over the socket, which asks for no password: it works whatever state a rotation left.
    /// Returns the rows of the last query, each value as text, NULL as an empty one.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<String>>, TestkitError> {
        let mut exec = docker([
            "exec",
            "-i",
            &self.container_name("postgres"),
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-F",
            "\u{1f}",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            self.role(),
            "-d",
            self.database(),
        ]);
        let (text, _) = output(&mut exec, sql.as_bytes()).await?;
        Ok(text
            .lines()
            .map(|line| line.split('\u{1f}').map(str::to_owned).collect())
            .collect())
    }

    /// The first value of [`Self::sql`].
    pub async fn sql_value(&self, sql: &str) -> Result<String, TestkitError> {
        self.sql(sql)
            .await?
            .into_iter()
            .flatten()
            .next()
            .ok_or_else(|| TestkitError::Unexpected(format!("no row: {sql}")))
    }

    /// What `pg_authid` holds for the stack's role: a SCRAM verifier, `md5...`, or nothing.
    pub async fn stored_verifier(&self) -> Result<String, TestkitError> {
        self.sql_value(&format!(
            "SELECT rolpassword FROM pg_authid WHERE rolname = '{}'",
            self.role()
        ))
        .await
    }

    /// The administrator's saved password hash.
    pub async fn admin_hash(&self) -> Result<String, TestkitError> {
        self.sql_value(r#"SELECT "passwordHash" FROM "User" WHERE "role" = 'ADMIN'"#)
            .await
    }

    /// How many sessions of the panel are open, that is not revoked.
    pub async fn open_sessions(&self) -> Result<u64, TestkitError> {
        let count = self
            .sql_value(r#"SELECT count(*) FROM "AuthSession" WHERE "revokedAt" IS NULL"#)
            .await?;
        count
            .parse()
            .map_err(|_| TestkitError::Unexpected(format!("a count: {count}")))
    }
}
