//! Proxmox tokens, against a cluster in the test's own process.

mod description;

use std::time::{Duration, Instant};

use keyroll_providers::http::{HttpUnknown, Tls, Verdict};
use keyroll_providers::proxmox::{Grant, Proxmox, ProxmoxError, Token, TokenInfo};
use keyroll_sandbox_providers::proxmox::{Acl, Cluster, Token as Known};
use keyroll_sandbox_providers::{Fault, Providers};
use keyroll_secret::Secret;

const USER: &str = "panel@pve";
const OLD: &str = "01234567-89ab-4def-8123-456789abcdef";
const MANAGING: &str = "fedcba98-7654-4210-8edc-ba9876543210";

fn token(user: &str, id: &str, value: &str) -> Token {
    Token {
        user: user.into(),
        id: id.into(),
        value: Secret::new(value),
    }
}

fn acl(path: &str, who: &str, role: &str) -> Acl {
    Acl {
        path: path.into(),
        who: who.into(),
        role: role.into(),
        propagate: true,
    }
}

/// A panel's user with one token that may do less than the user, and another user's token that manages it.
fn cluster(refusal_takes: Duration) -> Cluster {
    let known = |value: &str, privsep| Known {
        value: value.into(),
        privsep,
        expire: 0,
        comment: None,
    };
    Cluster {
        users: [
            (USER.to_owned(), ["panels".to_owned()].into()),
            ("keyroll@pve".to_owned(), [].into()),
        ]
        .into(),
        tokens: [
            ((USER.to_owned(), "web".to_owned()), known(OLD, true)),
            (
                ("keyroll@pve".to_owned(), "rotate".to_owned()),
                known(MANAGING, false),
            ),
        ]
        .into(),
        acl: [
            acl("/vms", USER, "PVEVMAdmin"),
            acl("/", USER, "PVEAuditor"),
            acl("/vms", "panel@pve!web", "PVEVMAdmin"),
            acl("/", "panel@pve!web", "PVEAuditor"),
            acl("/access/groups", "keyroll@pve", "PVEUserAdmin"),
            acl("/vms", "keyroll@pve", "PermissionsAdmin"),
            acl("/", "keyroll@pve", "PermissionsAdmin"),
        ]
        .into(),
        refusal_takes,
        regenerates: true,
    }
}

async fn api_at() -> (Providers, String) {
    let providers = Providers::new();
    providers.known().proxmox = cluster(Duration::ZERO);
    let url = providers.serve().await.unwrap();
    (providers, url)
}

async fn api() -> (Providers, Proxmox) {
    let (providers, url) = api_at().await;
    let api = Proxmox::new(&url, &Tls::default(), Duration::from_secs(10)).unwrap();
    (providers, api)
}

fn old() -> Token {
    token(USER, "web", OLD)
}

fn manager() -> Token {
    token("keyroll@pve", "rotate", MANAGING)
}

fn second(privsep: bool) -> TokenInfo {
    TokenInfo {
        id: "web-2".into(),
        privsep,
        expire: 0,
        comment: Some("made by keyroll & kept until finalize".into()),
    }
}

#[tokio::test]
async fn a_second_token_can_what_the_first_can_once_it_has_its_entries_and_then_the_first_goes() {
    let (providers, api) = api().await;
    let (old, manager) = (old(), manager());
    assert_eq!(api.accepts(&old).await, Verdict::Accepted(200));

    let made = api.create(&manager, USER, &second(true)).await.unwrap();
    let new = Token {
        id: "web-2".into(),
        value: made.value,
        ..old.clone()
    };
    assert!(!format!("{new:?}").contains(new.value.expose()));
    assert!(
        api.tokens(&manager, USER)
            .await
            .unwrap()
            .contains(&second(true))
    );
    // Accepted, and without any right: what `/version` cannot show.
    assert_eq!(api.accepts(&new).await, Verdict::Accepted(200));
    let could = api.permissions(&old).await.unwrap();
    let can = api.permissions(&new).await.unwrap();
    assert!(can.is_empty() && !can.lacking(&could).is_empty());

    let all = api.grants(&manager).await.unwrap();
    for grant in all.into_iter().filter(|g| g.who == old.full_id()) {
        let copied = Grant {
            who: new.full_id(),
            ..grant
        };
        api.grant(&manager, &copied).await.unwrap();
        // Once more does no harm.
        api.grant(&manager, &copied).await.unwrap();
    }
    let can = api.permissions(&new).await.unwrap();
    assert_eq!(can.lacking(&could), [""; 0]);

    api.delete(&manager, USER, "web").await.unwrap();
    assert_eq!(api.accepts(&old).await, Verdict::Refused(401));
    assert_eq!(api.accepts(&new).await, Verdict::Accepted(200));
    // A second time the server says 500, which is no verdict; the list is.
    let again = api.delete(&manager, USER, "web").await.unwrap_err();
    assert!(!again.is_not_applied(), "{again}");
    assert_eq!(api.tokens(&manager, USER).await.unwrap(), [second(true)]);
    let tokens: Vec<String> = providers
        .known()
        .proxmox
        .tokens
        .keys()
        .map(|(u, i)| format!("{u}!{i}"))
        .collect();
    assert_eq!(tokens, ["keyroll@pve!rotate", "panel@pve!web-2"]);
}

#[tokio::test]
async fn what_is_refused_was_not_done_and_says_why() {
    let (providers, api) = api().await;
    let (old, manager) = (old(), manager());
    // A token is nobody's self: not even its own user's other tokens.
    let own = api.create(&old, USER, &second(true)).await.unwrap_err();
    assert!(
        matches!(&own, ProxmoxError::Forbidden { .. }) && own.is_not_applied(),
        "{own}"
    );
    let wrong = token("keyroll@pve", "rotate", OLD);
    let refused = api.create(&wrong, USER, &second(true)).await.unwrap_err();
    assert!(matches!(&refused, ProxmoxError::Refused { .. }) && refused.is_not_applied());
    assert!(!format!("{refused} {refused:?}").contains(OLD));
    let there = TokenInfo {
        id: "web".into(),
        ..second(true)
    };
    let exists = api.create(&manager, USER, &there).await.unwrap_err();
    assert!(
        exists.is_not_applied()
            && exists
                .to_string()
                .contains("tokenid: Token already exists."),
        "{exists}"
    );
    let short = TokenInfo {
        id: "w".into(),
        ..second(true)
    };
    let short = api.create(&manager, USER, &short).await.unwrap_err();
    assert!(matches!(&short, ProxmoxError::Invalid { .. }), "{short}");
    let elsewhere = Grant {
        path: "/storage".into(),
        who: old.full_id(),
        role: "PVEAuditor".into(),
        propagate: false,
    };
    let nobody = api.grant(&old, &elsewhere).await.unwrap_err();
    assert!(
        matches!(&nobody, ProxmoxError::Forbidden { .. }),
        "{nobody}"
    );
    assert_eq!(providers.known().proxmox.tokens.len(), 2);
}

#[tokio::test]
async fn an_older_server_does_not_regenerate_and_a_newer_one_kills_the_old_value_at_once() {
    let (providers, api) = api().await;
    providers.known().proxmox.regenerates = false;
    let older = api.regenerate(&manager(), USER, "web").await.unwrap_err();
    assert!(
        older.is_not_applied() && older.to_string().contains("regenerate: "),
        "{older}"
    );
    assert_eq!(api.accepts(&old()).await, Verdict::Accepted(200));
    providers.known().proxmox.regenerates = true;
    let made = api.regenerate(&manager(), USER, "web").await.unwrap();
    assert_eq!(api.accepts(&old()).await, Verdict::Refused(401));
    let new = Token {
        value: made.value,
        ..old()
    };
    assert_eq!(api.accepts(&new).await, Verdict::Accepted(200));
}

#[tokio::test]
async fn a_refusal_that_comes_late_is_a_refusal_and_a_failing_server_is_none() {
    let (providers, _) = api().await;
    providers.known().proxmox.refusal_takes = Duration::from_secs(3);
    let url = providers.serve().await.unwrap();
    // Too short a limit is not taken at its word.
    let hasty = Proxmox::new(&url, &Tls::default(), Duration::from_secs(1)).unwrap();
    let began = Instant::now();
    let wrong = token(USER, "web", MANAGING);
    assert_eq!(hasty.accepts(&wrong).await, Verdict::Refused(401));
    assert!(began.elapsed() >= Duration::from_secs(3));
    for fault in [
        Fault::Status(500),
        Fault::Status(595),
        Fault::Redirect("/elsewhere".into()),
        Fault::Garbage,
        Fault::Endless,
    ] {
        providers.known().fault = Some(fault.clone());
        let verdict = hasty.accepts(&old()).await;
        assert!(
            matches!(verdict, Verdict::Unknown(_)),
            "{fault:?}: {verdict:?}"
        );
        let unsure = hasty.delete(&manager(), USER, "web").await.unwrap_err();
        assert!(!unsure.is_not_applied(), "{fault:?}: {unsure}");
    }
    let nobody = Proxmox::new(
        "http://127.0.0.1:1",
        &Tls::default(),
        Duration::from_secs(1),
    )
    .unwrap();
    let never = nobody.delete(&manager(), USER, "web").await.unwrap_err();
    assert!(never.is_not_applied(), "{never}");
    let verdict = nobody.accepts(&old()).await;
    assert!(matches!(
        verdict,
        Verdict::Unknown(HttpUnknown::Unreachable(_))
    ));
}
