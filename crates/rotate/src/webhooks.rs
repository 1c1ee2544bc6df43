//! Whose events the application takes: probed at its own endpoint, as a provider would send them.
//!
//! The rows say what the application should accept, an event shows what it does: one that keeps its settings in memory goes on
//! refusing the new secret, and taking one that has left its grace window. So an event that no handler acts on is sent with each secret
//! there is, and with a made-up one. It is sent only where the profile names the type of such an event.

use std::time::Duration;

use keyroll_providers::http::Verdict;
use keyroll_providers::payment::{Probe, Scheme};
use keyroll_providers::postgres::Cell;
use keyroll_secret::{Format, Secret};
use tokio::time::{Instant, sleep};

use crate::about::SecretFact;
use crate::panel::Finding;
use crate::profile::WebhookSpec;
use crate::vendor;
use crate::world::{Set, World};

/// For an application that looks at its settings now and then.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(250);

/// A secret, whose it is, and whether an event that is signed with it has to be taken.
struct Signer {
    who: &'static str,
    secret: Secret,
    taken: bool,
}

impl World {
    /// The application takes events that are signed with a value that is in force under this set, or in its grace window, and no others.
    /// Nothing is said of secrets in the settings `edited`.
    pub(crate) async fn prove_webhooks(
        &self,
        set: Set,
        edited: &[String],
    ) -> Result<Vec<String>, Finding> {
        let mut seen = vec![];
        for fact in &self.about.secrets {
            let spec = self.about.profile.secrets.get(&fact.name);
            let webhook = spec.and_then(|s| s.webhook.as_ref());
            let (Some(webhook), Some(scheme)) = (webhook, vendor::scheme(fact.kind)) else {
                continue;
            };
            let own = fact.setting.iter();
            let mut own = own.flat_map(|s| [Some(&s.key), s.previous.as_ref().map(|p| &p.key)]);
            if own.any(|own| edited.iter().any(|key| Some(key) == own)) {
                continue;
            }
            let Some(event) = &webhook.probe_event else {
                seen.push(format!(
                    "{}: no event was sent to {}; the profile names no probe_event",
                    fact.name, webhook.path
                ));
                continue;
            };
            let signers = self.signers(fact, set)?;
            let until = Instant::now() + PATIENCE;
            let line = loop {
                match self.probe(fact, webhook, event, scheme, &signers).await {
                    Err(Finding::Wrong(_) | Finding::Alive(_)) if Instant::now() < until => {
                        sleep(AGAIN).await;
                    }
                    other => break other?,
                }
            };
            seen.push(line);
        }
        Ok(seen)
    }

    fn signers(&self, fact: &SecretFact, set: Set) -> Result<Vec<Signer>, Finding> {
        let unknown = |e: &dyn std::fmt::Display| Finding::Unknown(e.to_string());
        let rows = self.settings_rows();
        let setting = fact.setting.as_ref();
        let keys = setting.map(|s| (&s.key, s.previous.as_ref().map(|p| &p.key)));
        let own = rows.iter().filter(|row| {
            keys.is_some_and(|(key, previous)| row.key == *key || Some(&row.key) == previous)
        });
        let mut accepted: Vec<&Secret> = own
            .filter_map(|row| match row.under(set) {
                Cell::Value(value) if !value.is_empty() => Some(value),
                _ => None,
            })
            .collect();
        let pair = self.pairs.get(&fact.name);
        let pair = pair.ok_or_else(|| unknown(&format!("{} has no values", fact.name)))?;
        if setting.is_none() {
            accepted.push(match set {
                Set::Old => &pair.old,
                Set::New => &pair.new,
            });
        }
        let taken = |secret: &Secret| accepted.iter().any(|a| a.same_as(secret));
        let made_up = Format::default().generate().map_err(|e| unknown(&e))?;
        let (old, new) = if self.about.finalizes {
            ("the previous secret", "the secret in force")
        } else {
            ("the old secret", "the new secret")
        };
        Ok([
            (old, &pair.old),
            (new, &pair.new),
            ("a made-up one", &made_up),
        ]
        .into_iter()
        .map(|(who, secret)| Signer {
            who,
            secret: secret.clone(),
            taken: taken(secret),
        })
        .collect())
    }

    async fn probe(
        &self,
        fact: &SecretFact,
        webhook: &WebhookSpec,
        event: &str,
        scheme: Scheme,
        signers: &[Signer],
    ) -> Result<String, Finding> {
        let panel = self.panel()?;
        let http = self.about.profile.http.as_ref();
        let refused = http.map_or(&[][..], |h| h.refused.as_slice());
        let path = &webhook.path;
        for Signer { who, secret, taken } in signers {
            let probe = Probe {
                path,
                event,
                id: &format!(
                    "keyroll-probe-{}-{}",
                    self.rotation,
                    jiff::Timestamp::now().as_nanosecond()
                ),
                refused,
            };
            let name = &fact.name;
            match (scheme.probe(panel.client(), &probe, secret).await, *taken) {
                (Verdict::Accepted(_), true) | (Verdict::Refused(_), false) => {}
                (Verdict::Accepted(_), false) => {
                    return Err(Finding::Alive(format!(
                        "{name}: {path} takes an event that is signed with {who}"
                    )));
                }
                (Verdict::Refused(status), true) => {
                    return Err(Finding::Wrong(format!(
                        "{name}: {path} refuses an event that is signed with {who} ({status})"
                    )));
                }
                (Verdict::Unknown(why), _) => {
                    return Err(Finding::Unknown(format!("{name}: {path}: {why}")));
                }
            }
        }
        let of = |wanted: bool| {
            let own = signers.iter().filter(|s| s.taken == wanted).map(|s| s.who);
            own.collect::<Vec<_>>().join(" and ")
        };
        Ok(format!(
            "{}: {path} takes events signed with {}, and refuses those signed with {}",
            fact.name,
            of(true),
            of(false)
        ))
    }
}
