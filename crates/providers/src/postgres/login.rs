//! Asking a server whether it accepts a password, and whether its answer means anything.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use keyroll_secret::{Format, Secret};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Config, NoTls};

use super::endpoint::{Endpoint, Way};
use super::error::{clean, words};
use super::in_clear::{AskedInClear, NotInClear};
use crate::words::chain;

/// How the checks show up in the server's list of sessions.
const APPLICATION: &str = "keyroll check";
/// Time for the goodbye after a login; without it the server logs a lost connection.
const GOODBYE: Duration = Duration::from_millis(500);

/// What one login showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// The server let the role in. On a `trust` path this says nothing about the password: see [`proves_passwords`].
    Accepted,
    /// The server checked the password and refused it (SQLSTATE 28P01, given here). It answers the same for a role that does
    /// not exist, has no password, has one that expired (`VALID UNTIL`), or has an md5 verifier on a `scram-sha-256` line.
    Refused {
        /// The SQLSTATE.
        code: String,
    },
    /// The server, or the way to it, gave no verdict on the password.
    Unknown(LoginUnknown),
}

/// Why a login gave no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginUnknown {
    /// No connection: refused, no route, unknown name, or cut on the way.
    Unreachable(String),
    /// No verdict within this time.
    TimedOut(Duration),
    /// The server is starting up, shutting down or recovering (57P01, 57P02, 57P03).
    NotReady(String),
    /// No free connection, for the server or the role (53300).
    TooManyConnections(String),
    /// The database does not exist (3D000); the path has let the role in by then.
    NoSuchDatabase(String),
    /// The role has no LOGIN right. The server says so only *after* the password was right (or was not asked), so this is
    /// neither "wrong" nor "accepted": 28000, raised where the session's role is set up.
    LoginNotAllowed(String),
    /// `pg_hba.conf` has no line for this path, rejects it, wants TLS, or wants another kind of proof (28000).
    NoWayIn(String),
    /// The server could not prove that it knows the password too, or asked for a kind of proof the client lacks.
    Protocol(String),
    /// Any other error of the server, with its SQLSTATE.
    Server(String),
}

/// Whether a path checks passwords at all (law 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathCheck {
    /// A random password was refused.
    Proves,
    /// A random password was accepted: a `trust` line. Nothing that this path says about a password counts.
    Void,
    /// It could not be found out.
    Unknown(LoginUnknown),
}

impl fmt::Display for LoginUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the server could not be reached: {why}"),
            Self::TimedOut(limit) => write!(f, "no answer within {limit:?}"),
            Self::NotReady(why) => {
                write!(f, "the server is starting, stopping or recovering: {why}")
            }
            Self::TooManyConnections(why) => write!(f, "no connection is free: {why}"),
            Self::NoSuchDatabase(why) => write!(f, "{why}"),
            Self::LoginNotAllowed(why) => write!(f, "the role has no LOGIN right: {why}"),
            Self::NoWayIn(why) => write!(
                f,
                "pg_hba.conf gives no way in for a password without TLS on this path: {why}"
            ),
            Self::Protocol(why) => write!(f, "the login did not follow the protocol: {why}"),
            Self::Server(why) => write!(f, "the server answered: {why}"),
        }
    }
}

/// Logs in once with `password` and leaves again. The verdict takes at most `limit`, the goodbye half a second more.
pub async fn try_login(endpoint: &Endpoint, password: &Secret, limit: Duration) -> Login {
    match connect(endpoint, password, APPLICATION, limit).await {
        Ok((client, connection)) => {
            drop(client);
            let _ = tokio::time::timeout(GOODBYE, connection).await;
            Login::Accepted
        }
        Err(NoLogin::Refused { code }) => Login::Refused { code },
        Err(NoLogin::Unknown(why)) => Login::Unknown(why),
    }
}

/// Why there is no connection.
pub(super) enum NoLogin {
    Refused { code: String },
    Unknown(LoginUnknown),
}

/// Moves a connection's bytes; ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// Why a login failed.
enum Failed {
    /// There was no stream to log in over.
    Way(io::Error),
    Login(tokio_postgres::Error),
}

impl Way {
    async fn log_in(&self, config: &Config) -> Result<(Client, Driver), Failed> {
        match self {
            Self::Tcp { .. } => {
                let (client, connection) = config.connect(NoTls).await.map_err(Failed::Login)?;
                Ok((client, Box::pin(connection)))
            }
            Self::Through(way) => {
                let stream = way.connect().await.map_err(Failed::Way)?;
                let connected = config.connect_raw(NotInClear::new(stream), NoTls).await;
                let (client, connection) = connected.map_err(Failed::Login)?;
                Ok((client, Box::pin(connection)))
            }
        }
    }
}

/// Connects and logs in within `limit`.
///
/// The client's half of SCRAM is CPU work (about a millisecond at 4096 iterations, far more where the server asks for
/// more), so it runs as a task of its own: on a multi-threaded runtime two logins side by side use two cores, and the limit
/// holds while one computes.
pub(super) async fn connect(
    endpoint: &Endpoint,
    password: &Secret,
    application: &str,
    limit: Duration,
) -> Result<(Client, Driver), NoLogin> {
    let config = endpoint.config(password, application, limit);
    let way = endpoint.address.0.clone();
    let mut task = tokio::spawn(async move { way.log_in(&config).await });
    match tokio::time::timeout(limit, &mut task).await {
        Ok(Ok(Ok(pair))) => Ok(pair),
        Ok(Ok(Err(Failed::Login(error)))) => Err(judge(&error, password, limit)),
        Ok(Ok(Err(Failed::Way(error)))) => Err(NoLogin::Unknown(LoginUnknown::Unreachable(clean(
            &chain(&error),
            &[password],
        )))),
        Ok(Err(_)) => Err(NoLogin::Unknown(LoginUnknown::Unreachable(
            "the attempt was ended".into(),
        ))),
        Err(_) => {
            task.abort();
            Err(NoLogin::Unknown(LoginUnknown::TimedOut(limit)))
        }
    }
}

/// The negative control: whether a random password is refused on the path of `endpoint`.
pub async fn proves_passwords(endpoint: &Endpoint, limit: Duration) -> PathCheck {
    let wrong = match Format::default().generate() {
        Ok(wrong) => wrong,
        Err(error) => return PathCheck::Unknown(LoginUnknown::Unreachable(error.to_string())),
    };
    match try_login(endpoint, &wrong, limit).await {
        Login::Refused { .. } => PathCheck::Proves,
        Login::Accepted => PathCheck::Void,
        Login::Unknown(why) => PathCheck::Unknown(why),
    }
}

/// What a failed login means.
fn judge(error: &tokio_postgres::Error, password: &Secret, limit: Duration) -> NoLogin {
    if let Some(db) = error.as_db_error() {
        return judge_server(db, &words(error, &[password]));
    }
    let why = clean(&chain(error), &[password]);
    if let Some(io) = find_io(error) {
        return NoLogin::Unknown(match io.kind() {
            _ if matches!(io.get_ref(), Some(e) if e.is::<AskedInClear>()) => {
                LoginUnknown::Protocol(why)
            }
            std::io::ErrorKind::TimedOut => LoginUnknown::TimedOut(limit),
            _ => LoginUnknown::Unreachable(why),
        });
    }
    NoLogin::Unknown(if error.is_closed() {
        LoginUnknown::Unreachable(why)
    } else {
        LoginUnknown::Protocol(why)
    })
}

fn judge_server(error: &DbError, why: &str) -> NoLogin {
    let why = why.to_owned();
    let code = error.code();
    if *code == SqlState::INVALID_PASSWORD {
        return NoLogin::Refused {
            code: code.code().to_owned(),
        };
    }
    NoLogin::Unknown(match code.code() {
        "57P01" | "57P02" | "57P03" => LoginUnknown::NotReady(why),
        "53300" => LoginUnknown::TooManyConnections(why),
        "3D000" => LoginUnknown::NoSuchDatabase(why),
        // One code for two things. The message is translated; the name of the C function that raised it is not.
        "28000" if error.routine() == Some("InitializeSessionUserId") => {
            LoginUnknown::LoginNotAllowed(why)
        }
        "28000" => LoginUnknown::NoWayIn(why),
        _ => LoginUnknown::Server(why),
    })
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}
