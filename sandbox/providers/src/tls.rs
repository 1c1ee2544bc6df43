//! Providers behind TLS, with certificates that are made on the spot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Providers;

/// A certificate for this machine, and the authority that has signed it.
#[derive(Debug)]
pub struct Certificate {
    /// The authority's own, PEM.
    pub authority: String,
    /// The certificate, PEM.
    pub pem: String,
    /// Its key, PEM (PKCS #8).
    pub key: String,
    /// SHA-256 of the certificate: hexadecimal, joined by colons.
    pub fingerprint: String,
    der: (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>),
}

impl Certificate {
    /// Makes one for `localhost` and 127.0.0.1, which ended years ago if it is `expired`.
    pub fn make(expired: bool) -> io::Result<Self> {
        let failed = |e: rcgen::Error| io::Error::other(e.to_string());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_key = KeyPair::generate().map_err(failed)?;
        let authority = CertifiedIssuer::self_signed(params, own_key).map_err(failed)?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(failed)?;
        if expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().map_err(failed)?;
        let signed = params.signed_by(&key, &authority).map_err(failed)?;
        let hash = Sha256::digest(signed.der());
        let hash: Vec<String> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            authority: authority.pem(),
            pem: signed.pem(),
            key: key.serialize_pem(),
            fingerprint: hash.join(":"),
            der: (
                signed.der().clone(),
                PrivatePkcs8KeyDer::from(key.serialize_der()),
            ),
        })
    }
}

struct Sealed {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Sealed {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Who does not trust the certificate hangs up.
            if let Ok((stream, from)) = self.listener.accept().await
                && let Ok(sealed) = self.acceptor.accept(stream).await
            {
                return (sealed, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Providers {
    /// As [`Providers::serve`], over TLS with this certificate.
    pub async fn serve_sealed(&self, certificate: &Certificate) -> io::Result<String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = &certificate.der;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![chain.clone()], PrivateKeyDer::from(key.clone_key()))
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let sealed = Sealed {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        let router = self.router();
        tokio::spawn(async move { axum::serve(sealed, router).await });
        Ok(url)
    }
}
