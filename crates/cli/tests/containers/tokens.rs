//! A Proxmox token that keyroll makes itself, from the second token to the end of the first.

use std::fs;

use crate::common::{Bench, DONE, GOING_BACK, REFUSED, ROLLED_BACK, STUCK, at};
use crate::node::{Node, SECRET, USER};
use keyroll_testkit::{StackOptions, containers_wanted};

#[tokio::test]
async fn a_token_gets_a_second_one_with_its_rights_and_goes_when_its_window_is_ended() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = Node::open(&bench.stack, bench.keyroll.home()).await;
    let first = format!("{USER}!panel");
    assert_eq!(node.in_use(&bench.stack).await, first);

    let plan = bench.run(&node.with(&["plan", SECRET])).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    assert!(plan.stdout.contains("keyroll makes a token"), "{plan:?}");
    assert_eq!(node.tokens().len(), 1, "a plan made one");

    let run = bench.run(&node.with(&["rotate", SECRET, "--yes"])).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let second = node.in_use(&bench.stack).await;
    assert_ne!(second, first);
    assert_eq!(node.tokens().len(), 2, "both live in the window");
    assert_eq!(node.rights(&second), node.rights(&first));
    assert_eq!(node.rights(&second).len(), 2);
    bench
        .trail_says("completed", &["PROXMOX_TOKEN_SECRET previous"])
        .await;

    let again = bench.run(&node.with(&["rotate", SECRET, "--yes"])).await;
    assert_eq!(again.code, REFUSED, "{again:?}");
    assert!(again.stderr.contains("  grace: "), "{again:?}");
    assert_eq!(node.tokens().len(), 2);

    let run = bench.run(&node.with(&["finalize", SECRET, "--yes"])).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(node.in_use(&bench.stack).await, second);
    assert_eq!(node.tokens().into_iter().collect::<Vec<_>>(), [second]);
    bench
        .trail_says("completed", &["the old tokens are deleted"])
        .await;
}

#[tokio::test]
async fn a_token_that_a_rotation_did_not_use_is_used_by_the_next_and_none_is_left_over() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = Node::open(&bench.stack, bench.keyroll.home()).await;
    let first = node.in_use(&bench.stack).await;

    // The token is made, and the rotation that would use it goes back.
    let page = bench.stack.fault("page-500");
    let moments = vec![
        at("settings: done", || page.set()),
        at(GOING_BACK, || page.clear()),
    ];
    let command = node.with(&["rotate", SECRET, "--yes"]);
    let run = bench.interfere(&command, moments).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert_eq!(node.in_use(&bench.stack).await, first);
    let both = node.tokens();
    assert_eq!(both.len(), 2, "the made one waits");

    let run = bench.run(&command).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(node.tokens(), both, "another one was made");
    let second = node.in_use(&bench.stack).await;
    assert_ne!(second, first);
    let run = bench
        .run(&node.with(&["rollback", &rotation(&run.stdout), "--yes"]))
        .await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(
        node.in_use(&bench.stack).await,
        first,
        "taken back, id and secret together"
    );
}

#[tokio::test]
async fn a_token_is_given_another_value_in_place_on_request_alone_and_on_a_server_that_can() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = Node::open(&bench.stack, bench.keyroll.home()).await;
    let first = node.secret_in_use(&bench.stack).await;
    let command = node.with(&["rotate", SECRET, "--yes", "--regenerate"]);

    // An older server: nothing was changed, so it goes back.
    let run = bench.run(&command).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert_eq!(node.secret_in_use(&bench.stack).await, first);
    node.in_use(&bench.stack).await;

    node.providers.known().proxmox.regenerates = true;
    let with_others = node.with(&["rotate", SECRET, "production", "--yes", "--regenerate"]);
    let run = bench.run(&with_others).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    let run = bench.run(&command).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let second = node.secret_in_use(&bench.stack).await;
    assert_ne!(second, first);
    assert_eq!(node.in_use(&bench.stack).await, format!("{USER}!panel"));
    assert_eq!(node.tokens().len(), 1);
    assert!(!run.stdout.contains(&second) && !run.stderr.contains(&second));
    let words = [
        "\"regenerated\":\"proxpanel@pve!panel\"",
        "its old one is refused",
        "setting proxmox.tokenSecret holds the token's new value",
    ];
    bench.trail_says("completed", &words).await;

    // Its answer is lost: nobody knows the value, and it is given another one.
    node.providers.known().loses = 1;
    let run = bench.run(&command).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_ne!(node.secret_in_use(&bench.stack).await, second);
    node.in_use(&bench.stack).await;
    let asked = node.providers.known().asked.clone();
    let puts = asked.iter().filter(|a| a.starts_with("PUT ")).count();
    assert_eq!(puts, 4, "refused once, once, and twice: {asked:?}");
}

#[tokio::test]
async fn a_setting_that_somebody_changes_keeps_its_token_and_one_that_is_locked_gets_its_value_later()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let node = Node::open(&bench.stack, bench.keyroll.home()).await;
    node.providers.known().proxmox.regenerates = true;
    let first = node.secret_in_use(&bench.stack).await;
    let set = |value: &str| {
        format!(r#"UPDATE "Setting" SET "value" = '{value}' WHERE "key" = 'proxmox.tokenSecret'"#)
    };
    let typed = set("typed by hand");
    let enters = || drop(bench.hold(&format!("{typed}; COMMIT")));
    let command = node.with(&["rotate", SECRET, "--yes", "--regenerate"]);
    let run = bench
        .interfere(&command, vec![at("baseline: started", enters)])
        .await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert!(
        run.stderr.contains("somebody has changed setting"),
        "{run:?}"
    );
    bench.stack.sql(&set(&first)).await.unwrap();
    node.in_use(&bench.stack).await;

    // After the point of no return there is a way forward alone.
    let mut held = None;
    let lock = || held = Some(bench.hold(&set(&first)));
    let run = bench
        .interfere(&command, vec![at("regenerate: done", lock)])
        .await;
    assert_eq!(run.code, STUCK, "{run:?}");
    assert_eq!(node.secret_in_use(&bench.stack).await, first);
    drop(held);
    let file = bench.home("revealed");
    let reveal = [
        "reveal",
        SECRET,
        "--version",
        "pending",
        "--to-file",
        file.to_str().unwrap(),
    ];
    let run = bench.run(&node.with(&reveal)).await;
    assert_eq!(run.code, DONE, "{run:?}");
    let run = bench.run(&node.with(&["resume"])).await;
    assert_eq!(run.code, DONE, "{run:?}");
    node.in_use(&bench.stack).await;
    let second = node.secret_in_use(&bench.stack).await;
    assert_ne!(second, first);
    assert_eq!(fs::read_to_string(&file).unwrap(), second);
}

fn rotation(stdout: &str) -> String {
    let told = stdout.lines().find_map(|l| l.strip_prefix("rotation   "));
    told.expect("its name").to_owned()
}
