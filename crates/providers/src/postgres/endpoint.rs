//! Where a server listens, and as whom to come.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keyroll_secret::Secret;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How a server is reached: at a TCP address from here, or by a [`Connect`].
#[derive(Debug, Clone)]
pub struct Address(pub(super) Way);

#[derive(Debug, Clone)]
pub(super) enum Way {
    Tcp { host: String, port: u16 },
    Through(Arc<dyn Connect>),
}

/// A way to a server that is no TCP connection from here, such as a relay. It carries the protocol's bytes and knows nothing
/// of them. Its `Display` names the way for people, such as `172.18.0.2:5432 through container panel-api-1`.
pub trait Connect: fmt::Debug + fmt::Display + Send + Sync {
    /// Opens one more stream to the server's port. Dropped, the stream is closed.
    fn connect(&self) -> Opening<'_>;
}

/// A stream on its way.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One way to come to one database: the path, the database and the role. Holds no password.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where the server listens.
    pub address: Address,
    /// The database's name, as is.
    pub database: String,
    /// The role's name, as is (not quoted, case kept).
    pub role: String,
}

/// The `application_name` of one rotation's sessions, `keyroll/<rotation id>`: how a later run finds what a killed one left.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApplicationName(String);

/// A rotation id that PostgreSQL would not keep as it is.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "rotation id {0:?} cannot be part of an application_name: PostgreSQL keeps 63 bytes of printable ASCII"
)]
pub struct InvalidName(String);

impl Address {
    /// An address by IP.
    pub fn ip(ip: IpAddr, port: u16) -> Self {
        Self::name(ip.to_string(), port)
    }

    /// An address by name, or by IP written as text.
    pub fn name(host: impl Into<String>, port: u16) -> Self {
        Self(Way::Tcp {
            host: host.into(),
            port,
        })
    }

    /// Another way.
    pub fn through(way: impl Connect + 'static) -> Self {
        Self(Way::Through(Arc::new(way)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Way::Tcp { host, port } => write!(f, "{host}:{port}"),
            Way::Through(way) => write!(f, "{way}"),
        }
    }
}

impl Endpoint {
    /// The client's settings; `limit` also bounds the TCP connect.
    pub(super) fn config(&self, password: &Secret, application: &str, limit: Duration) -> Config {
        let mut config = Config::new();
        config
            .user(&self.role)
            .dbname(&self.database)
            .password(password.expose())
            .application_name(application)
            .ssl_mode(SslMode::Disable)
            .connect_timeout(limit);
        if let Way::Tcp { host, port } = &self.address.0 {
            config.host(host).port(*port);
        }
        debug_assert!(
            !matches!(config.get_hosts().first(), Some(Host::Unix(_))),
            "a socket path is trusted as a rule and is never a check"
        );
        config
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "role {} on database {} at {}",
            self.role, self.database, self.address
        )
    }
}

impl ApplicationName {
    /// `keyroll/<rotation>`.
    pub fn of_rotation(rotation: &str) -> Result<Self, InvalidName> {
        let name = format!("keyroll/{rotation}");
        // NAMEDATALEN - 1; other bytes are replaced by '?' (pg_clean_ascii), and then the name would not be found again.
        if rotation.is_empty()
            || name.len() > 63
            || !name.bytes().all(|b| (0x20..0x7f).contains(&b))
        {
            return Err(InvalidName(rotation.to_owned()));
        }
        Ok(Self(name))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_name_that_the_server_would_cut_or_clean_is_refused() {
        assert_eq!(
            ApplicationName::of_rotation("r-1").unwrap().as_str(),
            "keyroll/r-1"
        );
        for bad in ["", "ü", "a\nb", &"x".repeat(56)] {
            assert!(ApplicationName::of_rotation(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_ipv6_address_is_printed_with_brackets() {
        assert_eq!(
            Address::ip("::1".parse().unwrap(), 5432).to_string(),
            "[::1]:5432"
        );
    }

    #[test]
    fn the_clients_settings_do_not_print_the_password() {
        let endpoint = Endpoint {
            address: Address::name("db", 5432),
            database: "panel".into(),
            role: "panel".into(),
        };
        let config = endpoint.config(
            &Secret::new("hunter2-hunter2"),
            "keyroll/x",
            Duration::from_secs(1),
        );
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
