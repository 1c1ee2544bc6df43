//! Which answers are verdicts.

use std::time::Duration;

use keyroll_providers::postgres::{
    Address, Endpoint, Login, LoginUnknown, PathCheck, PostgresError, Session, proves_passwords,
    try_login,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{LIMIT, OLD, Server, name, refused, secret};

#[tokio::test(flavor = "multi_thread")]
async fn the_right_password_is_accepted_and_a_wrong_one_refused() {
    let Some(server) = Server::start().await else {
        return;
    };
    server
        .sql("SET password_encryption = 'md5'; CREATE ROLE panel_md5 LOGIN PASSWORD 'md5-password'")
        .await;
    for (role, right) in [("panel", OLD), ("panel_md5", "md5-password")] {
        let path = server.checked("panel", role);
        let (good, bad) = (secret(right), secret("wrong"));
        let (yes, no) = tokio::join!(
            try_login(&path, &good, LIMIT),
            try_login(&path, &bad, LIMIT)
        );
        assert_eq!((yes, no), (Login::Accepted, refused()), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_trusts_everybody_is_void_and_one_that_checks_proves() {
    let Some(server) = Server::start().await else {
        return;
    };
    let trusted = server.trusted("panel", "panel");
    assert_eq!(
        try_login(&trusted, &secret("wrong"), LIMIT).await,
        Login::Accepted,
        "the trap itself"
    );
    assert_eq!(proves_passwords(&trusted, LIMIT).await, PathCheck::Void);
    let checked = server.checked("panel", "panel");
    assert_eq!(proves_passwords(&checked, LIMIT).await, PathCheck::Proves);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_about_the_password_is_unknown_even_when_it_is_right() {
    let Some(server) = Server::start().await else {
        return;
    };
    server
        .sql(&format!(
            "CREATE ROLE nologin PASSWORD '{OLD}'; CREATE ROLE full LOGIN CONNECTION LIMIT 0 PASSWORD '{OLD}'"
        ))
        .await;
    server.sql("CREATE DATABASE closed").await;
    let login = async |database: &str, role: &str| {
        try_login(&server.checked(database, role), &secret(OLD), LIMIT).await
    };
    let no_login = login("panel", "nologin").await;
    assert!(
        matches!(no_login, Login::Unknown(LoginUnknown::LoginNotAllowed(_))),
        "{no_login:?}"
    );
    let full = login("panel", "full").await;
    assert!(
        matches!(full, Login::Unknown(LoginUnknown::TooManyConnections(_))),
        "{full:?}"
    );
    let missing = login("nowhere", "panel").await;
    assert!(
        matches!(missing, Login::Unknown(LoginUnknown::NoSuchDatabase(_))),
        "{missing:?}"
    );
    let closed = login("closed", "panel").await;
    assert!(
        matches!(closed, Login::Unknown(LoginUnknown::NoWayIn(_))),
        "{closed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_password_looks_like_a_wrong_one_and_the_roles_facts_tell_them_apart() {
    let Some(server) = Server::start().await else {
        return;
    };
    server
        .sql("ALTER ROLE panel VALID UNTIL '2001-01-01'")
        .await;
    let path = server.checked("panel", "panel");
    assert_eq!(try_login(&path, &secret(OLD), LIMIT).await, refused());
    let facts = server
        .session("panel")
        .await
        .role_facts("panel")
        .await
        .unwrap();
    assert!(facts.expired && facts.can_login && !facts.superuser);
}

/// A server that answers every start-up with `answer`, or with silence.
async fn fake(answer: Option<Vec<u8>>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut startup = [0; 1024];
            let _ = stream.read(&mut startup).await;
            match &answer {
                Some(bytes) => stream.write_all(bytes).await.unwrap(),
                None => open.push(stream),
            }
        }
    });
    Endpoint {
        address: Address::name("127.0.0.1", port),
        database: "panel".into(),
        role: "panel".into(),
    }
}

/// An `ErrorResponse` of the wire protocol.
fn error(code: &str, message: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, value) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', code),
        (b'M', message),
    ] {
        fields.push(kind);
        fields.extend_from_slice(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap();
    let mut bytes = vec![b'E'];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&fields);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_hangs_hangs_up_or_talks_nonsense_gives_no_verdict() {
    let short = Duration::from_millis(300);
    let starting = fake(Some(error("57P03", "the database system is starting up"))).await;
    let hanging = fake(None).await;
    let silent = fake(Some(Vec::new())).await;
    let babbling = fake(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
    let mut nobody = starting.clone();
    // Bound and closed again: nothing listens there now.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nobody.address = Address::name("127.0.0.1", listener.local_addr().unwrap().port());
    drop(listener);

    let why = async |endpoint: &Endpoint| match try_login(endpoint, &secret(OLD), short).await {
        Login::Unknown(why) => why,
        other => panic!("{other:?} is a verdict"),
    };
    assert!(matches!(why(&starting).await, LoginUnknown::NotReady(_)));
    assert_eq!(why(&hanging).await, LoginUnknown::TimedOut(short));
    assert!(matches!(why(&silent).await, LoginUnknown::Unreachable(_)));
    assert!(matches!(why(&nobody).await, LoginUnknown::Unreachable(_)));
    let _ = why(&babbling).await;
    assert!(matches!(
        proves_passwords(&hanging, short).await,
        PathCheck::Unknown(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_server_echoes_is_not_repeated() {
    let echo = fake(Some(error("XX000", &format!("bad packet: {OLD}")))).await;
    let login = try_login(&echo, &secret(OLD), LIMIT).await;
    assert!(!format!("{login:?}").contains(OLD), "{login:?}");
    let opened = Session::open(&echo, &secret(OLD), &name("r"), LIMIT).await;
    let error = opened.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(OLD), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_wrong_password_is_refused_and_one_without_a_server_not_reached() {
    let Some(server) = Server::start().await else {
        return;
    };
    let open = async |endpoint: &Endpoint, password: &str| {
        Session::open(endpoint, &secret(password), &name("r"), LIMIT)
            .await
            .unwrap_err()
    };
    let wrong = open(&server.checked("panel", "panel"), "wrong").await;
    assert!(matches!(wrong, PostgresError::Refused { .. }), "{wrong}");
    let missing = open(&server.checked("nowhere", "panel"), OLD).await;
    assert!(
        matches!(missing, PostgresError::NotReached { .. }),
        "{missing}"
    );
}
