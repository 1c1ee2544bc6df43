//! Each maker of a secret is asked before a new value is put in force, and nothing is changed unless it says yes.

use std::fs;
use std::time::Duration;

use crate::common::{Bench, DONE, GOING_BACK, REFUSED, ROLLED_BACK, at};
use crate::node::{Node, SECRET, USER};
use crate::webhooks::Shop;
use keyroll_sandbox_providers::{Certificate, Fault, Providers};
use keyroll_testkit::{Run, StackOptions, containers_wanted};

/// A secret that somebody makes: what the panel has, what is alive, what is not, and how the maker knows it.
struct Made {
    name: &'static str,
    setting: &'static str,
    old: String,
    new: String,
    dead: String,
    /// What the new value is among those that are alive.
    known_as: String,
}

fn made() -> Vec<Made> {
    let key = |name, setting, form: &dyn Fn(&str) -> String| Made {
        name,
        setting,
        old: form("1"),
        new: form("2"),
        dead: form("3"),
        known_as: form("2"),
    };
    let url = |name, setting, form: &dyn Fn(&str) -> String| Made {
        name,
        setting,
        old: format!("https://alerts.test{}", form("1")),
        new: format!("https://alerts.test{}", form("2")),
        dead: format!("https://alerts.test{}", form("3")),
        known_as: form("2"),
    };
    vec![
        key(
            "FLUTTERWAVE_SECRET",
            "payments.flutterwave.secretKey",
            &|n| format!("FLWSECK-{}-X", n.repeat(32)),
        ),
        key(
            "FLUTTERWAVE_CLIENT",
            "payments.flutterwave.clientSecret",
            &|n| n.repeat(32),
        ),
        key("STRIPE_SECRET", "payments.stripe.secretKey", &|n| {
            format!("sk_live_{}", n.repeat(24))
        }),
        url("ALERT_SLACK_URL", "alerts.slackUrl", &|n| {
            format!("/services/T1/B1/{}", n.repeat(24))
        }),
        url("ALERT_DISCORD_URL", "alerts.discordUrl", &|n| {
            format!("/api/webhooks/1/{}", n.repeat(24))
        }),
        key("ALERT_TELEGRAM_TOKEN", "alerts.telegramToken", &|n| {
            format!("1:{}", n.repeat(35))
        }),
    ]
}

#[tokio::test]
async fn each_maker_is_asked_and_a_no_or_no_answer_changes_nothing() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let base = shop.providers.serve().await.unwrap();
    let made = made();
    let client = "secrets.FLUTTERWAVE_CLIENT={ kind = \"flutterwave-client-secret\", setting = \"payments.flutterwave.clientSecret\", api = { id = \"a-client\" } }";
    let mut more = vec!["--set".to_owned(), client.to_owned()];
    more.extend(["--set".to_owned(), "limits.request_seconds=3".to_owned()]);
    for one in &made {
        let set = format!("secrets.{}.api.base_url={base}", one.name);
        more.extend(["--set".to_owned(), set]);
        shop.has(one.setting, &one.old).await;
        shop.providers.known().alive.insert(one.known_as.clone());
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    for Made {
        name,
        setting,
        old,
        new,
        dead,
        ..
    } in &made
    {
        let refused = |run: &Run, code: &str| {
            assert_eq!(run.code, REFUSED, "{run:?}");
            let says = format!("  {code}: {name}: ");
            assert!(run.stderr.contains(&says), "{says}: {run:?}");
            assert!(
                !run.stderr.contains(new) && !run.stderr.contains(dead),
                "{run:?}"
            );
        };
        refused(&shop.rotate(&[(name, dead)], &more).await, "value");
        shop.providers.known().fault = Some(Fault::Hangs);
        refused(&shop.rotate(&[(name, new)], &more).await, "provider");
        shop.providers.known().fault = None;
        assert_eq!(shop.row(setting).await.as_ref(), Some(old), "{name}");

        let run = shop.rotate(&[(name, new)], &more).await;
        assert_eq!(run.code, DONE, "{run:?}");
        assert_eq!(shop.row(setting).await.as_ref(), Some(new), "{name}");
        let says = format!("accepts the new value of {name}, and refuses a made-up one");
        bench.trail_says("completed", &[&says]).await;
    }
    assert_eq!(shop.providers.known().posted, 0, "somebody got a message");
}

/// The token's own secret, made anew by an operator in the node's dashboard.
const NEW: &str = "22222222-8a5b-4c2d-9e3f-0123456789ab";

#[tokio::test]
async fn a_node_is_trusted_by_its_authority_or_its_fingerprint_and_whoever_else_answers_changes_nothing()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = Node::open(&bench.stack, bench.keyroll.home()).await;
    let first = node.secret_in_use(&bench.stack).await;
    node.gives(NEW);
    let file = bench.home("token");
    fs::write(&file, format!("{NEW}\n")).unwrap();
    let value = format!("{SECRET}={}", file.display());
    let [good, expired] = [false, true].map(|expired| Certificate::make(expired).unwrap());
    let urls = [&good, &expired].map(|c| node.providers.serve_sealed(c));
    let [good_url, expired_url] = urls;
    let (good_url, expired_url) = (good_url.await.unwrap(), expired_url.await.unwrap());
    let authority = |name: &str, certificate: &Certificate| {
        let path = bench.home(name);
        fs::write(&path, &certificate.authority).unwrap();
        format!("ca_file = \"{}\"", path.display())
    };
    let (ca, ca_of_expired) = (authority("ca", &good), authority("ca2", &expired));
    let pin = |c: &Certificate| format!("fingerprints = [\"{}\"]", c.fingerprint);
    let rotate = async |url: &str, trust: &str| {
        let api = format!(
            "secrets.{SECRET}.api={{ base_url = \"{url}\", id = \"{USER}!panel\", {trust} }}"
        );
        let command = ["rotate", SECRET, "--yes", "--value-file", &value];
        let settings = ["--set", &api, "--set", "limits.request_seconds=4"];
        let words: Vec<&str> = command.into_iter().chain(settings).collect();
        bench.run(&words).await
    };
    let refused = async |run: Run, says: &str| {
        assert_eq!(run.code, REFUSED, "{says}: {run:?}");
        let what = format!("  provider: {SECRET}: ");
        assert!(run.stderr.contains(&what), "{says}: {run:?}");
        assert!(run.stderr.contains(says), "{says}: {run:?}");
        assert_eq!(node.secret_in_use(&bench.stack).await, first);
    };
    refused(
        rotate(&good_url, &pin(&expired)).await,
        "which is not one of those that are pinned",
    )
    .await;
    refused(rotate(&expired_url, &ca_of_expired).await, "expired").await;
    refused(
        rotate(&good_url, &ca_of_expired).await,
        "with 127.0.0.1 failed",
    )
    .await;
    for (fault, says) in [
        (
            Fault::Redirect("https://elsewhere.example/".into()),
            "a redirect, which is not followed",
        ),
        (Fault::Endless, "said neither yes nor no"),
        (Fault::Hangs, "no whole answer within"),
        (Fault::Garbage, "said neither yes nor no"),
    ] {
        node.providers.known().fault = Some(fault);
        refused(rotate(&good_url, &ca).await, says).await;
    }
    // Slow, as a node is that refuses, and in time.
    node.providers.known().fault = Some(Fault::Slow(Duration::from_secs(1)));
    let run = rotate(&good_url, &ca).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(node.secret_in_use(&bench.stack).await, NEW);
    node.providers.known().fault = None;

    // What is pinned is trusted for itself, whatever date it has.
    let third = "33333333-8a5b-4c2d-9e3f-0123456789ab";
    fs::write(&file, format!("{third}\n")).unwrap();
    node.gives(third);
    let run = rotate(&expired_url, &pin(&expired)).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(node.secret_in_use(&bench.stack).await, third);
}

/// A key that the application reads from its environment, and from its settings too.
#[tokio::test]
async fn a_key_in_the_env_file_and_in_a_setting_changes_in_both_and_goes_back_in_both() {
    if !containers_wanted() {
        return;
    }
    // Of this test alone: they stand in a container's environment, where the rotation of another stack that has the same would find them.
    let [first, second, third] = ["a1", "b2", "c3"].map(|n| format!("sk_live_{}", n.repeat(20)));
    let options = StackOptions::new()
        .env("PAYSTACK_SECRET_KEY", &first)
        .env("FLUTTERWAVE_SECRET_KEY", "FLWSECK-0123456789abcdef01-X");
    let bench = Bench::start(options).await;
    let shop = Shop::open(&bench).await;
    let alive = [&first, &second, &third].map(Clone::clone);
    shop.providers.known().alive.extend(alive);
    let setting = "payments.paystack.secretKey";
    let key = ["--set", "secrets.PAYSTACK_SECRET.key=PAYSTACK_SECRET_KEY"];
    let in_env = |name: &str| bench.stack.env(name).unwrap().expose().to_owned();

    shop.has(setting, &third).await;
    let run = shop.rotate(&[("PAYSTACK_SECRET", &second)], &key).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains("hold different values"), "{run:?}");

    shop.has(setting, &first).await;
    let run = shop.rotate(&[("PAYSTACK_SECRET", &second)], &key).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let held = [
        in_env("PAYSTACK_SECRET_KEY"),
        shop.row(setting).await.unwrap(),
    ];
    assert_eq!(held, [second.clone(), second.clone()]);

    let page = bench.stack.fault("page-500");
    let key = [key[0], key[1], "--replace-grace"];
    let command = shop.command(&[("PAYSTACK_SECRET", &third)], &key);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let moments = vec![
        at("settings: done", || page.set()),
        at(GOING_BACK, || page.clear()),
    ];
    let run = bench.interfere(&words, moments).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    let held = [
        in_env("PAYSTACK_SECRET_KEY"),
        shop.row(setting).await.unwrap(),
    ];
    assert_eq!(held, [second.clone(), second]);

    // One that stands in the env file alone is asked about too.
    let providers = Providers::new();
    let base = providers.serve().await.unwrap();
    let own = "FLWSECK-fedcba9876543210fe-X";
    let spec = format!(
        "secrets.FLUTTERWAVE_ENV={{ kind = \"flutterwave-key\", key = \"FLUTTERWAVE_SECRET_KEY\", api = {{ base_url = \"{base}\" }} }}"
    );
    let spec = ["--set", &spec];
    let run = shop.rotate(&[("FLUTTERWAVE_ENV", own)], &spec).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains("  value: FLUTTERWAVE_ENV: "), "{run:?}");
    let test = "FLWSECK_TEST-fedcba9876543210fe-X";
    providers
        .known()
        .alive
        .extend([own.to_owned(), test.to_owned()]);
    let run = shop.rotate(&[("FLUTTERWAVE_ENV", test)], &spec).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains("is a test key"), "{run:?}");
    let run = shop.rotate(&[("FLUTTERWAVE_ENV", own)], &spec).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(in_env("FLUTTERWAVE_SECRET_KEY"), own);
}
