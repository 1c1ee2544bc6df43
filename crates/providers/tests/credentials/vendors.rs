//! Payment keys and alert channels, against providers in the test's own process.

use keyroll_providers::alert::AlertChannel;
use keyroll_providers::http::{Client, HttpUnknown, Tls, Verdict};
use keyroll_providers::payment::PaymentKey;
use keyroll_sandbox_providers::{Fault, Providers};
use keyroll_secret::Secret;

use crate::{LIMIT, Sat, faults};

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) enum Vendor {
    Payment(PaymentKey),
    Alert(AlertChannel),
}

/// Who is asked about what.
pub(crate) struct Asked {
    pub(crate) vendor: Vendor,
    secret: Secret,
    /// What the vendor knows of it.
    known: String,
}

impl Vendor {
    async fn check(&self, client: &Client, secret: &Secret) -> Verdict {
        match self {
            Self::Payment(key) => key.check(client, secret).await,
            Self::Alert(channel) => channel.check(client, secret).await,
        }
    }

    fn wrong(&self) -> Secret {
        match self {
            Self::Payment(key) => key.wrong(),
            Self::Alert(channel) => channel.wrong(),
        }
    }
}

/// Every vendor, with a secret.
pub(crate) fn all() -> Vec<Asked> {
    let forty = "a1".repeat(20);
    let v4 = PaymentKey::FlutterwaveV4 {
        client_id: "client".into(),
    };
    let payment = |key: PaymentKey, secret: String| Asked {
        vendor: Vendor::Payment(key),
        known: secret.clone(),
        secret: Secret::new(secret),
    };
    let alert = |channel, site: &str, known: &str| Asked {
        vendor: Vendor::Alert(channel),
        known: known.to_owned(),
        secret: Secret::new(format!("{site}{known}")),
    };
    vec![
        payment(PaymentKey::Paystack, format!("sk_live_{forty}")),
        payment(PaymentKey::FlutterwaveV3, format!("FLWSECK-{forty}-X")),
        payment(v4, format!("&=+% {forty}")),
        payment(PaymentKey::Stripe, format!("sk_live_{forty}")),
        alert(
            AlertChannel::Slack,
            "https://hooks.slack.com",
            "/services/T1/B1/a1a1y2",
        ),
        alert(
            AlertChannel::Discord,
            "https://discord.com",
            "/api/webhooks/77/a1a1y2",
        ),
        alert(AlertChannel::Telegram, "", "77:a1a1y2"),
    ]
}

async fn providers() -> (Providers, Client) {
    let providers = Providers::new();
    let url = providers.serve().await.unwrap();
    let client = Client::new(&url, &Tls::default(), LIMIT).unwrap();
    (providers, client)
}

/// The exam.
pub(crate) async fn sits(asked: Asked) -> Option<Sat> {
    let (providers, client) = providers().await;
    let (vendor, secret) = (asked.vendor, asked.secret);
    providers.known().alive.insert(asked.known);
    let right = vendor.check(&client, &secret).await.into();
    let wrong = vendor.check(&client, &vendor.wrong()).await.into();
    let mut unwell = vec![];
    for fault in faults() {
        providers.known().fault = Some(fault.clone());
        let answer = vendor.check(&client, &secret).await;
        unwell.push((format!("{fault:?}"), answer.into()));
    }
    Some(Sat {
        right,
        wrong,
        unwell,
    })
}

#[tokio::test]
async fn one_question_is_asked_nobody_sees_a_message_and_a_revoked_secret_is_dead() {
    for asked in all() {
        let (providers, client) = providers().await;
        providers.known().alive.insert(asked.known);
        let vendor = asked.vendor;
        let right = vendor.check(&client, &asked.secret).await;
        assert!(
            matches!(right, Verdict::Accepted(_)),
            "{vendor:?}: {right:?}"
        );
        providers.known().alive.clear();
        let dead = vendor.check(&client, &asked.secret).await;
        assert!(
            matches!(dead, Verdict::Refused(401 | 404)),
            "{vendor:?}: {dead:?}"
        );
        assert_eq!(providers.known().posted, 0, "{vendor:?}");
        assert_eq!(providers.known().asked.len(), 2, "{vendor:?}");
    }
}

#[tokio::test]
async fn a_secret_goes_nowhere_else_and_is_not_told() {
    for asked in all() {
        let (providers, client) = providers().await;
        let (elsewhere, _) = self::providers().await;
        let other = elsewhere.serve().await.unwrap();
        let vendor = asked.vendor;
        for fault in [Fault::Redirect(format!("{other}/a1a1")), Fault::Status(418)] {
            providers.known().fault = Some(fault);
            let verdict = vendor.check(&client, &asked.secret).await;
            let Verdict::Unknown(why) = verdict else {
                panic!("{vendor:?}: {verdict:?}");
            };
            let told = format!("{why} {why:?}");
            assert!(!told.contains("a1a1"), "{told}");
        }
        assert_eq!(elsewhere.known().asked, [""; 0], "{vendor:?}: it followed");
    }
}

#[tokio::test]
async fn a_provider_that_is_slow_is_waited_for_as_long_as_the_limit_says() {
    let (providers, client) = providers().await;
    let key = PaymentKey::Paystack;
    let secret = key.wrong();
    providers.known().alive.insert(secret.expose().to_owned());
    providers.known().fault = Some(Fault::Slow(LIMIT / 4));
    assert_eq!(key.check(&client, &secret).await, Verdict::Accepted(200));
    providers.known().fault = Some(Fault::Hangs);
    let verdict = key.check(&client, &secret).await;
    assert_eq!(verdict, Verdict::Unknown(HttpUnknown::TimedOut(LIMIT)));
}

#[tokio::test]
async fn a_stripe_key_without_the_right_to_look_is_alive() {
    let (providers, client) = providers().await;
    let key = PaymentKey::Stripe.wrong();
    providers.known().narrow.insert(key.expose().to_owned());
    let verdict = PaymentKey::Stripe.check(&client, &key).await;
    assert_eq!(verdict, Verdict::Accepted(403));
}
