//! Secrets that providers make and that the application keeps in its settings: from the value to the end of its grace window.

use crate::common::{Bench, DONE, GOING_BACK, REFUSED, ROLLED_BACK, at};
use crate::webhooks::{Endpoint, Shop};
use keyroll_sandbox_providers::Fault;
use keyroll_testkit::{StackOptions, containers_wanted};

#[tokio::test]
async fn a_payment_key_is_validated_applied_in_grace_finalized_and_told() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let containers = bench.stack.containers().await.unwrap();
    let shop = Shop::open(&bench).await;
    let [first, second, third] = [1, 2, 3].map(Shop::key);
    shop.has("payments.paystack.secretKey", &first).await;

    let run = shop.rotate(&[("PAYSTACK_SECRET", &second)], &[]).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(
        shop.row("payments.paystack.secretKey").await,
        Some(second.clone())
    );
    let previous = "payments.paystack.secretKey_previous";
    assert_eq!(shop.row(previous).await, Some(first.clone()));
    for (key, status) in [(&first, 200), (&second, 200), (&third, 401)] {
        assert_eq!(shop.sends(Endpoint::Paystack, key).await, status);
    }
    bench.same_containers(&containers).await;
    let asked = shop.providers.known().asked.clone();
    assert_eq!(asked, ["GET /balance"; 2], "a wrong key, then the new one");

    let answers = ["accepts the new value of PAYSTACK_SECRET, and refuses a made-up one"];
    bench.trail_says("completed", &answers).await;

    let status = bench.json(&["status"]).await;
    let own = status["secrets"].as_array().unwrap().iter();
    let own = own
        .clone()
        .find(|s| s["name"] == "PAYSTACK_SECRET")
        .unwrap();
    assert_eq!(own["window"]["over"], false, "{own}");
    assert_eq!(own["window"]["closes"], "keyroll finalize PAYSTACK_SECRET");

    // Nothing closes a window silently.
    let refused = shop.rotate(&[("PAYSTACK_SECRET", &third)], &[]).await;
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(refused.stderr.contains("  grace: "), "{refused:?}");
    assert_eq!(shop.row(previous).await, Some(first.clone()));

    let run = bench
        .run(&shop.with(&["finalize", "PAYSTACK_SECRET", "--yes"], &[]))
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(shop.row(previous).await, None);
    for (key, status) in [(&first, 401), (&second, 200), (&third, 401)] {
        assert_eq!(shop.sends(Endpoint::Paystack, key).await, status);
    }
    let words = [
        "refuses those signed with the previous secret",
        "\"finalizes\":true",
    ];
    bench.trail_says("completed", &words).await;
    let nothing = bench.run(&shop.with(&["finalize", "--yes"], &[])).await;
    assert_eq!(nothing.code, REFUSED, "{nothing:?}");

    // What somebody types into the panel is found.
    let well = bench.run(&["verify"]).await;
    assert_eq!(well.code, DONE, "{well:?}");
    let left = "settings that hold what keyroll put there: 1";
    assert!(well.stdout.contains(left), "{well:?}");
    shop.has("payments.paystack.secretKey", &third).await;
    let typed = bench.run(&["verify"]).await;
    assert_eq!(typed.code, Some(1), "{typed:?}");
    assert!(
        typed.stdout.contains("somebody has changed it"),
        "{typed:?}"
    );
    shop.has("payments.paystack.secretKey", &second).await;

    // Somebody closes the next window by hand: keyroll shows that the value is dead, and forgets it.
    let run = shop.rotate(&[("PAYSTACK_SECRET", &third)], &[]).await;
    assert_eq!(run.code, DONE, "{run:?}");
    shop.has(previous, "").await;
    let run = bench.run(&shop.with(&["finalize", "--yes"], &[])).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(shop.row(previous).await.as_deref(), Some(""));
    let nothing = bench.run(&shop.with(&["finalize", "--yes"], &[])).await;
    assert_eq!(nothing.code, REFUSED, "{nothing:?}");
    bench.same_containers(&containers).await;
}

#[tokio::test]
async fn a_key_that_its_maker_refuses_or_says_nothing_about_changes_nothing() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let [first, second] = [1, 2].map(Shop::key);
    let current = "payments.paystack.secretKey";
    shop.has(current, &first).await;

    let secret = "PAYSTACK_SECRET";
    let dead = format!("sk_live_{}", "9".repeat(40));
    let test = second.replace("live", "test");
    for (value, says) in [
        (dead.as_str(), "  value: PAYSTACK_SECRET: "),
        ("sk_live_short", "is not `sk_live_`"),
        (&test, "is a test key, the one in force is live"),
        (&first, "is the one in force"),
    ] {
        let run = shop.rotate(&[(secret, value)], &[]).await;
        assert_eq!(run.code, REFUSED, "{run:?}");
        assert!(run.stderr.contains(says), "{says}: {run:?}");
        assert!(!run.stderr.contains(value), "{run:?}");
    }
    let unwell = [
        Fault::Hangs,
        Fault::Status(503),
        Fault::Status(429),
        Fault::Redirect("http://127.0.0.1:9/balance".into()),
        Fault::Garbage,
        Fault::Endless,
    ];
    for fault in unwell {
        shop.providers.known().fault = Some(fault.clone());
        let limit = ["--set", "limits.request_seconds=3"];
        let run = shop.rotate(&[(secret, &second)], &limit).await;
        assert_eq!(run.code, REFUSED, "{fault:?}: {run:?}");
        assert!(
            run.stderr.contains("  provider: PAYSTACK_SECRET"),
            "{fault:?}: {run:?}"
        );
    }
    assert_eq!(shop.row(current).await, Some(first.clone()));
    assert_eq!(shop.row("payments.paystack.secretKey_previous").await, None);

    // A host that cannot reach the provider.
    shop.providers.known().fault = Some(Fault::Hangs);
    let run = shop
        .rotate(&[(secret, &second)], &["--skip-validation"])
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    bench
        .trail_says("completed", &["its maker was not asked"])
        .await;
}

#[tokio::test]
async fn several_secrets_are_one_rotation_and_go_back_together() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let shop = Shop::open(&bench).await;
    let [first, second, third] = [1, 2, 3].map(Shop::key);
    let hash = "payments.flutterwave.webhookHash";
    let paystack = "payments.paystack.secretKey";
    shop.has(paystack, &first).await;
    shop.has(hash, "0123456789abcdef-first").await;

    // The application's settings are the last to change, and the seed fails before.
    let seed = bench.stack.fault("seed-exit1");
    seed.set();
    let values = [
        ("PAYSTACK_SECRET", second.as_str()),
        ("FLUTTERWAVE_WEBHOOK_HASH", "0123456789abcdef-second"),
    ];
    let run = shop.rotate(&values, &["ADMIN_PASSWORD"]).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    seed.clear();
    bench.old_set_is_back(&before).await;
    assert_eq!(shop.row(paystack).await, Some(first.clone()));

    // They change, and then the application does not take its events.
    let page = bench.stack.fault("page-500");
    let moments = vec![
        at("settings: done", || page.set()),
        at(GOING_BACK, || page.clear()),
    ];
    let run = shop.interfere(&values, moments).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    for (key, value) in [(paystack, first.as_str()), (hash, "0123456789abcdef-first")] {
        assert_eq!(shop.row(key).await.as_deref(), Some(value));
        assert_eq!(shop.row(&format!("{key}_previous")).await, None);
    }

    let run = shop.rotate(&values, &[]).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let told = run
        .stdout
        .lines()
        .find_map(|l| l.strip_prefix("rotation   "));
    let rotation = told.expect("its name").to_owned();

    // Somebody types another one into the browser: it is never overwritten.
    let stripe = Shop::webhook_secret(2);
    let values = [("STRIPE_WEBHOOK_SECRET", stripe.as_str())];
    let enters = || {
        let sql = "UPDATE \"Setting\" SET \"value\" = 'typed' WHERE \"key\" = 'payments.stripe.webhookSecret'";
        drop(bench.hold(&format!("{sql}; COMMIT")));
    };
    let run = shop
        .interfere(&values, vec![at("backup: started", enters)])
        .await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert!(
        run.stderr
            .contains("setting payments.stripe.webhookSecret does not hold what it should"),
        "{run:?}"
    );
    let typed = shop.row("payments.stripe.webhookSecret").await;
    assert_eq!(typed.as_deref(), Some("typed"));

    // Back, the present and the previous value together.
    let run = bench
        .run(&shop.with(&["rollback", &rotation, "--yes"], &[]))
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    for (key, value) in [(paystack, first.as_str()), (hash, "0123456789abcdef-first")] {
        assert_eq!(shop.row(key).await.as_deref(), Some(value));
        assert_eq!(shop.row(&format!("{key}_previous")).await, None);
    }
    assert_eq!(shop.sends(Endpoint::Paystack, &second).await, 401);
    assert_eq!(shop.sends(Endpoint::Paystack, &third).await, 401);
}

#[tokio::test]
async fn events_of_each_provider_are_taken_with_both_secrets_in_the_window_and_with_the_new_one_after_it()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let fourth = "secrets.FLUTTERWAVE_V4_WEBHOOK={ kind = \"flutterwave-webhook-secret\", setting = \"payments.flutterwaveV4.webhookSecret\", previous = \"payments.flutterwaveV4.webhookSecret_previous\", webhook = { path = \"/api/webhooks/flutterwave-v4\", probe_event = \"keyroll.probe\" } }";
    let value = |n: u32| match n {
        1 => Shop::webhook_secret(1),
        n => Shop::webhook_secret(n + 3),
    };
    let (old, new, wrong) = (value(1), value(2), value(3));
    let hooks = [
        (
            "FLUTTERWAVE_WEBHOOK_HASH",
            "payments.flutterwave.webhookHash",
            Endpoint::Flutterwave,
        ),
        (
            "FLUTTERWAVE_V4_WEBHOOK",
            "payments.flutterwaveV4.webhookSecret",
            Endpoint::FlutterwaveV4,
        ),
        (
            "STRIPE_WEBHOOK_SECRET",
            "payments.stripe.webhookSecret",
            Endpoint::Stripe,
        ),
    ];
    for (_, setting, _) in hooks {
        shop.has(setting, &old).await;
    }
    let values = hooks.map(|(name, ..)| (name, new.as_str()));
    let run = shop.rotate(&values, &["--set", fourth]).await;
    assert_eq!(run.code, DONE, "{run:?}");
    for (name, setting, to) in hooks {
        let previous = shop.row(&format!("{setting}_previous")).await;
        assert_eq!(previous.as_ref(), Some(&old), "{name}");
        for (secret, status) in [(&old, 200), (&new, 200), (&wrong, 401)] {
            assert_eq!(shop.sends(to, secret).await, status, "{name}");
        }
    }
    let finalize = shop.with(&["finalize", "--yes"], &["--set", fourth]);
    let run = bench.run(&finalize).await;
    assert_eq!(run.code, DONE, "{run:?}");
    for (name, setting, to) in hooks {
        assert_eq!(
            shop.row(&format!("{setting}_previous")).await,
            None,
            "{name}"
        );
        for (secret, status) in [(&old, 401), (&new, 200), (&wrong, 401)] {
            assert_eq!(shop.sends(to, secret).await, status, "{name}");
        }
        let told = format!("{name}: {} takes events signed with", to.path());
        bench.trail_says("completed", &[&told]).await;
    }
}
