//! What is known of each kind of secret that another company makes: its form, and how the company is asked whether it is alive.
//!
//! A wrong key is noticed when the first payment is lost. So before a new one is put in force its maker is asked, and first whether it
//! refuses a made-up one: who accepts everything has not looked. Who cannot be reached has said nothing, and that is no refusal.

use std::time::Duration;

use keyroll_providers::alert::AlertChannel;
use keyroll_providers::http::{Client, Fingerprint, HttpUnknown, Tls, Verdict};
use keyroll_providers::payment::{PaymentKey, Scheme, SecretForm};
use keyroll_providers::proxmox::{Proxmox, Token};
use keyroll_secret::Secret;

use crate::error::{Code, Refusal};
use crate::profile::{ApiSpec, SecretKind, SecretSpec};

/// A token's value that no server has given.
const NO_TOKEN: &str = "00000000-0000-4000-8000-000000000000";

/// What a value must look like; `None` for kinds that keyroll makes itself.
pub(crate) fn form(kind: SecretKind) -> Option<SecretForm> {
    Some(match kind {
        SecretKind::PaystackKey => SecretForm::Paystack,
        SecretKind::FlutterwaveKey => SecretForm::FlutterwaveV3,
        SecretKind::StripeKey => SecretForm::Stripe,
        SecretKind::StripeWebhookSecret => SecretForm::StripeWebhook,
        SecretKind::ProxmoxToken => SecretForm::Uuid,
        SecretKind::SlackUrl | SecretKind::DiscordUrl => SecretForm::Url,
        SecretKind::FlutterwaveWebhookHash
        | SecretKind::FlutterwaveClientSecret
        | SecretKind::FlutterwaveWebhookSecret
        | SecretKind::TelegramToken => SecretForm::Any,
        SecretKind::AccessTokenKey
        | SecretKind::RefreshTokenKey
        | SecretKind::PostgresPassword
        | SecretKind::AdminPassword
        | SecretKind::Environment => return None,
    })
}

/// How events are signed with it, if any are.
pub(crate) fn scheme(kind: SecretKind) -> Option<Scheme> {
    Some(match kind {
        SecretKind::PaystackKey => Scheme::Paystack,
        SecretKind::FlutterwaveWebhookHash => Scheme::FlutterwaveV3,
        SecretKind::FlutterwaveWebhookSecret => Scheme::FlutterwaveV4,
        SecretKind::StripeWebhookSecret => Scheme::Stripe,
        _ => return None,
    })
}

/// Whom to ask with one request.
enum Maker {
    Payments(PaymentKey),
    Alerts(AlertChannel),
}

impl Maker {
    fn api(&self) -> &'static str {
        match self {
            Self::Payments(key) => key.api(),
            Self::Alerts(channel) => channel.api(),
        }
    }

    fn made_up(&self) -> Secret {
        match self {
            Self::Payments(key) => key.wrong(),
            Self::Alerts(channel) => channel.wrong(),
        }
    }

    async fn check(&self, client: &Client, value: &Secret) -> Verdict {
        match self {
            Self::Payments(key) => key.check(client, value).await,
            Self::Alerts(channel) => channel.check(client, value).await,
        }
    }
}

fn maker(kind: SecretKind, id: &str) -> Option<Maker> {
    Some(match kind {
        SecretKind::PaystackKey => Maker::Payments(PaymentKey::Paystack),
        SecretKind::FlutterwaveKey => Maker::Payments(PaymentKey::FlutterwaveV3),
        SecretKind::FlutterwaveClientSecret => Maker::Payments(PaymentKey::FlutterwaveV4 {
            client_id: id.to_owned(),
        }),
        SecretKind::StripeKey => Maker::Payments(PaymentKey::Stripe),
        SecretKind::SlackUrl => Maker::Alerts(AlertChannel::Slack),
        SecretKind::DiscordUrl => Maker::Alerts(AlertChannel::Discord),
        SecretKind::TelegramToken => Maker::Alerts(AlertChannel::Telegram),
        _ => return None,
    })
}

/// Whose secrets the old and the new value are, where it is not the id in the profile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ids<'a> {
    pub(crate) old: Option<&'a str>,
    pub(crate) new: Option<&'a str>,
}

fn tls(api: &ApiSpec) -> Tls {
    let pins = api.fingerprints.iter();
    Tls {
        ca_file: api.ca_file.clone(),
        pins: pins
            .filter_map(|text| text.parse::<Fingerprint>().ok())
            .collect(),
        connect_to: None,
    }
}

/// The API of the node that a token is of.
pub(crate) fn proxmox(spec: &SecretSpec, limit: Duration) -> Result<Proxmox, String> {
    let api = spec.api.as_ref().ok_or("the profile has no api")?;
    let base_url = api.base_url.as_deref().unwrap_or_default();
    Proxmox::new(base_url, &tls(api), limit).map_err(|e| e.to_string())
}

/// A new value, shown to be alive by its maker; what was seen. `None` for kinds that nobody can be asked about. Changes nothing, and takes
/// at most `limit` for each of up to four requests.
pub(crate) async fn validate(
    name: &str,
    spec: &SecretSpec,
    ids: Ids<'_>,
    old: &Secret,
    new: &Secret,
    limit: Duration,
) -> Result<Option<String>, Refusal> {
    let nothing = ApiSpec::default();
    let api = spec.api.as_ref().unwrap_or(&nothing);
    let id = api.id.as_deref().unwrap_or_default();
    let profile = |e: &dyn std::fmt::Display| {
        let next = format!("mend [secrets.{name}.api] in the profile");
        Refusal::new(Code::Provider, format!("{name}: {e}"), next)
    };
    let asks = |own| Asks {
        name,
        base_url: api.base_url.as_deref().unwrap_or(own),
    };
    if spec.kind == SecretKind::ProxmoxToken {
        let proxmox = proxmox(spec, limit).map_err(|e| profile(&e))?;
        let token = |full: Option<&str>, value: &Secret| {
            let parts = full.unwrap_or(id).split_once('!');
            let (user, id) = parts.ok_or_else(|| profile(&"the id is not user@realm!name"))?;
            Ok::<_, Refusal>(Token {
                user: user.to_owned(),
                id: id.to_owned(),
                value: value.clone(),
            })
        };
        let (old, new) = (token(ids.old, old)?, token(ids.new, new)?);
        return asks("").proxmox(&proxmox, old, new).await.map(Some);
    }
    let Some(maker) = maker(spec.kind, id) else {
        return Ok(None);
    };
    let asks = asks(maker.api());
    let client = Client::new(asks.base_url, &tls(api), limit).map_err(|e| profile(&e))?;
    asks.made_up_is_refused(maker.check(&client, &maker.made_up()).await)?;
    asks.new_is_accepted(maker.check(&client, new).await)?;
    Ok(Some(format!(
        "{} accepts the new value of {name}, and refuses a made-up one",
        asks.base_url
    )))
}

struct Asks<'a> {
    name: &'a str,
    base_url: &'a str,
}

impl Asks<'_> {
    fn refusal(&self, code: Code, what: &str, next: &str) -> Refusal {
        Refusal::new(
            code,
            format!("{}: {} {what}", self.name, self.base_url),
            next,
        )
    }

    fn unknown(&self, why: &HttpUnknown) -> Refusal {
        self.refusal(
            Code::Provider,
            &format!("said neither yes nor no: {why}"),
            "try again when it can be reached; on a host that cannot reach it, --skip-validation goes on without (recorded)",
        )
    }

    fn made_up_is_refused(&self, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Refused(_) => Ok(()),
            Verdict::Unknown(why) => Err(self.unknown(&why)),
            Verdict::Accepted(_) => Err(self.refusal(
                Code::Vacuous,
                "accepts a value that was just made up, so its yes proves nothing",
                "is something else at this address? see the secret's [api] in the profile",
            )),
        }
    }

    fn new_is_accepted(&self, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Accepted(_) => Ok(()),
            Verdict::Unknown(why) => Err(self.unknown(&why)),
            Verdict::Refused(status) => Err(self.refusal(
                Code::Value,
                &format!("refuses the new value (HTTP {status})"),
                "copy it from the provider again; it may be another account's, or not active yet",
            )),
        }
    }

    async fn proxmox(&self, proxmox: &Proxmox, old: Token, new: Token) -> Result<String, Refusal> {
        let made_up = Token {
            value: Secret::new(NO_TOKEN),
            ..new.clone()
        };
        self.made_up_is_refused(proxmox.accepts(&made_up).await)?;
        self.new_is_accepted(proxmox.accepts(&new).await)?;
        let failed = |e: keyroll_providers::proxmox::ProxmoxError| {
            self.refusal(
                Code::Provider,
                &format!("did not tell its rights: {e}"),
                "see the message",
            )
        };
        // Whoever is authenticated may ask for the version; only its rights make a token useful.
        let rights = proxmox.permissions(&new).await.map_err(failed)?;
        if rights.is_empty() {
            return Err(self.refusal(
                Code::Value,
                "accepts the new token, which has no right to anything",
                "give it the permissions of the old one, or take privilege separation off it",
            ));
        }
        // A token that was given another value has none of its own any more.
        let lacking = match proxmox.accepts(&old).await {
            Verdict::Accepted(_) => {
                let before = proxmox.permissions(&old).await.map_err(failed)?;
                rights.lacking(&before)
            }
            Verdict::Refused(_) => vec![],
            Verdict::Unknown(why) => return Err(self.unknown(&why)),
        };
        if !lacking.is_empty() {
            return Err(self.refusal(
                Code::Value,
                &format!(
                    "accepts the new token, which cannot do what the old one can: {}",
                    lacking.join(", ")
                ),
                "give it the permissions of the old one",
            ));
        }
        Ok(format!(
            "{} accepts the new value of {}, which can do what the old one could, and refuses a made-up one",
            self.base_url, self.name
        ))
    }
}
