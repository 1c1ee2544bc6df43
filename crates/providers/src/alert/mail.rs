//! Telling people by mail.

use std::path::PathBuf;
use std::time::Duration;

use keyroll_secret::Secret;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::http::authorities;

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte (port 465, RFC 8314).
    Implicit,
    /// STARTTLS, and no mail without it (port 587, RFC 3207).
    StartTls,
    /// None: for a server on this host alone.
    None,
}

/// A mail server that takes messages for delivery.
#[derive(Debug, Clone)]
pub struct MailServer {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The connection.
    pub tls: MailTls,
    /// Trusts the authorities in this PEM file instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Logs in as this user.
    pub login: Option<(String, Secret)>,
}

impl MailServer {
    /// Hands a message over, once; takes at most `limit`. The error says why the server has not taken it, or that it is not known whether it has.
    pub async fn send(
        &self,
        from: &str,
        to: &[String],
        subject: &str,
        text: &str,
        limit: Duration,
    ) -> Result<(), String> {
        let at = format!("mail server {}:{}", self.host, self.port);
        let address = |text: &str| {
            let parsed: Result<Mailbox, _> = text.parse();
            parsed.map_err(|e| format!("{text:?} is no mail address: {e}"))
        };
        let mut message = Message::builder().from(address(from)?).subject(subject);
        for one in to {
            message = message.to(address(one)?);
        }
        let message = message.body(text.to_owned()).map_err(|e| e.to_string())?;
        let tls = match self.tls {
            MailTls::None => Tls::None,
            MailTls::Implicit => Tls::Wrapper(self.trust()?),
            MailTls::StartTls => Tls::Required(self.trust()?),
        };
        let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(limit));
        if let Some((user, password)) = &self.login {
            let password = password.expose().to_owned();
            server = server.credentials(Credentials::new(user.clone(), password));
        }
        let sent = tokio::time::timeout(limit, server.build().send(message)).await;
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{at}: {error}")),
            Err(_) => Err(format!("{at}: no answer within {limit:?}")),
        }
    }

    fn trust(&self) -> Result<TlsParameters, String> {
        let path = authorities(self.ca_file.as_deref()).map_err(|e| e.to_string())?;
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let pem = std::fs::read(&path).map_err(|e| failed(&e))?;
        let roots = Certificate::from_pem(&pem).map_err(|e| failed(&e))?;
        TlsParameters::builder(self.host.clone())
            .certificate_store(CertificateStore::None)
            .add_root_certificate(roots)
            .build()
            .map_err(|e| failed(&e))
    }
}
