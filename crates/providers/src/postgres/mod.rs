//! PostgreSQL: role passwords, the sessions opened with them, and the application's own rows.
//!
//! What makes a password change hard to do honestly:
//!
//! - The official image trusts its socket and loopback, so there a wrong password logs in. [`try_login`] must be paired with
//!   [`proves_passwords`] on the same [`Endpoint`].
//! - `ALTER ROLE … PASSWORD 'clear text'` reaches the server's log, `pg_stat_activity` and `pg_stat_statements`. keyroll sends
//!   a [`Verifier`], computed on its own side; and since a verifier can still be attacked offline, the transaction that
//!   carries it first turns statement logging off for itself.
//! - A malformed verifier is silently taken for a password and hashed. [`Verifier`] can hold none.
//! - Somebody else may change the role meanwhile: [`Session::set_password`] compares and sets under a row lock.
//! - Open sessions outlive the password: [`Session::terminate_sessions`].
//!
//! Connections have no TLS, being meant for the host's own container network: TCP, or bytes that a [`Connect`] carries to
//! where the server listens. A server that insists on TLS gives [`LoginUnknown::NoWayIn`]. Connect to the server itself, not through a pooler: the session keeps settings and locks.
//! A program that uses this crate must not enable debug logging of the crate `tokio_postgres`: it prints statements.

mod app_sessions;
mod backends;
mod cell;
mod endpoint;
mod error;
mod greeting;
mod in_clear;
mod login;
mod password;
mod quiet;
mod session;
mod settings;
mod table;
mod time;
mod transaction;
mod verifier;

pub use app_sessions::Reopened;
pub use app_sessions::Revoked;
pub use app_sessions::SessionTable;
pub use backends::Backend;
pub use backends::Terminated;
pub use cell::Cas;
pub use cell::Cell;
pub use cell::CellAt;
pub use endpoint::Address;
pub use endpoint::ApplicationName;
pub use endpoint::Connect;
pub use endpoint::Endpoint;
pub use endpoint::InvalidName;
pub use endpoint::Opening;
pub use endpoint::Stream;
pub use error::PostgresError;
pub use greeting::greet;
pub use login::Login;
pub use login::LoginUnknown;
pub use login::PathCheck;
pub use login::proves_passwords;
pub use login::try_login;
pub use password::PasswordSet;
pub use password::RoleFacts;
pub use password::StoredPassword;
pub use session::ServerVersion;
pub use session::Session;
pub use settings::SettingChange;
pub use settings::SettingsSet;
pub use settings::SettingsTable;
pub use table::Named;
pub use table::Table;
pub use time::ServerTime;
pub use verifier::Malformed;
pub use verifier::Verifier;
pub use verifier::VerifierKind;
