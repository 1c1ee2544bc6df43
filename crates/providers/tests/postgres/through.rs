//! Another way to the server than TCP from here. Here it is a stream inside this process, passed on to the server.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyroll_providers::postgres::{
    Address, Connect, Endpoint, Login, LoginUnknown, Opening, PathCheck, PostgresError, Session,
    Stream, VerifierKind, proves_passwords, try_login,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Cut, LIMIT, OLD, ROOT, Server, name, refused, secret, verifier};

/// Passes bytes on to a port of this host, or fails in one of three ways.
#[derive(Debug)]
enum Through {
    Port(u16),
    /// As a container that speaks for the server, and wants to know the password.
    Asks(Arc<Mutex<Vec<u8>>>),
    NoWay,
    /// As a command that ends at once.
    Closed,
    Hangs,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("db:5432 through container panel-api-1")
    }
}

impl Connect for Through {
    fn connect(&self) -> Opening<'_> {
        Box::pin(async move {
            let (near, mut far) = tokio::io::duplex(1024);
            match self {
                Self::Port(port) => {
                    let mut server = TcpStream::connect(("127.0.0.1", *port)).await?;
                    tokio::spawn(async move {
                        let _ = tokio::io::copy_bidirectional(&mut far, &mut server).await;
                    });
                }
                Self::Asks(heard) => {
                    let heard = Arc::clone(heard);
                    tokio::spawn(async move {
                        // In pieces, as it may come.
                        for piece in [&b"R\0\0\0"[..], b"\x08\0\0\0\x03"] {
                            far.write_all(piece).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                        let mut bytes = vec![];
                        let _ = far.read_to_end(&mut bytes).await;
                        heard.lock().unwrap().extend(bytes);
                    });
                }
                Self::NoWay => return Err(io::Error::other("the container is gone")),
                Self::Closed => far.shutdown().await?,
                Self::Hangs => {
                    tokio::spawn(async move {
                        let _far = far;
                        std::future::pending::<()>().await;
                    });
                }
            }
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

fn through(way: Through, role: &str) -> Endpoint {
    Endpoint {
        address: Address::through(way),
        database: "panel".into(),
        role: role.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_relay_the_right_password_is_accepted_and_a_wrong_one_refused() {
    let Some(server) = Server::start().await else {
        return;
    };
    let path = through(Through::Port(server.relay().port), "panel");
    assert_eq!(proves_passwords(&path, LIMIT).await, PathCheck::Proves);
    let (good, bad) = (secret(OLD), secret("wrong"));
    let (yes, no) = tokio::join!(
        try_login(&path, &good, LIMIT),
        try_login(&path, &bad, LIMIT)
    );
    assert_eq!((yes, no), (Login::Accepted, refused()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_to_the_server_from_loopback_is_void() {
    let Some(server) = Server::start().await else {
        return;
    };
    let trusted = through(Through::Port(server.port()), "panel");
    assert_eq!(proves_passwords(&trusted, LIMIT).await, PathCheck::Void);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_set_through_a_relay_and_a_lost_answer_to_its_commit_is_indeterminate() {
    let Some(server) = Server::start().await else {
        return;
    };
    let path = through(Through::Port(server.relay().port), "postgres");
    let open = async || Session::open(&path, &secret(ROOT), &name("r-1"), LIMIT).await;
    let mut session = open().await.unwrap();
    assert!(
        session.at().ends_with("through container panel-api-1"),
        "{}",
        session.at()
    );
    let before = session.stored_password("panel").await.unwrap();
    let new = verifier(VerifierKind::default(), "panel", "new-panel-password-2");
    session.set_password("panel", &before, &new).await.unwrap();
    session.close().await;
    let panel = through(Through::Port(server.relay().port), "panel");
    assert_eq!(try_login(&panel, &secret(OLD), LIMIT).await, refused());

    let mut session = open().await.unwrap();
    server.relay().cut(Cut::AfterCommit);
    let back = session.set_password("panel", &new, &before).await;
    assert!(
        matches!(back, Err(PostgresError::Indeterminate { .. })),
        "{back:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_says_nothing_about_the_password() {
    let short = Duration::from_millis(300);
    let why =
        async |way: Through| match try_login(&through(way, "panel"), &secret(OLD), short).await {
            Login::Unknown(why) => why,
            other => panic!("{other:?} is a verdict"),
        };
    assert_eq!(
        why(Through::NoWay).await,
        LoginUnknown::Unreachable("the container is gone".into())
    );
    assert!(matches!(
        why(Through::Closed).await,
        LoginUnknown::Unreachable(_)
    ));
    assert_eq!(why(Through::Hangs).await, LoginUnknown::TimedOut(short));
    assert!(matches!(
        proves_passwords(&through(Through::NoWay, "panel"), short).await,
        PathCheck::Unknown(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_for_the_password_in_clear_does_not_get_it() {
    let heard = Arc::new(Mutex::new(vec![]));
    let path = through(Through::Asks(Arc::clone(&heard)), "panel");
    let login = try_login(&path, &secret(OLD), LIMIT).await;
    assert!(
        matches!(&login, Login::Unknown(LoginUnknown::Protocol(why)) if why.contains("in clear")),
        "{login:?}"
    );
    let deadline = Instant::now() + LIMIT;
    while heard.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the stream was never closed");
        tokio::task::yield_now().await;
    }
    let heard = heard.lock().unwrap();
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("panel") && !text.contains(OLD), "{text:?}");
}
