//! Whom to trust, and where the panel really is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use super::pin::{Fingerprint, Pinned};

/// Where distributions keep their bundle: Debian and Arch, Fedora and RHEL, SUSE, Alpine. Read by path, so that no
/// environment variable (`SSL_CERT_FILE`) decides whom a rotation trusts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to come to the panel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trust the authorities in this PEM file *instead of* the system's. A server's own self-signed certificate works too,
    /// unless it is marked as an authority.
    pub ca_file: Option<PathBuf>,
    /// Trust a server whose own certificate has one of these SHA-256 fingerprints, whatever name, authority or date it has, *instead
    /// of* any authority. It is what Proxmox users do: a node's certificate is signed by the cluster itself.
    pub pins: Vec<Fingerprint>,
    /// Connect to this address for the host of the base URL (also without TLS): past DNS, with the certificate still
    /// checked against the host's name.
    pub connect_to: Option<IpAddr>,
}

/// Why the trust could not be set up. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file could not be read as PEM.
    #[error("{path}: no certificates could be read: {why}; nothing was sent")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The file holds no certificate that can be an authority.
    #[error("{path}: holds no usable certificate (PEM, BEGIN CERTIFICATE); nothing was sent")]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
    /// The system has no bundle where one is looked for.
    #[error("none of the system's certificate bundles exists ({}); install ca-certificates, or give a CA file in the profile", BUNDLES.join(", "))]
    NoSystemBundle,
    /// rustls could not be set up.
    #[error("TLS could not be set up: {0}")]
    Setup(String),
}

/// The client's TLS settings, with ring, installed nowhere globally. Reads files; blocks for milliseconds.
pub(super) fn config(tls: &Tls, is_https: bool) -> Result<ClientConfig, TlsError> {
    let roots = if !is_https || !tls.pins.is_empty() {
        RootCertStore::empty()
    } else {
        read(&authorities(tls.ca_file.as_deref())?)?
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Setup(e.to_string()))?;
    if tls.pins.is_empty() {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let verifier = Pinned {
        pins: tls.pins.clone(),
        provider,
    };
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// The file with the authorities to trust: this one, else the system's.
pub(crate) fn authorities(ca_file: Option<&Path>) -> Result<PathBuf, TlsError> {
    let system = || BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let found = ca_file.or_else(system);
    found.map(Path::to_owned).ok_or(TlsError::NoSystemBundle)
}

fn read(path: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |e: rustls::pki_types::pem::Error| TlsError::Unreadable {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold a few that webpki does not read; a file with none at all is an error.
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(TlsError::NoCertificates {
            path: path.to_owned(),
        });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let tls = Tls {
            ca_file: Some(path.clone()),
            ..Tls::default()
        };
        let missing = config(&tls, true).unwrap_err();
        assert!(matches!(missing, TlsError::Unreadable { .. }), "{missing}");
        std::fs::write(&path, "no pem at all").unwrap();
        let empty = config(&tls, true).unwrap_err().to_string();
        assert!(empty.contains("ca.pem"), "{empty}");
        assert!(config(&tls, false).is_ok(), "plain HTTP needs no authority");
    }
}
