//! Telling people what happened while nobody was there.
//!
//! Nothing depends on it: a receiver that is away costs some seconds and a line, and never changes how a rotation ended. A message holds names, fingerprints and
//! times, no value; what is secret of an endpoint stands in a file, and is never told, its errors included.

use std::path::Path;
use std::time::Duration;

use keyroll_providers::alert::{MailServer, MailTls, Post};
use keyroll_providers::http::{Client, Tls, Verdict};
use keyroll_secret::Secret;
use serde_json::Value;
use tokio::time::sleep;

use crate::operations::Keyroll;
use crate::profile::{AlertSpec, MailTlsSpec};

/// Time for one try.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses between tries; a receiver that says no is not asked again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Why one try came to nothing.
enum NotSent {
    /// Another try would come to the same.
    Refused(String),
    /// It may go better later. It may have arrived.
    Unknown(String),
}

impl Keyroll {
    /// Tells every endpoint of the profile, side by side, each with up to three tries. The answer has a line for each that was not reached. Takes at most 35 s.
    pub async fn alert(&self, subject: &str, text: &str, facts: &Value) -> Vec<String> {
        let all = self.profile().alerts.iter().map(async |(name, spec)| {
            let told = tell(spec, subject, text, facts).await;
            told.err()
                .map(|why| format!("alert {name} was not delivered: {why}"))
        });
        let done = futures_util::future::join_all(all).await;
        done.into_iter().flatten().collect()
    }
}

async fn tell(spec: &AlertSpec, subject: &str, text: &str, facts: &Value) -> Result<(), String> {
    let mut pauses = PAUSES.iter();
    loop {
        let why = match once(spec, subject, text, facts).await {
            Ok(()) => return Ok(()),
            Err(NotSent::Refused(why)) => return Err(why),
            Err(NotSent::Unknown(why)) => why,
        };
        match pauses.next() {
            Some(pause) => sleep(*pause).await,
            None => return Err(format!("{why}; tried {} times", PAUSES.len() + 1)),
        }
    }
}

async fn once(spec: &AlertSpec, subject: &str, text: &str, facts: &Value) -> Result<(), NotSent> {
    let post = match spec {
        AlertSpec::Slack { url_file } => Post::Slack {
            url: read(url_file)?,
        },
        AlertSpec::Discord { url_file } => Post::Discord {
            url: read(url_file)?,
        },
        AlertSpec::Telegram { token_file, chat } => Post::Telegram {
            token: read(token_file)?,
            chat: chat.clone(),
        },
        AlertSpec::Webhook {
            url_file,
            hmac_file,
        } => Post::Webhook {
            url: read(url_file)?,
            key: hmac_file.as_deref().map(read).transpose()?,
        },
        mail @ AlertSpec::Mail { .. } => return by_mail(mail, subject, text).await,
    };
    let origin = post.origin();
    let origin =
        origin.ok_or_else(|| NotSent::Refused("its file holds no http or https URL".into()))?;
    let client = Client::new(&origin, &Tls::default(), LIMIT);
    let client = client.map_err(|e| NotSent::Refused(e.to_string()))?;
    match post
        .send(&client, &format!("{subject}\n{text}"), facts)
        .await
    {
        Verdict::Accepted(_) => Ok(()),
        Verdict::Refused(status) => Err(NotSent::Refused(format!(
            "{origin} refused it (HTTP {status})"
        ))),
        Verdict::Unknown(why) => Err(NotSent::Unknown(format!("{origin}: {why}"))),
    }
}

async fn by_mail(spec: &AlertSpec, subject: &str, text: &str) -> Result<(), NotSent> {
    let AlertSpec::Mail {
        host,
        port,
        tls,
        ca_file,
        user,
        password_file,
        from,
        to,
    } = spec
    else {
        return Ok(());
    };
    let password = password_file.as_deref().map(read).transpose()?;
    let server = MailServer {
        host: host.clone(),
        port: *port,
        tls: match tls {
            MailTlsSpec::Implicit => MailTls::Implicit,
            MailTlsSpec::Starttls => MailTls::StartTls,
            MailTlsSpec::None => MailTls::None,
        },
        ca_file: ca_file.clone(),
        login: user.clone().zip(password),
    };
    let sent = server.send(from, to, subject, text, LIMIT).await;
    sent.map_err(NotSent::Unknown)
}

/// The first line of a file.
fn read(path: &Path) -> Result<Secret, NotSent> {
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.map_err(|e| NotSent::Refused(format!("{}: {e}", path.display())))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(NotSent::Refused(format!("{}: is empty", path.display())));
    }
    Ok(Secret::new(line))
}
