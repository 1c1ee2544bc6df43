//! Providers beside a stack: they know which keys are alive, and send events.
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part"
)]

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use keyroll_providers::payment::Scheme;
use keyroll_sandbox_providers::Providers;
use keyroll_secret::Secret;
use keyroll_testkit::{Panel, Run, TestkitError};

use crate::common::{Bench, Moment};

/// An endpoint of the panel's for events.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint {
    Paystack,
    Flutterwave,
    FlutterwaveV4,
    Stripe,
}

impl Endpoint {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Paystack => "/api/webhooks/paystack",
            Self::Flutterwave => "/api/webhooks/flutterwave",
            Self::FlutterwaveV4 => "/api/webhooks/flutterwave-v4",
            Self::Stripe => "/api/webhooks/stripe",
        }
    }

    pub(crate) fn scheme(self) -> Scheme {
        match self {
            Self::Paystack => Scheme::Paystack,
            Self::Flutterwave => Scheme::FlutterwaveV3,
            Self::FlutterwaveV4 => Scheme::FlutterwaveV4,
            Self::Stripe => Scheme::Stripe,
        }
    }
}

/// Payment providers, and the panel's settings about them.
pub(crate) struct Shop<'a> {
    bench: &'a Bench,
    pub(crate) providers: Providers,
    /// Says where the providers are, and what events mean nothing.
    settings: Vec<String>,
    sent: AtomicU64,
}

impl<'a> Shop<'a> {
    /// Three keys of each provider are alive.
    pub(crate) async fn open(bench: &'a Bench) -> Self {
        let providers = Providers::new();
        let url = providers.serve().await.unwrap();
        let mut settings = vec![];
        let mut set = |text: String| settings.extend(["--set".to_owned(), text]);
        for secret in ["PAYSTACK_SECRET", "FLUTTERWAVE_SECRET", "STRIPE_SECRET"] {
            set(format!("secrets.{secret}.api.base_url={url}"));
        }
        set(format!("secrets.PROXMOX_TOKEN_SECRET.api.base_url={url}"));
        for secret in [
            "PAYSTACK_SECRET",
            "FLUTTERWAVE_WEBHOOK_HASH",
            "STRIPE_WEBHOOK_SECRET",
        ] {
            set(format!(
                "secrets.{secret}.webhook.probe_event=keyroll.probe"
            ));
        }
        let shop = Self {
            bench,
            providers,
            settings,
            sent: AtomicU64::new(0),
        };
        let alive = (1..=3).map(Self::key);
        shop.providers.known().alive.extend(alive);
        let secret = Self::webhook_secret(1);
        shop.has("payments.stripe.webhookSecret", &secret).await;
        shop
    }

    /// The `n`th key of Paystack's.
    pub(crate) fn key(n: u32) -> String {
        format!("sk_live_{}", n.to_string().repeat(40))
    }

    /// The `n`th signing secret of Stripe's.
    pub(crate) fn webhook_secret(n: u32) -> String {
        format!("whsec_{}", n.to_string().repeat(32))
    }

    /// A setting of the panel's.
    pub(crate) async fn has(&self, key: &str, value: &str) {
        let sql = format!(
            "INSERT INTO \"Setting\" (\"key\", \"value\") VALUES ('{key}', '{value}')
             ON CONFLICT (\"key\") DO UPDATE SET \"value\" = excluded.\"value\""
        );
        self.bench.stack.sql(&sql).await.unwrap();
    }

    /// What a setting holds now; nothing where there is no row, or no value in it.
    pub(crate) async fn row(&self, key: &str) -> Option<String> {
        let sql = format!(
            "SELECT \"value\" FROM \"Setting\" WHERE \"key\" = '{key}' AND \"value\" IS NOT NULL"
        );
        let rows = self.bench.stack.sql(&sql).await.unwrap();
        rows.into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
    }

    /// A command that knows where the providers are.
    pub(crate) fn with<'s>(&'s self, command: &[&'s str], more: &[&'s str]) -> Vec<&'s str> {
        let settings = self.settings.iter().map(String::as_str);
        let all = command.iter().copied();
        all.chain(settings).chain(more.iter().copied()).collect()
    }

    /// Rotates these secrets to these values, which are given in files.
    pub(crate) async fn rotate(&self, values: &[(&str, &str)], more: &[&str]) -> Run {
        let command = self.command(values, more);
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.bench.run(&words).await
    }

    /// The same, and does things on the way.
    pub(crate) async fn interfere(&self, values: &[(&str, &str)], moments: Vec<Moment<'_>>) -> Run {
        let command = self.command(values, &[]);
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.bench.interfere(&words, moments).await
    }

    pub(crate) fn command(&self, values: &[(&str, &str)], more: &[&str]) -> Vec<String> {
        let mut command = vec!["rotate".to_owned(), "--yes".to_owned()];
        for (name, value) in values {
            let file = self.bench.home(&format!("{name}.value"));
            fs::write(&file, format!("{value}\n")).unwrap();
            let given = format!("{name}={}", file.display());
            command.extend([(*name).to_owned(), "--value-file".to_owned(), given]);
        }
        command.extend(self.settings.iter().cloned());
        command.extend(more.iter().map(|&word| word.to_owned()));
        command
    }

    /// Sends an event that nobody has sent before; the status of the answer.
    pub(crate) async fn sends(&self, to: Endpoint, secret: &str) -> u16 {
        let n = self.sent.fetch_add(1, Ordering::SeqCst);
        self.send(to, secret, &format!("once-{n}")).await
    }

    /// Sends an event of this id.
    pub(crate) async fn send(&self, to: Endpoint, secret: &str, id: &str) -> u16 {
        self.sender().send(to, secret, id).await.unwrap()
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender(self.bench.panel.clone())
    }
}

/// Somebody who sends events, genuine or not.
pub(crate) struct Sender(Panel);

impl Sender {
    /// Sends an event of this id, signed now; the status of the answer.
    pub(crate) async fn send(
        &self,
        to: Endpoint,
        secret: &str,
        id: &str,
    ) -> Result<u16, TestkitError> {
        let body = format!(r#"{{"event":"charge.success","id":"{id}"}}"#);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let secret = Secret::new(secret);
        let signed = to.scheme().sign(&secret, body.as_bytes(), now.as_secs());
        let header = (signed.header, &signed.value);
        self.0.event(to.path(), header, &body).await
    }
}
