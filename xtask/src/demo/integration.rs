//! The second act: the runbook's commands, on secrets that providers make.

use std::ffi::OsString;
use std::process::Command;

use keyroll_providers::payment::Scheme;
use keyroll_sandbox_providers::Providers;
use keyroll_secret::{Format, Secret};
use keyroll_testkit::{Keyroll, Stack, TestkitError};

use super::{ended, heading};
use crate::Result;
use crate::shell::chain;

const PAYSTACK: &str = "payments.paystack.secretKey";
const HASH: &str = "payments.flutterwave.webhookHash";
const PROXMOX: &str = "proxmox.tokenSecret";
/// What the runbook writes in the place of values.
const WORDS: [&str; 3] = ["new_token_secret", "new_paystack_secret", "new_hash"];

/// Shows it. True when all is as it should be.
pub(super) async fn show(stack: &Stack, keyroll: &Keyroll) -> Result<bool> {
    heading("Second act: secrets that providers make");
    let shop = Shop::open(stack).await?;
    let mut settings: Vec<OsString> = keyroll.stack_arguments(stack);
    settings.extend(shop.settings.iter().map(OsString::from));
    println!("$ keyroll install-scripts");
    let installed = keyroll
        .command(["install-scripts"])
        .args(&settings)
        .status();
    ended(installed.map_err(|e| e.to_string())?, &["install-scripts"])?;

    let script = |title: &str, arguments: &[&str], values: &[&Secret]| -> Result<()> {
        heading(title);
        let path = stack.root().join("infra/deploy").join(arguments[0]);
        let shown: Vec<String> = arguments[1..]
            .iter()
            .map(|word| {
                if WORDS.contains(word) {
                    format!("'{word}'")
                } else {
                    (*word).to_owned()
                }
            })
            .collect();
        println!("$ sudo bash {} {}", path.display(), shown.join(" "));
        let mut command = Command::new("bash");
        command.arg(path);
        for word in &arguments[1..] {
            match WORDS.iter().position(|w| w == word) {
                Some(at) => command.arg(values[at].expose()),
                None => command.arg(word),
            };
        }
        ended(
            command.status().map_err(|e| e.to_string())?,
            &arguments[..1],
        )
    };
    println!("\nThe words in quotes stand for values that were just made for this demo.");
    script(
        "The production secrets, by the runbook",
        &["rotate-production-secrets.sh"],
        &[],
    )?;
    let [token, key, hash] = &shop.new;
    script(
        "Three integration secrets, one rotation",
        &[
            "rotate-integration-secrets.sh",
            "--proxmox-token-secret",
            WORDS[0],
            "--paystack-secret",
            WORDS[1],
            "--flutterwave-webhook-hash",
            WORDS[2],
        ],
        &[token, key, hash],
    )?;
    let in_grace = shop
        .seen("in the grace window", true)
        .await
        .map_err(|e| chain(&e))?;
    script(
        "The providers have cut over",
        &[
            "rotate-integration-secrets.sh",
            "--finalize-payment-webhook-grace",
        ],
        &[],
    )?;
    let after = shop.seen("after it", false).await.map_err(|e| chain(&e))?;
    Ok(in_grace && after)
}

struct Shop<'a> {
    stack: &'a Stack,
    /// Where the simulated providers are.
    settings: Vec<String>,
    /// Paystack's key and Flutterwave's hash before.
    old: [Secret; 2],
    /// The token, the key and the hash to come.
    new: [Secret; 3],
    providers: Providers,
}

impl<'a> Shop<'a> {
    async fn open(stack: &'a Stack) -> Result<Self> {
        let hex = || -> Result<String> {
            let format =
                Format::new(keyroll_secret::Alphabet::Hex, 40).map_err(|e| e.to_string())?;
            let made = format.generate().map_err(|e| e.to_string())?;
            Ok(made.expose().to_owned())
        };
        let key = || -> Result<Secret> { Ok(Secret::new(format!("sk_live_{}", hex()?))) };
        let uuid = hex()?;
        let parts = [
            &uuid[..8],
            &uuid[8..12],
            &uuid[12..16],
            &uuid[16..20],
            &uuid[20..32],
        ];
        let shop = Self {
            stack,
            settings: vec![],
            old: [key()?, Secret::new(hex()?)],
            new: [Secret::new(parts.join("-")), key()?, Secret::new(hex()?)],
            providers: Providers::new(),
        };
        shop.begin().await
    }

    /// The providers know the new values, the panel has the old ones.
    async fn begin(mut self) -> Result<Self> {
        let url = self.providers.serve().await.map_err(|e| e.to_string())?;
        for text in [
            format!("secrets.PROXMOX_TOKEN_SECRET.api.base_url={url}"),
            format!("secrets.PAYSTACK_SECRET.api.base_url={url}"),
            "secrets.PAYSTACK_SECRET.webhook.probe_event=keyroll.probe".to_owned(),
            "secrets.FLUTTERWAVE_WEBHOOK_HASH.webhook.probe_event=keyroll.probe".to_owned(),
        ] {
            self.settings.extend(["--set".to_owned(), text]);
        }
        {
            let mut known = self.providers.known();
            known.alive.insert(self.new[1].expose().to_owned());
            let token = self.new[0].expose();
            let proxmox = &mut known.proxmox;
            proxmox.add_token("proxpanel@pve", "panel", token, "PVEVMAdmin");
        }
        let old_token = Secret::new("00000000-1111-4222-8333-444444444444");
        for (key, value) in [
            (PROXMOX, &old_token),
            (PAYSTACK, &self.old[0]),
            (HASH, &self.old[1]),
        ] {
            let sql = format!(
                r#"INSERT INTO "Setting" ("key", "value") VALUES ('{key}', '{}')"#,
                value.expose()
            );
            self.stack.sql(&sql).await.map_err(|e| chain(&e))?;
        }
        Ok(self)
    }

    /// Sends an event with each secret, as the providers do.
    async fn seen(&self, when: &str, old_too: bool) -> std::result::Result<bool, TestkitError> {
        heading(&format!("Seen from outside, {when}"));
        let panel = self.stack.panel()?;
        let mut all_well = true;
        let made_up = Secret::new("nobody's secret of this demo");
        for (scheme, path, old, new) in [
            (Scheme::Paystack, "paystack", &self.old[0], &self.new[1]),
            (
                Scheme::FlutterwaveV3,
                "flutterwave",
                &self.old[1],
                &self.new[2],
            ),
        ] {
            for (who, secret, taken) in [
                ("new", new, true),
                ("old", old, old_too),
                ("a forged", &made_up, false),
            ] {
                let body = format!(r#"{{"event":"charge.success","id":"{who} {path} {when}"}}"#);
                let signed = scheme.sign(secret, body.as_bytes(), 0);
                let path = format!("/api/webhooks/{path}");
                let status = panel
                    .event(&path, (signed.header, &signed.value), &body)
                    .await?;
                let well = status == if taken { 200 } else { 401 };
                let mark = if well { "ok " } else { "BAD" };
                let what = format!("{path}, signed with {who} secret");
                println!("{mark} {what:<58} {status}");
                all_well &= well;
            }
        }
        Ok(all_well)
    }
}
