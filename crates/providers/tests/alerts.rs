//! Messages to alert channels, against simulated ones.

use std::time::Duration;

use keyroll_providers::alert::Post;
use keyroll_providers::http::{Client, Tls, Verdict};
use keyroll_sandbox_providers::Providers;
use keyroll_secret::Secret;
use serde_json::{Value, json};

#[tokio::test]
async fn a_message_reaches_each_channel_once_and_an_endpoint_that_is_gone_says_so() {
    let providers = Providers::new();
    let base = providers.serve().await.unwrap();
    for alive in ["/services/T/B/x", "/api/webhooks/1/x", "1:token"] {
        providers.known().alive.insert(alive.into());
    }
    let client = Client::new(&base, &Tls::default(), Duration::from_secs(5)).unwrap();
    let url = |path: &str| Secret::new(format!("{base}{path}"));
    let telegram = |token: &str| Post::Telegram {
        token: Secret::new(token),
        chat: "-100".into(),
    };
    let long = "é".repeat(5000);
    let alive = [
        Post::Slack {
            url: url("/services/T/B/x"),
        },
        Post::Discord {
            url: url("/api/webhooks/1/x"),
        },
        telegram("1:token"),
    ];
    for (n, post) in alive.iter().enumerate() {
        let verdict = post.send(&client, &long, &Value::Null).await;
        assert!(
            matches!(verdict, Verdict::Accepted(_)),
            "{post:?}: {verdict:?}"
        );
        assert_eq!(providers.known().posted, n + 1);
    }
    let gone = [
        Post::Slack {
            url: url("/services/T/B/gone"),
        },
        Post::Discord {
            url: url("/api/webhooks/1/gone"),
        },
        telegram("1:gone"),
    ];
    for post in &gone {
        let verdict = post.send(&client, "text", &Value::Null).await;
        assert!(
            matches!(verdict, Verdict::Refused(_)),
            "{post:?}: {verdict:?}"
        );
        assert!(!format!("{post:?}").contains("gone"), "{post:?}");
    }
    assert_eq!(providers.known().posted, alive.len());
}

#[tokio::test]
async fn a_message_to_a_webhook_of_ones_own_is_signed_over_the_raw_body() {
    let providers = Providers::new();
    let base = providers.serve().await.unwrap();
    let client = Client::new(&base, &Tls::default(), Duration::from_secs(5)).unwrap();
    let post = Post::Webhook {
        url: Secret::new(format!("{base}/hook/x")),
        key: Some(Secret::new("key")),
    };
    let verdict = post
        .send(&client, "it ended", &json!({"ending": "completed"}))
        .await;
    assert!(matches!(verdict, Verdict::Accepted(204)), "{verdict:?}");
    // Made with Python's `hmac`.
    let known = providers.known();
    let [(signature, body)] = known.received.as_slice() else {
        panic!("{:?}", known.received);
    };
    assert_eq!(body, r#"{"ending":"completed","text":"it ended"}"#);
    assert_eq!(
        signature,
        "sha256=db88c6958a993b20ac5f9664f58c4c79b05eb3d40a20f4e2b3b75707f026e44e"
    );
}
