//! One panel, one way to it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use reqwest::{Method, Url, redirect};
use serde_json::Value;
use thiserror::Error;

use keyroll_secret::Secret;

use super::answer::{Answer, Body, HttpUnknown};
use super::tls::{self, Tls, TlsError};
use crate::words::chain;

/// What is kept of a body: more than any login or health answer needs.
const BODY_LIMIT: usize = 64 * 1024;

/// A client for one panel.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
    base: String,
    host: String,
    port: u16,
    limit: Duration,
}

/// Why no client could be made. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The base URL is of no use.
    #[error("base URL {url:?}: {why}; mend it in the profile")]
    BaseUrl {
        /// As given, without a user part.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The trust could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP library refused the settings.
    #[error("the HTTP client could not be set up: {0}")]
    Setup(String),
}

/// What a request carries besides its path.
#[derive(Default)]
pub(crate) struct Parcel<'a> {
    pub(crate) json: Option<Value>,
    /// `application/x-www-form-urlencoded`, where it is not empty.
    pub(crate) form: Vec<(&'static str, Secret)>,
    /// A whole `Authorization` header, where it is not a bearer's.
    pub(crate) authorization: Option<Secret>,
    pub(crate) bearer: Option<&'a Secret>,
    pub(crate) cookie: Option<(&'a str, &'a Secret)>,
    /// A header of any name that holds a secret.
    pub(crate) header: Option<(&'static str, Secret)>,
}

/// A whole answer, before anybody judged it.
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) cookies: Vec<(String, Secret)>,
    pub(crate) body: Body,
}

impl Client {
    /// A client for the panel at `base_url` (`http` or `https`, perhaps with a path, no user part). Each request, with its
    /// whole answer, takes at most `limit`.
    pub fn new(base_url: &str, tls: &Tls, limit: Duration) -> Result<Self, ClientError> {
        let refuse = |why: &str| ClientError::BaseUrl {
            url: base_url
                .rsplit_once('@')
                .map_or(base_url, |(_, after)| after)
                .to_owned(),
            why: why.to_owned(),
        };
        let url = Url::parse(base_url).map_err(|e| refuse(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("it must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it must not hold a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it must not have a query or a fragment"));
        }
        let host = url.host_str().ok_or_else(|| refuse("it has no host"))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(tls, url.scheme() == "https")?)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            // A silent second try would count as a second wrong login.
            .retry(reqwest::retry::never())
            // A kept connection would still reach a container that is being replaced.
            .pool_max_idle_per_host(0)
            .timeout(limit)
            .user_agent(concat!("keyroll/", env!("CARGO_PKG_VERSION")));
        if let Some(ip) = tls.connect_to {
            if host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok()
            {
                return Err(refuse(
                    "it holds an address, so there is no name to connect elsewhere for",
                ));
            }
            // Port 0 keeps the URL's own.
            builder = builder.resolve(host, SocketAddr::new(ip, 0));
        }
        let inner = builder
            .build()
            .map_err(|e| ClientError::Setup(chain(&e.without_url())))?;
        Ok(Self {
            inner,
            base: url.as_str().trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            limit,
        })
    }

    /// The port of the base URL, its scheme's own where it names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// GET of a health path. Whatever status comes back is the answer; [`Answer::is_success`] is "healthy".
    pub async fn health(&self, path: &str) -> Answer {
        match self.send(Method::GET, path, Parcel::default()).await {
            Ok(raw) => Answer::Status {
                status: raw.status,
                location: raw.location,
                body: raw.body,
            },
            Err(why) => Answer::Unknown(why),
        }
    }

    /// Sends one request, once, and reads the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        parcel: Parcel<'_>,
    ) -> Result<Raw, HttpUnknown> {
        let url = format!("{}/{}", self.base, path.trim_start_matches('/'));
        let mut request = self.inner.request(method, url);
        if let Some(json) = &parcel.json {
            request = request.json(json);
        }
        if !parcel.form.is_empty() {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&parcel.form));
        }
        if let Some(token) = parcel.bearer {
            request = request.header(
                AUTHORIZATION,
                sensitive(&format!("Bearer {}", token.expose()))?,
            );
        }
        if let Some(whole) = &parcel.authorization {
            request = request.header(AUTHORIZATION, sensitive(whole.expose())?);
        }
        if let Some((name, token)) = parcel.cookie {
            request = request.header(COOKIE, sensitive(&format!("{name}={}", token.expose()))?);
        }
        if let Some((name, value)) = &parcel.header {
            request = request.header(*name, sensitive(value.expose())?);
        }
        let mut response = request.send().await.map_err(|e| self.unknown(e))?;
        let header = |name| {
            let value = response.headers().get(name);
            value.and_then(|v: &HeaderValue| v.to_str().ok())
        };
        let location = header(LOCATION).map(str::to_owned);
        let retry_after = header(RETRY_AFTER).and_then(|v| v.trim().parse().ok());
        let cookies = response
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .filter_map(|v| v.split(';').next()?.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), Secret::new(value.trim())))
            .collect();
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while bytes.len() < BODY_LIMIT {
            match response.chunk().await.map_err(|e| self.unknown(e))? {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        bytes.truncate(BODY_LIMIT);
        Ok(Raw {
            status,
            location,
            retry_after,
            cookies,
            body: Body::new(&bytes),
        })
    }

    fn unknown(&self, error: reqwest::Error) -> HttpUnknown {
        let error = error.without_url();
        let why = chain(&error);
        if error.is_timeout() {
            HttpUnknown::TimedOut(self.limit)
        } else if let Some(tls) = rustls_within(&error).filter(|_| error.is_connect()) {
            HttpUnknown::Tls {
                host: self.host.clone(),
                why: handshake(tls),
            }
        } else if error.is_connect() {
            HttpUnknown::Unreachable(why)
        } else {
            HttpUnknown::Broken(why)
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

fn form(fields: &[(&str, Secret)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value.expose())));
    pairs.collect::<Vec<_>>().join("&")
}

/// A header value that the HTTP library does not print.
fn sensitive(text: &str) -> Result<HeaderValue, HttpUnknown> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        HttpUnknown::Unreachable("the token has characters that no HTTP header can carry".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The TLS error among the causes. `io::Error` hides what it wraps from `source`.
fn rustls_within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error
        .downcast_ref()
        .or_else(|| rustls_within(wrapped?))
        .or_else(|| rustls_within(error.source()?))
}

/// What went wrong, and what to do where that is not in the words already.
fn handshake(error: &rustls::Error) -> String {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    match error {
        // The second where another authority of the same name is trusted, such as a former one of the same make.
        rustls::Error::InvalidCertificate(why @ (UnknownIssuer | BadSignature)) => {
            format!(
                "its certificate is not signed by an authority that is trusted here ({why:?}); if it is a private one, name its certificate in http.ca_file"
            )
        }
        // Our own words, where a pin did not fit.
        rustls::Error::General(why) => why.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_that_cannot_be_right_is_refused_without_repeating_a_password() {
        let limit = Duration::from_secs(1);
        for bad in [
            "my.host",
            "ftp://x",
            "http://u:hunter2@x",
            "http://x/?a=b",
            "http://",
        ] {
            let error = Client::new(bad, &Tls::default(), limit).unwrap_err();
            assert!(
                matches!(error, ClientError::BaseUrl { .. }),
                "{bad}: {error}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_address_has_no_name_to_connect_elsewhere_for() {
        let tls = Tls {
            connect_to: Some([127, 0, 0, 1].into()),
            ..Tls::default()
        };
        assert!(Client::new("http://10.0.0.1", &tls, Duration::from_secs(1)).is_err());
        assert!(Client::new("http://panel.test", &tls, Duration::from_secs(1)).is_ok());
    }
}
