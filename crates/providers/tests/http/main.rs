//! Against a panel in the test's own process.

mod panel;
mod tls;

use std::time::Duration;

use keyroll_providers::http::{
    Answer, Carry, Client, HttpUnknown, LoginAnswer, PageAnswer, PageCheck, PageSpec, RefreshSpec,
    Refusals, SendRefresh, Tls, TokenAt, Tokens, WrongLoginBudget, jwt,
};
use keyroll_secret::Secret;
use panel::{ADMIN, KEY, Panel, RIGHT, login_at};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(5);

fn page_at(path: &str) -> PageSpec {
    PageSpec {
        path: path.into(),
        carry: Carry::Bearer,
        refused: Refusals::new([401, 403]).unwrap(),
        login_path: Some("/login".into()),
    }
}

fn client(panel: &Panel, limit: Duration) -> Client {
    Client::new(&panel.url(), &Tls::default(), limit).unwrap()
}

/// A login with plenty of budget.
async fn login(client: &Client, path: &str, password: &str) -> LoginAnswer {
    let budget = WrongLoginBudget::new(100, 0);
    client
        .login(&login_at(path), ADMIN, &Secret::new(password), &budget)
        .await
        .unwrap()
}

fn tokens(answer: LoginAnswer) -> Tokens {
    match answer {
        LoginAnswer::Accepted(tokens) => tokens,
        other => panic!("not accepted: {other:?}"),
    }
}

fn unknown(answer: LoginAnswer) -> HttpUnknown {
    match answer {
        LoginAnswer::Unknown(why) => why,
        other => panic!("a verdict: {other:?}"),
    }
}

#[tokio::test]
async fn the_right_password_gives_tokens_and_a_wrong_one_a_refusal() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    let given = tokens(login(&client, "/api/login", RIGHT).await);
    assert!(given.refresh.is_some());
    let page = page_at("/rbac");
    assert_eq!(
        client.page(&page, Some(&given.access)).await,
        PageAnswer::Served(200)
    );
    assert!(matches!(
        login(&client, "/api/login", "wrong").await,
        LoginAnswer::Refused(401)
    ));
    let shown = format!("{given:?}");
    assert!(!shown.contains(given.access.expose()), "{shown}");
}

#[tokio::test]
async fn nothing_but_a_listed_status_is_a_refusal() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    for status in [423, 429] {
        let why = unknown(login(&client, &format!("/status/{status}"), RIGHT).await);
        let limited = HttpUnknown::Limited {
            status,
            retry_after: Some(30),
        };
        assert_eq!(why, limited);
    }
    for status in [500, 502, 503] {
        let why = unknown(login(&client, &format!("/status/{status}"), RIGHT).await);
        assert_eq!(why, HttpUnknown::ServerError(status));
    }
    for status in [302, 400, 403, 404, 422] {
        let why = unknown(login(&client, &format!("/status/{status}"), RIGHT).await);
        assert!(
            matches!(why, HttpUnknown::Unexpected { .. }),
            "{status}: {why}"
        );
    }
    let mut spec = login_at("/status/422");
    spec.refused = Refusals::new([401, 422]).unwrap();
    let budget = WrongLoginBudget::new(9, 0);
    let listed = client
        .login(&spec, ADMIN, &Secret::new("x"), &budget)
        .await
        .unwrap();
    assert!(matches!(listed, LoginAnswer::Refused(422)));
}

#[tokio::test]
async fn a_success_without_a_token_is_no_login() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    for path in ["/html", "/second-factor", "/huge"] {
        let why = unknown(login(&client, path, RIGHT).await);
        assert!(matches!(why, HttpUnknown::Garbage { .. }), "{path}: {why}");
    }
}

#[tokio::test]
async fn silence_before_or_within_an_answer_ends_at_the_limit() {
    let short = Duration::from_millis(300);
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"] {
        let (url, _) = panel::raw(answer, false).await;
        let client = Client::new(&url, &Tls::default(), short).unwrap();
        let why = unknown(login(&client, "/api/login", RIGHT).await);
        assert_eq!(why, HttpUnknown::TimedOut(short), "{answer:?}");
        let health = client.health("/").await;
        assert!(
            matches!(health, Answer::Unknown(HttpUnknown::TimedOut(_))),
            "{health:?}"
        );
    }
}

#[tokio::test]
async fn half_an_answer_or_no_http_at_all_is_no_verdict() {
    for answer in [
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nhalf",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let (url, _) = panel::raw(answer, true).await;
        let client = Client::new(&url, &Tls::default(), LIMIT).unwrap();
        let why = unknown(login(&client, "/api/login", RIGHT).await);
        assert!(matches!(why, HttpUnknown::Broken(_)), "{answer:?}: {why}");
    }
}

#[tokio::test]
async fn health_gives_whatever_status_came_and_keeps_a_body_short() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    assert!(client.health("/api/health").await.is_success());
    let sick = client.health("/status/503").await;
    assert!(
        matches!(sick, Answer::Status { status: 503, .. }),
        "{sick:?}"
    );
    let Answer::Status { body, .. } = client.health("/huge").await else {
        panic!("no answer")
    };
    assert_eq!(body.text().len(), 64 * 1024);
    let Answer::Status {
        status, location, ..
    } = client.health("/to-login").await
    else {
        panic!("no answer")
    };
    assert_eq!((status, location.as_deref()), (302, Some("/login?next=1")));
}

#[tokio::test]
async fn a_page_that_everybody_may_see_is_void_and_a_guarded_one_proves() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    let check = async |path: &str| client.page_proves_sessions(&page_at(path)).await;
    assert_eq!(check("/rbac").await, PageCheck::Proves);
    assert_eq!(check("/to-login").await, PageCheck::Proves);
    assert_eq!(check("/html").await, PageCheck::Void);
    assert!(matches!(check("/status/500").await, PageCheck::Unknown(_)));
    assert!(matches!(check("/status/404").await, PageCheck::Unknown(_)));
    assert!(matches!(
        check("/elsewhere").await,
        PageCheck::Unknown(HttpUnknown::Unexpected { status: 302, .. })
    ));
}

#[tokio::test]
async fn a_token_in_a_cookie_is_found_and_carried_as_one() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    let mut spec = login_at("/api/cookie-login");
    spec.access = TokenAt::Cookie("session".into());
    spec.refresh = Some(TokenAt::Cookie("refresh".into()));
    let budget = WrongLoginBudget::new(9, 0);
    let given = client
        .login(&spec, ADMIN, &Secret::new(RIGHT), &budget)
        .await;
    let given = tokens(given.unwrap());
    let mut page = page_at("/cookie-page");
    page.carry = Carry::Cookie("session".into());
    assert_eq!(client.page(&page, None).await, PageAnswer::Refused(401));
    assert_eq!(
        client.page(&page, Some(&given.access)).await,
        PageAnswer::Served(200)
    );
    let refresh = RefreshSpec {
        path: "/api/cookie-refresh".into(),
        send: SendRefresh::Cookie("refresh".into()),
        access: TokenAt::Cookie("session".into()),
        refresh: None,
        refused: Refusals::default(),
    };
    let token = given.refresh.unwrap();
    tokens(client.refresh(&refresh, &token).await);
    assert!(matches!(
        client.refresh(&refresh, &Secret::new("dead")).await,
        LoginAnswer::Refused(401)
    ));
}

#[tokio::test]
async fn a_refresh_token_is_traded_and_a_dead_one_refused() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    let given = tokens(login(&client, "/api/login", RIGHT).await);
    for send in [
        SendRefresh::JsonField("refreshToken".into()),
        SendRefresh::Bearer,
    ] {
        let spec = RefreshSpec {
            path: "/api/refresh".into(),
            send,
            access: TokenAt::Json("/accessToken".into()),
            refresh: Some(TokenAt::Json("/refreshToken".into())),
            refused: Refusals::default(),
        };
        let token = given.refresh.clone().unwrap();
        tokens(client.refresh(&spec, &token).await);
        assert!(matches!(
            client.refresh(&spec, &Secret::new("dead")).await,
            LoginAnswer::Refused(401)
        ));
    }
    let broken = RefreshSpec {
        path: "/status/500".into(),
        send: SendRefresh::Bearer,
        access: TokenAt::Json("/accessToken".into()),
        refresh: None,
        refused: Refusals::default(),
    };
    let why = unknown(client.refresh(&broken, &Secret::new("t")).await);
    assert_eq!(why, HttpUnknown::ServerError(500));
}

#[tokio::test]
async fn the_claims_of_a_live_session_are_refused_under_another_key() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    let live = tokens(login(&client, "/api/login", RIGHT).await).access;
    assert!(jwt::signed_with(&live, &Secret::new(KEY)).unwrap());
    let page = page_at("/rbac");
    let old = jwt::resign(&live, &Secret::new("the-old-key")).unwrap();
    assert_eq!(
        client.page(&page, Some(&old)).await,
        PageAnswer::Refused(401)
    );
    let same = jwt::resign(&old, &Secret::new(KEY)).unwrap();
    assert_eq!(
        client.page(&page, Some(&same)).await,
        PageAnswer::Served(200)
    );
}

#[tokio::test]
async fn only_logins_that_cannot_have_gone_wrong_are_given_back() {
    let panel = Panel::start().await;
    let client = client(&panel, Duration::from_millis(500));
    let budget = WrongLoginBudget::new(4, 0);
    let attempt = async |client: &Client, path: &str, password: &str| {
        client
            .login(&login_at(path), ADMIN, &Secret::new(password), &budget)
            .await
    };
    attempt(&client, "/api/login", RIGHT).await.unwrap();
    assert_eq!(budget.spent(), 0, "accepted");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = Client::new(&nobody, &Tls::default(), LIMIT).unwrap();
    let why = unknown(attempt(&nobody, "/api/login", RIGHT).await.unwrap());
    assert!(matches!(why, HttpUnknown::Unreachable(_)), "{why}");
    assert_eq!(budget.spent(), 0, "never sent");
    for (path, spent) in [("/api/login", 1), ("/hang", 2), ("/status/500", 3)] {
        attempt(&client, path, "wrong").await.unwrap();
        assert_eq!(budget.spent(), spent, "{path}");
    }
    let before = panel.logins();
    assert!(attempt(&client, "/api/login", RIGHT).await.is_err());
    assert_eq!(panel.logins(), before, "nothing was sent");
}

#[tokio::test]
async fn a_login_whose_connection_breaks_is_not_tried_again_behind_the_callers_back() {
    let (url, seen) = panel::raw("", true).await;
    let client = Client::new(&url, &Tls::default(), LIMIT).unwrap();
    let why = unknown(login(&client, "/api/login", RIGHT).await);
    assert!(matches!(why, HttpUnknown::Broken(_)), "{why}");
    assert_eq!(seen.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_answer_shows_a_password_or_a_token() {
    let panel = Panel::start().await;
    let client = client(&panel, LIMIT);
    for path in ["/echo", "/status/500", "/api/login"] {
        let shown = format!("{:?}", login(&client, path, RIGHT).await);
        assert!(!shown.contains(RIGHT), "{path}: {shown}");
    }
    let answer = client.health("/second-factor").await;
    assert!(!format!("{answer:?}").contains("factor"), "{answer:?}");
}
