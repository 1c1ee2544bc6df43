//! Asking a provider whether a key is alive.

use keyroll_secret::Secret;
use reqwest::Method;

use crate::http::{Client, Question, Verdict, answers};

/// A key of a payment provider's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentKey {
    /// Paystack's secret key, which also signs its webhooks (<https://paystack.com/docs/api/>).
    Paystack,
    /// Flutterwave's secret key for version 3 of its API (<https://developer.flutterwave.com/v3.0/docs/authentication>).
    FlutterwaveV3,
    /// Flutterwave's client secret for version 4: it gets tokens that live ten minutes
    /// (<https://developer.flutterwave.com/docs/authentication>).
    FlutterwaveV4 {
        /// The client it belongs to; not secret.
        client_id: String,
    },
    /// Stripe's secret or restricted key (<https://docs.stripe.com/keys>).
    Stripe,
}

impl PaymentKey {
    /// Where the provider's API is. A client for another place is for tests.
    pub fn api(&self) -> &'static str {
        match self {
            Self::Paystack => "https://api.paystack.co",
            Self::FlutterwaveV3 => "https://api.flutterwave.com",
            Self::FlutterwaveV4 { .. } => "https://idp.flutterwave.com",
            Self::Stripe => "https://api.stripe.com",
        }
    }

    /// Asks with this key. Changes nothing at the provider; sends one request and takes at most the client's limit.
    pub async fn check(&self, client: &Client, key: &Secret) -> Verdict {
        let question = match self {
            Self::Paystack => get("/balance", key, |status, body| {
                answers(status, body, "/status", |v| v == true)
            }),
            Self::FlutterwaveV3 => get("/v3/balances", key, |status, body| {
                answers(status, body, "/status", |v| v == "success")
            }),
            Self::FlutterwaveV4 { client_id } => {
                Question {
                    method: Method::POST,
                    path: Secret::new("/realms/flutterwave/protocol/openid-connect/token"),
                    bearer: None,
                    json: None,
                    header: None,
                    form: vec![
                        ("client_id", Secret::new(client_id.clone())),
                        ("client_secret", key.clone()),
                        ("grant_type", Secret::new("client_credentials")),
                    ],
                    accepted: |status, body| {
                        answers(status, body, "/access_token", serde_json::Value::is_string)
                    },
                    // RFC 6749, section 5.2: `invalid_client` is 400 or 401.
                    refused: &[400, 401],
                }
            }
            Self::Stripe => get("/v1/balance", key, |status, body| {
                // 403: the key is alive and has no right to this.
                status == 403 || answers(status, body, "/object", serde_json::Value::is_string)
            }),
        };
        client.ask(question).await
    }

    /// A key of the right form that nobody has: what refuses it does look at keys (a negative control).
    pub fn wrong(&self) -> Secret {
        Secret::new(match self {
            Self::Paystack => format!("sk_live_{}", "0".repeat(40)),
            Self::FlutterwaveV3 => format!("FLWSECK-{}-X", "0".repeat(32)),
            Self::FlutterwaveV4 { .. } => "0".repeat(32),
            Self::Stripe => format!("rk_live_{}", "0".repeat(99)),
        })
    }
}

fn get<'a>(path: &str, key: &'a Secret, accepted: fn(u16, &str) -> bool) -> Question<'a> {
    Question {
        method: Method::GET,
        path: Secret::new(path),
        bearer: Some(key),
        json: None,
        header: None,
        form: vec![],
        accepted,
        refused: &[401],
    }
}
