//! The exam that every question about a credential passes: the right one is accepted, a wrong one is refused, and a place that is
//! unwell has said nothing about either, whatever it answers.
//!
//! A new provider gets it by a line in [`places`].
#![allow(
    dead_code,
    reason = "the servers are those of other tests, which use more of them"
)]

#[path = "../http/panel.rs"]
mod panel;
#[path = "../postgres/support.rs"]
mod support;
mod vendors;

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use keyroll_providers::http::{
    Carry, Client, LoginAnswer, PageAnswer, PageSpec, RefreshSpec, Refusals, SendRefresh, Tls,
    TokenAt, Verdict, WrongLoginBudget,
};
use keyroll_providers::postgres::{Address, Endpoint, Login, try_login};
use keyroll_providers::proxmox::{Proxmox, Token};
use keyroll_sandbox_providers::proxmox::Token as Known;
use keyroll_sandbox_providers::{Fault, Providers};
use keyroll_secret::Secret;

/// Long enough for a busy machine, short enough to wait for.
const LIMIT: Duration = Duration::from_secs(2);

/// What a question came to.
#[derive(Debug, PartialEq)]
enum Answer {
    Accepted,
    Refused,
    Unknown(String),
}

/// What one place answered in its exam.
#[derive(Debug)]
struct Sat {
    right: Answer,
    wrong: Answer,
    /// To the right one, while the place was unwell in this way.
    unwell: Vec<(String, Answer)>,
}

type Place = (String, Pin<Box<dyn Future<Output = Option<Sat>>>>);

fn place(name: &str, sits: impl Future<Output = Option<Sat>> + 'static) -> Place {
    (name.to_owned(), Box::pin(sits))
}

/// Every place that is asked about a credential; `None` where its server cannot be had on this machine.
fn places() -> Vec<Place> {
    let mut all = vec![
        place("a database role's password", postgres()),
        place("an admin's password", panel_login()),
        place("an access token", page()),
        place("a refresh token", refresh()),
        place("a Proxmox token", proxmox()),
    ];
    all.extend(vendors::all().into_iter().map(|asked| {
        let name = format!("{:?}", asked.vendor);
        place(&name, vendors::sits(asked))
    }));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_one_is_accepted_a_wrong_one_refused_and_a_place_that_is_unwell_says_nothing() {
    // Side by side: most of it is waiting for those who hang.
    let all = places()
        .into_iter()
        .map(async |(name, sits)| (name, sits.await));
    for (name, sat) in join_all(all).await {
        let Some(sat) = sat else { continue };
        assert_eq!(sat.right, Answer::Accepted, "{name}: {sat:?}");
        assert_eq!(sat.wrong, Answer::Refused, "{name}: {sat:?}");
        assert!(sat.unwell.len() >= 3, "{name}: {sat:?}");
        for (how, answer) in sat.unwell {
            assert!(
                matches!(answer, Answer::Unknown(_)),
                "{name}: {how} is taken for a verdict: {answer:?}"
            );
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted(_) => Self::Accepted,
            Verdict::Refused(_) => Self::Refused,
            Verdict::Unknown(why) => Self::Unknown(why.to_string()),
        }
    }
}

impl From<PageAnswer> for Answer {
    fn from(answer: PageAnswer) -> Self {
        match answer {
            PageAnswer::Served(_) => Self::Accepted,
            PageAnswer::Refused(_) => Self::Refused,
            PageAnswer::Unknown(why) => Self::Unknown(why.to_string()),
        }
    }
}

impl From<LoginAnswer> for Answer {
    fn from(answer: LoginAnswer) -> Self {
        match answer {
            LoginAnswer::Accepted(_) => Self::Accepted,
            LoginAnswer::Refused(_) => Self::Refused,
            LoginAnswer::Unknown(why) => Self::Unknown(why.to_string()),
        }
    }
}

impl From<Login> for Answer {
    fn from(login: Login) -> Self {
        match login {
            Login::Accepted => Self::Accepted,
            Login::Refused { .. } => Self::Refused,
            Login::Unknown(why) => Self::Unknown(why.to_string()),
        }
    }
}

async fn postgres() -> Option<Sat> {
    let server = support::Server::start().await?;
    let right = Secret::new(support::OLD);
    server
        .sql(&format!(
            "CREATE ROLE nologin PASSWORD '{0}'; CREATE ROLE full LOGIN CONNECTION LIMIT 0 PASSWORD '{0}'",
            support::OLD
        ))
        .await;
    let path = server.checked("panel", "panel");
    let mut unwell = vec![];
    for (database, role) in [
        ("panel", "nologin"),
        ("panel", "full"),
        ("nowhere", "panel"),
    ] {
        let at = server.checked(database, role);
        let answer = try_login(&at, &right, LIMIT).await;
        unwell.push((format!("{role} on {database}"), answer.into()));
    }
    let nobody = Endpoint {
        address: Address::ip([127, 0, 0, 1].into(), 1),
        ..path.clone()
    };
    let answer = try_login(&nobody, &right, LIMIT).await;
    unwell.push(("no server".into(), answer.into()));
    Some(Sat {
        right: try_login(&path, &right, LIMIT).await.into(),
        wrong: try_login(&path, &Secret::new("wrong"), LIMIT).await.into(),
        unwell,
    })
}

/// Paths of the panel that are no answer to any question.
const UNWELL: [&str; 7] = [
    "/status/500",
    "/status/503",
    "/status/429",
    "/status/423",
    "/status/418",
    "/elsewhere",
    "/hang",
];

async fn panel_login() -> Option<Sat> {
    let panel = panel::Panel::start().await;
    let client = Client::new(&panel.url(), &Tls::default(), LIMIT).unwrap();
    let log_in = async |path: &str, password: &str| -> Answer {
        let budget = WrongLoginBudget::new(100, 0);
        let (spec, password) = (panel::login_at(path), Secret::new(password));
        let answer = client.login(&spec, panel::ADMIN, &password, &budget);
        answer.await.unwrap().into()
    };
    let mut unwell = vec![];
    for path in UNWELL.into_iter().chain(["/html", "/second-factor"]) {
        unwell.push((path.to_owned(), log_in(path, panel::RIGHT).await));
    }
    Some(Sat {
        right: log_in("/api/login", panel::RIGHT).await,
        wrong: log_in("/api/login", "wrong").await,
        unwell,
    })
}

async fn tokens(client: &Client) -> keyroll_providers::http::Tokens {
    let (right, budget) = (Secret::new(panel::RIGHT), WrongLoginBudget::new(100, 0));
    let spec = panel::login_at("/api/login");
    let login = client.login(&spec, panel::ADMIN, &right, &budget);
    match login.await.unwrap() {
        LoginAnswer::Accepted(tokens) => tokens,
        other => panic!("{other:?}"),
    }
}

async fn page() -> Option<Sat> {
    let panel = panel::Panel::start().await;
    let client = Client::new(&panel.url(), &Tls::default(), LIMIT).unwrap();
    let live = tokens(&client).await.access;
    let open = async |path: &str, token: &Secret| -> Answer {
        let spec = PageSpec {
            path: path.into(),
            carry: Carry::Bearer,
            refused: Refusals::new([401, 403]).unwrap(),
            login_path: Some("/login".into()),
        };
        client.page(&spec, Some(token)).await.into()
    };
    let mut unwell = vec![];
    for path in UNWELL {
        unwell.push((path.to_owned(), open(path, &live).await));
    }
    Some(Sat {
        right: open("/rbac", &live).await,
        wrong: open("/rbac", &Secret::new("wrong")).await,
        unwell,
    })
}

async fn refresh() -> Option<Sat> {
    let panel = panel::Panel::start().await;
    let client = Client::new(&panel.url(), &Tls::default(), LIMIT).unwrap();
    let live = tokens(&client).await.refresh.unwrap();
    let trade = async |path: &str, token: &Secret| -> Answer {
        let spec = RefreshSpec {
            path: path.into(),
            send: SendRefresh::JsonField("refreshToken".into()),
            access: TokenAt::Json("/accessToken".into()),
            refresh: None,
            refused: Refusals::default(),
        };
        client.refresh(&spec, token).await.into()
    };
    let mut unwell = vec![];
    for path in UNWELL.into_iter().chain(["/html"]) {
        unwell.push((path.to_owned(), trade(path, &live).await));
    }
    Some(Sat {
        right: trade("/api/refresh", &live).await,
        wrong: trade("/api/refresh", &Secret::new("wrong")).await,
        unwell,
    })
}

/// Each way in which a simulated provider fails.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(418),
        Fault::Redirect("/elsewhere".into()),
        Fault::Garbage,
        Fault::Endless,
        Fault::Hangs,
    ]
}

async fn proxmox() -> Option<Sat> {
    let providers = Providers::new();
    providers.known().proxmox.refusal_takes = Duration::ZERO;
    let known = Known {
        value: "right".into(),
        privsep: true,
        expire: 0,
        comment: None,
    };
    let key = ("panel@pve".to_owned(), "web".to_owned());
    providers.known().proxmox.tokens.insert(key, known);
    let url = providers.serve().await.unwrap();
    let api = Proxmox::new(&url, &Tls::default(), LIMIT).unwrap();
    let ask = async |value: &str| -> Answer {
        let token = Token {
            user: "panel@pve".into(),
            id: "web".into(),
            value: Secret::new(value),
        };
        api.accepts(&token).await.into()
    };
    let (right, wrong) = (ask("right").await, ask("wrong").await);
    let mut unwell = vec![];
    // Its least limit is long, and a server that hangs is a matter of the client, which others show.
    for fault in faults().into_iter().filter(|f| *f != Fault::Hangs) {
        providers.known().fault = Some(fault.clone());
        unwell.push((format!("{fault:?}"), ask("right").await));
    }
    Some(Sat {
        right,
        wrong,
        unwell,
    })
}
