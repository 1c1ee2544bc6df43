//! Whom the client trusts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keyroll_providers::http::{Answer, Client, Fingerprint, HttpUnknown, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority in a file, and a server at the returned port with its certificate for `panel.test`.
async fn server(directory: &Path) -> (PathBuf, u16) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = directory.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["panel.test".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate)],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (file, port)
}

async fn ask(host: &str, port: u16, ca_file: Option<PathBuf>) -> Answer {
    ask_trusting(host, port, ca_file, vec![]).await
}

async fn ask_trusting(
    host: &str,
    port: u16,
    ca_file: Option<PathBuf>,
    pins: Vec<Fingerprint>,
) -> Answer {
    let tls = Tls {
        ca_file,
        pins,
        connect_to: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let url = format!("https://{host}:{port}");
    let client = Client::new(&url, &tls, Duration::from_secs(5)).unwrap();
    client.health("/").await
}

#[tokio::test]
async fn the_profiles_authority_is_trusted_for_the_right_name_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (file, port) = server(directory.path()).await;
    let right = ask("panel.test", port, Some(file.clone())).await;
    assert!(right.is_success(), "{right:?}");
    let wrong = ask("other.test", port, Some(file)).await;
    assert!(
        matches!(&wrong, Answer::Unknown(why @ HttpUnknown::Tls { .. })
            if why.to_string().contains("with other.test failed") && why.to_string().contains("name")),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn an_authority_that_is_not_the_profiles_is_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (_, port) = server(directory.path()).await;
    let others = tempfile::tempdir().unwrap();
    let (file, _) = server(others.path()).await;
    let answer = ask("panel.test", port, Some(file)).await;
    assert!(
        matches!(&answer, Answer::Unknown(why @ HttpUnknown::Tls { .. }) if why.was_never_sent()),
        "{answer:?}"
    );
    let Answer::Unknown(why) = answer else {
        return;
    };
    let told = why.to_string();
    assert!(
        told.contains("with panel.test failed") && told.contains("http.ca_file"),
        "{told}"
    );
}

#[tokio::test]
async fn a_pinned_certificate_is_trusted_for_itself_and_another_is_told_by_its_fingerprint() {
    let directory = tempfile::tempdir().unwrap();
    let (_, port) = server(directory.path()).await;
    let none: Fingerprint = ["00"; 32].join(":").parse().unwrap();
    let wrong = ask_trusting("panel.test", port, None, vec![none]).await;
    let Answer::Unknown(why @ HttpUnknown::Tls { .. }) = &wrong else {
        panic!("{wrong:?}");
    };
    // What it says can be compared with the node's own and put into the profile.
    let told = why.to_string();
    let seen = told
        .split_whitespace()
        .find(|w| w.matches(':').count() == 31);
    let seen: Fingerprint = seen.unwrap().trim_end_matches(',').parse().unwrap();
    let right = ask_trusting("node.test", port, None, vec![none, seen]).await;
    assert!(right.is_success(), "{right:?}");
}
