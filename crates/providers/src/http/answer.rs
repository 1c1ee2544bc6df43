//! What came back, and what it is allowed to mean.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use keyroll_secret::Secret;
use thiserror::Error;

/// A raw answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The panel answered. 5xx too: what that means depends on the question.
    Status {
        /// The HTTP status.
        status: u16,
        /// The `Location` header of a redirect, as sent. It may hold a token: show no more of it than its path.
        location: Option<String>,
        /// The first 64 KiB of the body.
        body: Body,
    },
    /// No whole answer.
    Unknown(HttpUnknown),
}

/// A body, cut at 64 KiB. It may hold tokens, or echo what was sent, so `Debug` shows its length alone.
#[derive(Clone)]
pub struct Body(Secret);

/// Why an answer is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpUnknown {
    /// No connection: refused, no route, unknown name. The request was never sent.
    Unreachable(String),
    /// The TLS handshake failed: the certificate does not fit the name or the authority. The request was never sent.
    Tls {
        /// Whom the certificate was to be of.
        host: String,
        /// What was wrong.
        why: String,
    },
    /// No whole answer within this time.
    TimedOut(Duration),
    /// The connection broke in the middle of the request or the answer.
    Broken(String),
    /// The panel, or a gateway before it, failed (5xx).
    ServerError(u16),
    /// 423 Locked or 429 Too Many Requests: the panel did not look at the credential.
    Limited {
        /// 423 or 429.
        status: u16,
        /// `Retry-After` in seconds, if the panel says so in that form.
        retry_after: Option<u64>,
    },
    /// A status that neither accepts nor, by the profile, refuses.
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// What to make of it.
        why: String,
    },
    /// A success without what a success must hold.
    Garbage {
        /// The HTTP status.
        status: u16,
        /// What was missing, and where.
        why: String,
    },
}

/// The statuses that mean "this credential is refused" for one request, as the profile lists them.
///
/// The default is 401 alone. 400, 403, 404 and 422 are used by some panels for a wrong password, but also for a misspelt
/// field, a missing CSRF token or a firewall, so a profile has to say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(BTreeSet<u16>);

/// A status that can never mean a refused credential.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "HTTP status {0} cannot count as a refusal: only 4xx can, without 408, 423, 425 and 429, which say that nothing was looked at"
)]
pub struct InvalidRefusal(pub u16);

impl Answer {
    /// A 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Status { status, .. } if (200..300).contains(status))
    }
}

impl Body {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(Secret::new(String::from_utf8_lossy(bytes)))
    }

    /// The text, with invalid UTF-8 replaced. It may hold secrets: clean it before showing it.
    pub fn text(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.text().len())
    }
}

impl HttpUnknown {
    /// True when the panel certainly did not get the request.
    pub fn was_never_sent(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Tls { .. })
    }
}

impl fmt::Display for HttpUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the server could not be reached: {why}"),
            Self::Tls { host, why } => write!(f, "the TLS handshake with {host} failed: {why}"),
            Self::TimedOut(limit) => write!(f, "no whole answer within {limit:?}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::ServerError(status) => {
                write!(
                    f,
                    "the server or a gateway before it failed (HTTP {status})"
                )
            }
            Self::Limited {
                status,
                retry_after: Some(seconds),
            } => write!(
                f,
                "the server refuses to look for {seconds} more seconds (HTTP {status})"
            ),
            Self::Limited { status, .. } => {
                write!(f, "the server refuses to look for now (HTTP {status})")
            }
            Self::Unexpected { status, why } | Self::Garbage { status, why } => {
                write!(f, "HTTP {status}: {why}")
            }
        }
    }
}

impl Refusals {
    /// These statuses.
    pub fn new(statuses: impl IntoIterator<Item = u16>) -> Result<Self, InvalidRefusal> {
        statuses
            .into_iter()
            .map(|status| match status {
                408 | 423 | 425 | 429 => Err(InvalidRefusal(status)),
                400..=499 => Ok(status),
                _ => Err(InvalidRefusal(status)),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `status` is one of them.
    pub fn include(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self(BTreeSet::from([401]))
    }
}

/// What a status that neither accepts nor refuses means.
pub(super) fn no_verdict(
    status: u16,
    retry_after: Option<u64>,
    location: Option<&str>,
) -> HttpUnknown {
    match status {
        423 | 429 => HttpUnknown::Limited {
            status,
            retry_after,
        },
        500.. => HttpUnknown::ServerError(status),
        300..=399 => HttpUnknown::Unexpected {
            status,
            why: format!(
                "a redirect to {}, which the profile does not list as a refusal",
                location.map_or("nowhere", path_of)
            ),
        },
        404 | 405 => HttpUnknown::Unexpected {
            status,
            why: "the server does not know the path; check it in the profile".into(),
        },
        _ => HttpUnknown::Unexpected {
            status,
            why: "neither a success nor a refusal by the profile".into(),
        },
    }
}

/// The path that a `Location` leads to. What comes with it may be a live token that no redactor knows: a query, a fragment,
/// a parameter of the path, a user in the address.
fn path_of(location: &str) -> &str {
    let path = location.split(['?', '#', ';']).next().unwrap_or_default();
    let authority = path
        .split_once("://")
        .map(|(_, rest)| rest)
        .or_else(|| path.strip_prefix("//"));
    match authority {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        // Neither a path nor a web address, such as `app:token`.
        None if path
            .split('/')
            .next()
            .is_some_and(|first| first.contains(':')) =>
        {
            "another place"
        }
        None if path.is_empty() => "the same page",
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_redirect_the_path_alone_is_told() {
        for (location, told) in [
            ("/login?token=live", "/login"),
            ("/login#token=live", "/login"),
            ("/login;session=live?x", "/login"),
            ("https://user:live@panel.test/a/b?token=live", "/a/b"),
            ("https://live@panel.test", "/"),
            ("https://panel.test?token=live", "/"),
            ("//user:live@panel.test/a", "/a"),
            ("next/page?token=live", "next/page"),
            ("?token=live", "the same page"),
            ("app:live", "another place"),
        ] {
            assert_eq!(path_of(location), told, "{location}");
            let why = no_verdict(302, None, Some(location)).to_string();
            assert!(why.contains(told) && !why.contains("live"), "{why}");
        }
    }

    #[test]
    fn a_rate_limit_a_failure_or_a_success_can_never_be_listed_as_a_refusal() {
        for status in [200, 302, 408, 423, 425, 429, 500, 503] {
            assert_eq!(Refusals::new([401, status]), Err(InvalidRefusal(status)));
        }
        let listed = Refusals::new([400, 401, 403, 422]).unwrap();
        assert!(listed.include(422) && !listed.include(404));
    }

    #[test]
    fn a_body_does_not_print_itself() {
        let body = Body::new(b"{\"token\":\"abc.def\"}");
        assert_eq!(format!("{body:?}"), "Body(19 bytes)");
    }
}
