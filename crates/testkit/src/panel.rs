//! The panel as a visitor sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyroll_secret::Secret;
use reqwest::RequestBuilder;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::TestkitError;
use crate::proxy::{self, Proxy};

const LIMIT: Duration = Duration::from_secs(10);

/// A client of one panel.
#[derive(Debug, Clone)]
pub struct Panel {
    client: reqwest::Client,
    base: String,
}

/// What a login gives.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// For pages; good for 15 minutes.
    pub access: Secret,
    /// For new access tokens; good for 7 days.
    pub refresh: Secret,
}

/// The answer to a login.
#[derive(Debug, Clone)]
pub struct LoginReply {
    /// 200, 401 (wrong), 423 (locked), 5xx.
    pub status: u16,
    /// With 200.
    pub tokens: Option<Tokens>,
}

/// The answer to a refresh.
#[derive(Debug, Clone)]
pub struct RefreshReply {
    /// 200, 401, 5xx.
    pub status: u16,
    /// The new access token, with 200.
    pub access: Option<Secret>,
}

impl Panel {
    /// A client for the panel at `base`, such as `http://127.0.0.1:20001`. It takes no proxy from the environment and follows
    /// no redirect.
    pub fn new(base: impl Into<String>) -> Result<Self, TestkitError> {
        Self::trusting(base.into(), RootCertStore::empty())
    }

    /// A client that comes to the panel through the stack's own proxy.
    pub(crate) fn behind(proxy: &Proxy) -> Result<Self, TestkitError> {
        let unexpected =
            |why: String| TestkitError::Unexpected(format!("{}: {why}", proxy.authority.display()));
        let certificate = CertificateDer::from_pem_file(&proxy.authority)
            .map_err(|e| unexpected(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate)
            .map_err(|e| unexpected(e.to_string()))?;
        Self::trusting(proxy.url(), roots)
    }

    fn trusting(base: String, roots: RootCertStore) -> Result<Self, TestkitError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TestkitError::Unexpected(format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .resolve(proxy::HOST, SocketAddr::new(proxy::ADDRESS, 0))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .build()
            .map_err(|source| TestkitError::Http {
                url: base.clone(),
                source,
            })?;
        Ok(Self { client, base })
    }

    /// The status of `GET /api/health`.
    pub async fn health(&self) -> Result<u16, TestkitError> {
        self.page("/api/health", None).await
    }

    /// Logs in.
    pub async fn login(&self, email: &str, password: &Secret) -> Result<LoginReply, TestkitError> {
        let (status, body) = self
            .post(
                "/api/auth/login",
                &json!({ "email": email, "password": password.expose() }),
            )
            .await?;
        let token = |name: &str| Some(Secret::new(body[name].as_str()?));
        let tokens = token("accessToken")
            .zip(token("refreshToken"))
            .map(|(access, refresh)| Tokens { access, refresh });
        Ok(LoginReply { status, tokens })
    }

    /// The status of a page, with an access token or without.
    pub async fn page(&self, path: &str, access: Option<&Secret>) -> Result<u16, TestkitError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.get(&url);
        if let Some(token) = access {
            request = request.bearer_auth(token.expose());
        }
        Ok(self.send(request, &url).await?.status().as_u16())
    }

    /// Asks for a new access token.
    pub async fn refresh(&self, refresh: &Secret) -> Result<RefreshReply, TestkitError> {
        let (status, body) = self
            .post(
                "/api/auth/refresh",
                &json!({ "refreshToken": refresh.expose() }),
            )
            .await?;
        Ok(RefreshReply {
            status,
            access: body["accessToken"].as_str().map(Secret::new),
        })
    }

    /// The status of an event that is sent as it is, with one header: its signature.
    pub async fn event(
        &self,
        path: &str,
        header: (&'static str, &Secret),
        body: &str,
    ) -> Result<u16, TestkitError> {
        let url = format!("{}{path}", self.base);
        let request = self
            .client
            .post(&url)
            .header("content-type", "application/json")
            .header(header.0, header.1.expose())
            .body(body.to_owned());
        Ok(self.send(request, &url).await?.status().as_u16())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), TestkitError> {
        let url = format!("{}{path}", self.base);
        let answer = self.send(self.client.post(&url).json(body), &url).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or(Value::Null)))
    }

    async fn send(
        &self,
        request: RequestBuilder,
        url: &str,
    ) -> Result<reqwest::Response, TestkitError> {
        request.send().await.map_err(|source| TestkitError::Http {
            url: url.to_owned(),
            source: source.without_url(),
        })
    }
}
