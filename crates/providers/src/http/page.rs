//! Pages that want a session.

use keyroll_secret::Secret;
use reqwest::Method;

use super::answer::{HttpUnknown, Refusals, no_verdict};
use super::client::{Client, Parcel};

/// How a request carries the access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carry {
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie of this name.
    Cookie(String),
}

/// A page that only a session may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSpec {
    /// The path; fetched with GET.
    pub path: String,
    /// How the session is carried.
    pub carry: Carry,
    /// The statuses that mean "no session".
    pub refused: Refusals,
    /// A redirect whose `Location`, with or without scheme and host, begins with this path is a refusal too, for example
    /// `/login`.
    pub login_path: Option<String>,
}

/// What a page showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageAnswer {
    /// Served, with this 2xx.
    Served(u16),
    /// Refused, with this status.
    Refused(u16),
    /// No verdict.
    Unknown(HttpUnknown),
}

/// Whether a page looks at sessions at all (law 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageCheck {
    /// Without a session it is refused.
    Proves,
    /// It is served to everybody, as the shell of a single-page application is: it proves nothing. Name the API path behind
    /// it in the profile instead.
    Void,
    /// It could not be found out.
    Unknown(HttpUnknown),
}

impl Client {
    /// Fetches the page once, with the access token or without.
    pub async fn page(&self, spec: &PageSpec, token: Option<&Secret>) -> PageAnswer {
        let parcel = match &spec.carry {
            Carry::Bearer => Parcel {
                bearer: token,
                ..Parcel::default()
            },
            Carry::Cookie(name) => Parcel {
                cookie: token.map(|token| (name.as_str(), token)),
                ..Parcel::default()
            },
        };
        let raw = match self.send(Method::GET, &spec.path, parcel).await {
            Ok(raw) => raw,
            Err(why) => return PageAnswer::Unknown(why),
        };
        let status = raw.status;
        let to_login = (300..400).contains(&status)
            && spec.login_path.as_deref().is_some_and(|login| {
                let location = raw.location.as_deref().unwrap_or_default();
                leads_to(location, login)
            });
        match status {
            200..=299 => PageAnswer::Served(status),
            _ if spec.refused.include(status) || to_login => PageAnswer::Refused(status),
            _ => PageAnswer::Unknown(no_verdict(status, raw.retry_after, raw.location.as_deref())),
        }
    }

    /// The negative control: whether the page is refused without a session.
    pub async fn page_proves_sessions(&self, spec: &PageSpec) -> PageCheck {
        match self.page(spec, None).await {
            PageAnswer::Refused(_) => PageCheck::Proves,
            PageAnswer::Served(_) => PageCheck::Void,
            PageAnswer::Unknown(why) => PageCheck::Unknown(why),
        }
    }
}

/// Whether the path of `location` is `login` or below it.
fn leads_to(location: &str, login: &str) -> bool {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => location,
    };
    path.strip_prefix(login.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_a_refusal_only_when_it_leads_to_the_login_page() {
        for yes in [
            "/login",
            "/login?next=/rbac",
            "https://p.test/login",
            "/login/",
        ] {
            assert!(leads_to(yes, "/login"), "{yes}");
        }
        for no in [
            "/",
            "",
            "/loginx",
            "https://p.test",
            "https://p.test/x?/login",
        ] {
            assert!(!leads_to(no, "/login"), "{no}");
        }
    }
}
