//! Everything is rotated at once, as after an incident.

use std::fs;

use crate::common::{Bench, DONE, REFUSED, USAGE};
use crate::webhooks::{Endpoint, Shop};
use keyroll_testkit::{StackOptions, containers_wanted};

const CURRENT: &str = "payments.paystack.secretKey";
const PREVIOUS: &str = "payments.paystack.secretKey_previous";
const INCIDENT: [&str; 4] = ["rotate", "--all", "--reason", "incident"];

/// The secrets of a plan, in its order.
fn planned(plan: &serde_json::Value) -> Vec<&str> {
    let secrets = plan["secrets"].as_array().unwrap().iter();
    secrets.map(|s| s["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn everything_that_the_stack_uses_is_rotated_at_once_the_worst_first_and_old_events_are_refused()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let [first, second] = [1, 2].map(Shop::key);
    shop.has(CURRENT, &first).await;
    shop.has("payments.stripe.webhookSecret", "").await;

    let plan = bench.json(&shop.with(&["plan", "--all"], &[])).await;
    let used = [
        "POSTGRES_PASSWORD",
        "ADMIN_PASSWORD",
        "JWT_REFRESH_SECRET",
        "JWT_SECRET",
        "PAYSTACK_SECRET",
    ];
    assert_eq!(planned(&plan), used);
    let notes = plan["notes"].to_string();
    let unused =
        "STRIPE_WEBHOOK_SECRET is left out: setting payments.stripe.webhookSecret has no value";
    assert!(notes.contains(unused), "{notes}");

    // Nobody is there to be asked.
    let before = bench.before().await;
    let run = bench.run(&shop.with(&INCIDENT, &["--yes"])).await;
    assert_eq!(run.code, USAGE, "{run:?}");
    assert!(
        run.stderr
            .contains("new values of PAYSTACK_SECRET; give each with --value-file"),
        "{run:?}"
    );
    bench.nothing_changed(&before).await;

    let file = bench.home("paystack");
    fs::write(&file, format!("{second}\n")).unwrap();
    let given = format!("PAYSTACK_SECRET={}", file.display());
    let run = bench
        .run(&shop.with(&INCIDENT, &["--yes", "--value-file", &given]))
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    bench
        .trail_says("completed", &["\"reason\":\"incident\""])
        .await;
    let jwt = bench.stack.env("JWT_SECRET").unwrap();
    assert!(!jwt.same_as(before.value("JWT_SECRET")), "it was rotated");
    bench.runs(&bench.in_force()).await;
    // After an incident there is no grace.
    assert_eq!(shop.row(CURRENT).await.as_deref(), Some(second.as_str()));
    assert_eq!(shop.row(PREVIOUS).await, None);
    for (key, status) in [(&first, 401), (&second, 200)] {
        assert_eq!(shop.sends(Endpoint::Paystack, key).await, status);
    }
    let records = bench.run(&["audit", "list", "--json"]).await;
    let last: serde_json::Value =
        serde_json::from_str(records.stdout.lines().last().unwrap()).unwrap();
    let rotation = last["body"]["rotation"].as_str().unwrap();
    let back = ["rollback", rotation, "--yes"];
    let run = bench.run(&shop.with(&back, &[])).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains("may have leaked"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_asked_for_what_providers_make_and_what_is_left_out_is_told() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let shop = Shop::open(&bench).await;
    let [first, second] = [1, 2].map(Shop::key);
    shop.has(CURRENT, &first).await;
    let wrong = [
        "--yes",
        "--except",
        "production",
        "--allow-grace",
        "JWT_SECRET",
    ];
    let run = bench.run(&shop.with(&INCIDENT, &wrong)).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    assert!(run.stderr.contains("--allow-grace JWT_SECRET"), "{run:?}");

    let more = [
        "--yes",
        "--except",
        "production",
        "--allow-grace",
        "PAYSTACK_SECRET",
    ];
    let mut terminal = bench.terminal(&shop.with(&INCIDENT, &more));
    terminal.shows("new value of PAYSTACK_SECRET");
    terminal.types(&format!("{second}\n"));
    terminal.shows("new value of STRIPE_WEBHOOK_SECRET");
    terminal.types("\n");
    let shown = terminal.reads_to_its_end();
    assert!(!shown.contains(&second), "{shown}");
    assert_eq!(shop.row(CURRENT).await, Some(second.clone()), "{shown}");
    // A window was asked for by name.
    assert_eq!(shop.row(PREVIOUS).await, Some(first.clone()));
    let stripe = shop.row("payments.stripe.webhookSecret").await;
    assert_eq!(stripe, Some(Shop::webhook_secret(1)));
    let told = [
        "STRIPE_WEBHOOK_SECRET: left out of the rotation of everything",
        "production: left out of the rotation of everything",
    ];
    bench.trail_says("completed", &told).await;
}
