//! One panel, one way to it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE};
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
pub(super) struct Parcel<'a> {
    pub(super) json: Option<Value>,
    pub(super) bearer: Option<&'a Secret>,
    pub(super) cookie: Option<(&'a str, &'a Secret)>,
}

/// A whole answer, before anybody judged it.
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<u64>,
    pub(super) cookies: Vec<(String, Secret)>,
    pub(super) body: Body,
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
            limit,
        })
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
    pub(super) async fn send(
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
        if let Some(token) = parcel.bearer {
            request = request.header(
                AUTHORIZATION,
                sensitive(&format!("Bearer {}", token.expose()))?,
            );
        }
        if let Some((name, token)) = parcel.cookie {
            request = request.header(COOKIE, sensitive(&format!("{name}={}", token.expose()))?);
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
        } else if error.is_connect() && holds_rustls(&error) {
            HttpUnknown::Tls(why)
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

/// A header value that the HTTP library does not print.
fn sensitive(text: &str) -> Result<HeaderValue, HttpUnknown> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        HttpUnknown::Unreachable("the token has characters that no HTTP header can carry".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a TLS error is among the causes. `io::Error` hides what it wraps from `source`.
fn holds_rustls(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|inner| holds_rustls(inner))
        || error.source().is_some_and(holds_rustls)
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
            ca_file: None,
            connect_to: Some([127, 0, 0, 1].into()),
        };
        assert!(Client::new("http://10.0.0.1", &tls, Duration::from_secs(1)).is_err());
        assert!(Client::new("http://panel.test", &tls, Duration::from_secs(1)).is_ok());
    }
}
