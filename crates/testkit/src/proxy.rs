//! nginx with TLS before the panel, as the reference deployment has it.
//!
//! Its certificate is signed by an authority that is made for the one stack and known to nobody else.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{TestkitError, tree};

/// The name in the certificate. It leads nowhere: whoever asks connects to this machine for it.
pub(crate) const HOST: &str = "panel.example.com";
/// Where [`HOST`] is.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Its configuration and certificate, from the root of the deployment.
const DIRECTORY: &str = "proxy";

/// How the proxy finds api.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// By its name, again and again.
    Always,
    /// By its name, once at the proxy's own start.
    Once,
}

/// A proxy, as its clients have to know it.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// On this machine.
    pub(crate) port: u16,
    /// The authority's certificate, PEM.
    pub(crate) authority: PathBuf,
}

impl Proxy {
    /// Writes configuration and certificate below `root`.
    pub(crate) fn write(root: &Path, port: u16, lookup: Lookup) -> Result<Self, TestkitError> {
        let directory = root.join(DIRECTORY);
        fs::create_dir(&directory).map_err(TestkitError::io(&directory))?;
        let name = match lookup {
            Lookup::Always => "panel.conf",
            Lookup::Once => "looked-up-once.conf",
        };
        let source = tree::repository().join("sandbox/nginx").join(name);
        let configuration = directory.join("panel.conf");
        fs::copy(&source, &configuration).map_err(TestkitError::io(&source))?;
        let authority = directory.join("authority.pem");
        certificate(&directory, &authority)?;
        Ok(Self { port, authority })
    }

    /// Where the panel is reached.
    pub(crate) fn url(&self) -> String {
        format!("https://{HOST}:{}", self.port)
    }

    /// The service in the compose file, which goes before the top-level volumes.
    pub(crate) fn service(&self) -> String {
        format!(
            r#"  proxy:
    image: keyroll-sandbox-nginx:1
    restart: unless-stopped
    ports:
      - "{ADDRESS}:{}:443"
    volumes:
      - ../../{DIRECTORY}/panel.conf:/etc/nginx/conf.d/panel.conf:ro
      - ../../{DIRECTORY}/tls:/etc/nginx/tls:ro
    depends_on:
      api:
        condition: service_healthy
    healthcheck:
      # Of nginx alone: a proxy goes on while the panel behind it is recreated.
      test: ["CMD", "curl", "-fsSk", "-o", "/dev/null", "https://127.0.0.1/proxy-is-up"]
      interval: 1s
      timeout: 2s
      retries: 5
    stop_grace_period: 2s

"#,
            self.port
        )
    }
}

/// Makes an authority, and a certificate of it for [`HOST`].
fn certificate(directory: &Path, authority_file: &Path) -> Result<(), TestkitError> {
    let failed = |e: rcgen::Error| TestkitError::Unexpected(format!("a certificate: {e}"));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?)
        .map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])
        .and_then(|params| params.signed_by(&key, &authority))
        .map_err(failed)?;

    let tls = directory.join("tls");
    fs::create_dir(&tls).map_err(TestkitError::io(&tls))?;
    let key_file = tls.join("panel.key");
    for (path, text) in [
        (authority_file, authority.pem()),
        (&tls.join("panel.crt"), certificate.pem()),
        (&key_file, key.serialize_pem()),
    ] {
        fs::write(path, text).map_err(TestkitError::io(path))?;
    }
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))
        .map_err(TestkitError::io(&key_file))
}
