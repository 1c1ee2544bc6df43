//! Logging in, and trading a refresh token.

use keyroll_secret::Secret;
use reqwest::Method;
use serde_json::{Map, Value};

use super::answer::{HttpUnknown, Refusals, no_verdict};
use super::budget::{BudgetSpent, WrongLoginBudget};
use super::client::{Client, Parcel, Raw};

/// Where a token stands in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenAt {
    /// In the JSON body, by JSON pointer (RFC 6901), for example `/data/accessToken`.
    Json(String),
    /// In a `Set-Cookie` header, by cookie name.
    Cookie(String),
}

/// How the panel is logged in to: a POST of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSpec {
    /// The path.
    pub path: String,
    /// The field that holds the e-mail or user name.
    pub email_field: String,
    /// The field that holds the password.
    pub password_field: String,
    /// Where the access token comes back.
    pub access: TokenAt,
    /// Where the refresh token comes back, if there is one.
    pub refresh: Option<TokenAt>,
    /// The statuses that mean "wrong password".
    pub refused: Refusals,
}

/// How the panel trades a refresh token for an access token: a POST. Many panels replace the refresh token by that, so the
/// one that was sent is dead afterwards whatever its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshSpec {
    /// The path.
    pub path: String,
    /// How the refresh token is sent.
    pub send: SendRefresh,
    /// Where the access token comes back.
    pub access: TokenAt,
    /// Where the next refresh token comes back, if there is one.
    pub refresh: Option<TokenAt>,
    /// The statuses that mean "refused".
    pub refused: Refusals,
}

/// How a refresh token is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendRefresh {
    /// In this field of a JSON object.
    JsonField(String),
    /// In this cookie.
    Cookie(String),
    /// As `Authorization: Bearer`.
    Bearer,
}

/// What a login or a refresh gave.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The access token.
    pub access: Secret,
    /// The refresh token, where the profile says where to find one and the panel sent one.
    pub refresh: Option<Secret>,
}

/// What a login or a refresh showed.
#[derive(Debug, Clone)]
pub enum LoginAnswer {
    /// A 2xx with an access token.
    Accepted(Tokens),
    /// The panel looked, and refused, with this status.
    Refused(u16),
    /// No verdict.
    Unknown(HttpUnknown),
}

impl Client {
    /// Logs in once. Counts against `budget` as [`WrongLoginBudget`] says, and sends nothing when that is spent.
    pub async fn login(
        &self,
        spec: &LoginSpec,
        email: &str,
        password: &Secret,
        budget: &WrongLoginBudget,
    ) -> Result<LoginAnswer, BudgetSpent> {
        budget.take()?;
        let mut body = Map::new();
        body.insert(spec.email_field.clone(), email.into());
        body.insert(spec.password_field.clone(), password.expose().into());
        let parcel = Parcel {
            json: Some(Value::Object(body)),
            ..Parcel::default()
        };
        let answer = match self.send(Method::POST, &spec.path, parcel).await {
            Ok(raw) => judge(&raw, &spec.access, spec.refresh.as_ref(), &spec.refused),
            Err(why) => LoginAnswer::Unknown(why),
        };
        match &answer {
            LoginAnswer::Accepted(_) => budget.start_again(),
            LoginAnswer::Unknown(why) if why.was_never_sent() => budget.give_back(),
            _ => {}
        }
        Ok(answer)
    }

    /// Trades a refresh token once.
    pub async fn refresh(&self, spec: &RefreshSpec, token: &Secret) -> LoginAnswer {
        let parcel = match &spec.send {
            SendRefresh::JsonField(field) => Parcel {
                json: Some(Value::Object(Map::from_iter([(
                    field.clone(),
                    token.expose().into(),
                )]))),
                ..Parcel::default()
            },
            SendRefresh::Cookie(name) => Parcel {
                cookie: Some((name, token)),
                ..Parcel::default()
            },
            SendRefresh::Bearer => Parcel {
                bearer: Some(token),
                ..Parcel::default()
            },
        };
        match self.send(Method::POST, &spec.path, parcel).await {
            Ok(raw) => judge(&raw, &spec.access, spec.refresh.as_ref(), &spec.refused),
            Err(why) => LoginAnswer::Unknown(why),
        }
    }
}

fn judge(
    raw: &Raw,
    access: &TokenAt,
    refresh: Option<&TokenAt>,
    refused: &Refusals,
) -> LoginAnswer {
    let status = raw.status;
    if refused.include(status) {
        return LoginAnswer::Refused(status);
    }
    if !(200..300).contains(&status) {
        return LoginAnswer::Unknown(no_verdict(status, raw.retry_after, raw.location.as_deref()));
    }
    let body: Option<Value> = serde_json::from_str(raw.body.text()).ok();
    let find = |at: &TokenAt| match at {
        TokenAt::Json(pointer) => body
            .as_ref()
            .and_then(|b| b.pointer(pointer)?.as_str())
            .filter(|text| !text.is_empty())
            .map(Secret::new),
        TokenAt::Cookie(name) => raw
            .cookies
            .iter()
            .find(|(n, value)| n == name && !value.is_empty())
            .map(|(_, value)| value.clone()),
    };
    match find(access) {
        Some(token) => LoginAnswer::Accepted(Tokens {
            access: token,
            refresh: refresh.and_then(find),
        }),
        None => LoginAnswer::Unknown(HttpUnknown::Garbage {
            status,
            why: match access {
                TokenAt::Json(pointer) if body.is_some() => format!(
                    "the answer has no token at {pointer}: a second factor, a refusal in disguise, or another place; check the profile"
                ),
                TokenAt::Json(_) => {
                    "the answer is no JSON; check the login path in the profile".to_owned()
                }
                TokenAt::Cookie(name) => {
                    format!("the answer sets no cookie {name:?}; check the profile")
                }
            },
        }),
    }
}
