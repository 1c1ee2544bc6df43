//! Webhooks of payment providers, and the settings that hold their secrets.
//!
//! Each secret stands in a row of `"Setting"` and is read at every event, as panels do whose operator changes keys in the
//! browser. A second row, `…_previous`, is accepted beside it: while a provider still signs with the old secret, its events are
//! not lost. An event counts once, however often it is sent. Events of the type `keyroll.probe` are answered and not kept.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

use crate::api::{Failure, Panel};

/// How old an event of Stripe's may be, in seconds; also how far ahead of this clock.
const TOLERANCE: u64 = 300;
/// The type that no handler acts on.
const PROBE: &str = "keyroll.probe";

/// A provider, as its webhooks go.
#[derive(Clone, Copy)]
enum Provider {
    Paystack,
    Flutterwave,
    FlutterwaveV4,
    Stripe,
}

pub(crate) fn routes() -> Router<Arc<Panel>> {
    Router::new().route("/api/webhooks/{provider}", post(receive))
}

impl Provider {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "paystack" => Self::Paystack,
            "flutterwave" => Self::Flutterwave,
            "flutterwave-v4" => Self::FlutterwaveV4,
            "stripe" => Self::Stripe,
            _ => return None,
        })
    }

    /// The setting that holds the secret.
    fn setting(self) -> &'static str {
        match self {
            Self::Paystack => "payments.paystack.secretKey",
            Self::Flutterwave => "payments.flutterwave.webhookHash",
            Self::FlutterwaveV4 => "payments.flutterwaveV4.webhookSecret",
            Self::Stripe => "payments.stripe.webhookSecret",
        }
    }

    /// Whether somebody who knows `secret` sent this.
    fn signed(self, secret: &str, headers: &HeaderMap, body: &[u8], now: u64) -> bool {
        let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
        match self {
            Self::Paystack => header("x-paystack-signature")
                .and_then(unhex)
                .is_some_and(|given| {
                    let mut mac = keyed::<Hmac<Sha512>>(secret);
                    mac.update(body);
                    mac.verify_slice(&given).is_ok()
                }),
            // No signature: the secret itself. Compared as digests, so that the time says nothing of it.
            Self::Flutterwave => header("verif-hash").is_some_and(|given| {
                let digest = |text: &str| {
                    let mut mac = keyed::<Hmac<Sha256>>("compare");
                    mac.update(text.as_bytes());
                    mac.finalize()
                };
                digest(given) == digest(secret)
            }),
            Self::FlutterwaveV4 => header("flutterwave-signature")
                .and_then(|given| STANDARD.decode(given).ok())
                .is_some_and(|given| {
                    let mut mac = keyed::<Hmac<Sha256>>(secret);
                    mac.update(body);
                    mac.verify_slice(&given).is_ok()
                }),
            Self::Stripe => {
                header("stripe-signature").is_some_and(|given| stripe(secret, given, body, now))
            }
        }
    }
}

fn keyed<M: Mac + hmac::digest::KeyInit>(secret: &str) -> M {
    <M as Mac>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
}

/// `t=…,v1=…[,v1=…]`: any of the signatures counts.
fn stripe(secret: &str, given: &str, body: &[u8], now: u64) -> bool {
    let pairs = given
        .split(',')
        .filter_map(|part| part.trim().split_once('='));
    let (times, others): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| *name == "t");
    let Some(at) = times.first().and_then(|(_, text)| text.parse::<u64>().ok()) else {
        return false;
    };
    if at.abs_diff(now) > TOLERANCE {
        return false;
    }
    others
        .iter()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, hex)| unhex(hex))
        .any(|given| {
            let mut mac = keyed::<Hmac<Sha256>>(secret);
            mac.update(format!("{at}.").as_bytes());
            mac.update(body);
            mac.verify_slice(&given).is_ok()
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    bytes.collect()
}

async fn receive(
    State(panel): State<Arc<Panel>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let provider = Provider::named(&name).ok_or(Failure::Unauthorized)?;
    let key = provider.setting();
    // One statement: between two, a rotation could move a value from one row to the other.
    let rows = panel
        .pool
        .query(
            r#"SELECT "value" FROM "Setting" WHERE "key" IN ($1, $2)"#,
            &[&key, &format!("{key}_previous")],
        )
        .await?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let secrets = rows
        .iter()
        .filter_map(|row| row.get::<_, Option<String>>(0));
    let mut secrets = secrets.filter(|secret| !secret.is_empty());
    if !secrets.any(|secret| provider.signed(&secret, &headers, &body, now)) {
        return Err(Failure::Unauthorized);
    }
    let event: Value = serde_json::from_slice(&body)
        .map_err(|_| Failure::Internal("a signed event that is not JSON".to_owned()))?;
    if event["event"] == PROBE || event["type"] == PROBE {
        return Ok(Json(json!({ "probe": true })));
    }
    let id = event["id"].to_string();
    panel
        .pool
        .query(
            r#"INSERT INTO "WebhookEvent" ("provider", "id") VALUES ($1, $2) ON CONFLICT DO NOTHING"#,
            &[&name, &id],
        )
        .await?;
    Ok(Json(json!({ "received": true })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"event":"charge.success","data":{"id":302961}}"#;
    const KEY: &str = "sk_live_0123456789abcdef0123456789abcdef01234567";
    /// Made with Python's `hmac`.
    const PAYSTACK: &str = "0e7cec8f22bcdcee830458f8d6689f4164c6d87394ba2900ff36b68f48aa54044923b90ea64188e99123958bf8ebacbea777e898fc24e73dd8c99197fc04414d";
    const V4: &str = "R22QgfZMTHmCJ719I72kUbGzBL2tmW0nr16Cno9W1tA=";
    const STRIPE: &str = "5fbc8f85604b7b00b4bf4647aa812eec0b31668db2dba9d1852feb78ddae9d2e";

    fn takes(provider: Provider, header: &'static str, value: &str, now: u64) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.parse().unwrap());
        provider.signed(KEY, &headers, BODY, now)
    }

    #[test]
    fn an_event_is_taken_from_who_signed_it_and_from_nobody_else() {
        let stripe = format!("t=1700000000,v1={},v1={STRIPE}", "0".repeat(64));
        for (provider, header, right, wrong) in [
            (Provider::Paystack, "x-paystack-signature", PAYSTACK, "00"),
            (Provider::Flutterwave, "verif-hash", KEY, "sk_live"),
            (Provider::FlutterwaveV4, "flutterwave-signature", V4, KEY),
            (
                Provider::Stripe,
                "stripe-signature",
                &stripe,
                "t=1700000000",
            ),
        ] {
            assert!(takes(provider, header, right, 1_700_000_000), "{header}");
            assert!(!takes(provider, header, wrong, 1_700_000_000), "{header}");
            assert!(!takes(provider, header, "", 1_700_000_000), "{header}");
            assert!(
                !takes(provider, "x-other", right, 1_700_000_000),
                "{header}"
            );
        }
        assert!(!takes(
            Provider::Stripe,
            "stripe-signature",
            &stripe,
            1_700_000_000 + TOLERANCE + 1
        ));
    }
}
