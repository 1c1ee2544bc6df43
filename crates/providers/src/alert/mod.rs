//! Alert channels, whose secret is a URL or a token inside one.
//!
//! An alert that is not delivered is missed when it matters, and nobody notices before. So a new endpoint is asked whether it is
//! alive, in a way that posts nothing where people would see it.

mod mail;
mod post;

pub use mail::MailServer;
pub use mail::MailTls;
pub use post::Post;
pub use post::SIGNATURE;

use keyroll_secret::Secret;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::http::{Client, Question, Verdict, answers};

/// A channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertChannel {
    /// An incoming webhook; the secret is its URL. A message without text is refused before it is posted, by whoever knows the webhook
    /// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
    Slack,
    /// A webhook; the secret is its URL, which can also be read
    /// (<https://discord.com/developers/docs/resources/webhook#get-webhook-with-token>).
    Discord,
    /// A bot; the secret is its token (<https://core.telegram.org/bots/api#getme>).
    Telegram,
}

impl AlertChannel {
    /// Where the service is. A client for another place is for tests.
    pub fn api(self) -> &'static str {
        match self {
            Self::Slack => "https://hooks.slack.com",
            Self::Discord => "https://discord.com",
            Self::Telegram => "https://api.telegram.org",
        }
    }

    /// Asks with this secret. Posts nothing; sends one request and takes at most the client's limit.
    pub async fn check(self, client: &Client, secret: &Secret) -> Verdict {
        client.ask(self.question(secret)).await
    }

    fn question(self, secret: &Secret) -> Question<'static> {
        let ask = |path: Secret| Question {
            method: Method::GET,
            path,
            bearer: None,
            json: None,
            header: None,
            form: vec![],
            accepted: |_, _| false,
            refused: &[401, 404],
        };
        match self {
            Self::Slack => Question {
                method: Method::POST,
                json: Some(json!({"text": ""})),
                accepted: |status, body| {
                    status == 400 && ["no_text", "missing_text"].contains(&body.trim())
                },
                refused: &[401, 403, 404, 410],
                ..ask(path_of(secret))
            },
            Self::Discord => Question {
                accepted: |status, body| answers(status, body, "/id", Value::is_string),
                ..ask(path_of(secret))
            },
            Self::Telegram => Question {
                accepted: |status, body| answers(status, body, "/ok", |ok| ok == true),
                ..ask(Secret::new(format!("/bot{}/getMe", secret.expose())))
            },
        }
    }

    /// A secret of the right form that nobody has.
    pub fn wrong(self) -> Secret {
        Secret::new(match self {
            Self::Slack => "https://hooks.slack.com/services/T00000000/B00000000/0".to_owned(),
            Self::Discord => format!("https://discord.com/api/webhooks/1/{}", "0".repeat(68)),
            Self::Telegram => format!("1:{}", "0".repeat(35)),
        })
    }
}

/// The path of a URL that is a secret. A value that is none has been refused by its form before.
fn path_of(url: &Secret) -> Secret {
    let path = Url::parse(url.expose()).map_or_else(|_| "/".to_owned(), |u| u.path().to_owned());
    Secret::new(path)
}
