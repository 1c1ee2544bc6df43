//! Telling people.

use std::fmt::Write as _;

use hmac::{Hmac, Mac as _};
use keyroll_secret::Secret;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sha2::Sha256;

use super::path_of;
use crate::http::{Client, Question, Verdict, answers};

/// The header that holds the signature of a message to a webhook of the operator's own.
pub const SIGNATURE: &str = "x-keyroll-signature";

/// Where a message goes over HTTP. What is secret of it is never told.
#[derive(Debug, Clone)]
pub enum Post {
    /// An incoming webhook of Slack's
    /// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
    Slack {
        /// Its URL.
        url: Secret,
    },
    /// A webhook of Discord's (<https://discord.com/developers/docs/resources/webhook#execute-webhook>).
    Discord {
        /// Its URL.
        url: Secret,
    },
    /// A chat of a Telegram bot (<https://core.telegram.org/bots/api#sendmessage>).
    Telegram {
        /// The bot's token.
        token: Secret,
        /// The chat's id.
        chat: String,
    },
    /// A webhook of the operator's own: JSON with `text` and the given facts. With a key, the raw body's HMAC-SHA256 stands in
    /// [`SIGNATURE`] as `sha256=` and hexadecimal digits.
    Webhook {
        /// Its URL.
        url: Secret,
        /// Signs.
        key: Option<Secret>,
    },
}

impl Post {
    /// Scheme, host and port of where it goes; `None` where its URL is none.
    pub fn origin(&self) -> Option<String> {
        let url = match self {
            Self::Telegram { .. } => return Some("https://api.telegram.org".to_owned()),
            Self::Slack { url } | Self::Discord { url } | Self::Webhook { url, .. } => url,
        };
        let url = Url::parse(url.expose()).ok()?;
        let host = url.host_str()?;
        let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
        matches!(url.scheme(), "http" | "https").then(|| format!("{}://{host}{port}", url.scheme()))
    }

    /// Sends a message, once; takes at most the client's limit. `facts` is a JSON object, for programs.
    pub async fn send(&self, client: &Client, text: &str, facts: &Value) -> Verdict {
        client.ask(self.question(text, facts)).await
    }

    fn question(&self, text: &str, facts: &Value) -> Question<'static> {
        let question = |path: Secret, json: Value| Question {
            method: Method::POST,
            path,
            bearer: None,
            json: Some(json),
            header: None,
            form: vec![],
            accepted: |status, _| (200..300).contains(&status),
            refused: &[400, 401, 403, 404, 410],
        };
        match self {
            Self::Slack { url } => question(path_of(url), json!({"text": text})),
            // Two thousand characters are taken at most.
            Self::Discord { url } => {
                question(path_of(url), json!({"content": shortened(text, 1900)}))
            }
            Self::Telegram { token, chat } => Question {
                accepted: |status, body| answers(status, body, "/ok", |ok| ok == true),
                ..question(
                    Secret::new(format!("/bot{}/sendMessage", token.expose())),
                    json!({"chat_id": chat, "text": shortened(text, 4000)}),
                )
            },
            Self::Webhook { url, key } => {
                let mut body = facts.clone();
                body["text"] = json!(text);
                let header = key.as_ref().map(|key| (SIGNATURE, sign(key, &body)));
                Question {
                    header,
                    ..question(path_of(url), body)
                }
            }
        }
    }
}

/// Of the body as the HTTP client writes it, by the same library.
fn sign(key: &Secret, body: &Value) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(body.to_string().as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    Secret::new(text)
}

fn shortened(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_all_that_is_told_of_a_url() {
        let origin = |url: &str| {
            let url = Secret::new(url);
            Post::Slack { url }.origin()
        };
        assert_eq!(
            origin("https://hooks.slack.com/services/T/B/x").as_deref(),
            Some("https://hooks.slack.com")
        );
        assert_eq!(
            origin("http://127.0.0.1:8080/x").as_deref(),
            Some("http://127.0.0.1:8080")
        );
        assert_eq!(origin("ftp://host/x"), None);
        assert_eq!(origin("no url"), None);
    }
}
