//! The calls.

use std::time::Duration;

use keyroll_secret::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::Value;

use super::error::ProxmoxError;
use super::permissions::Permissions;
use crate::http::{Client, ClientError, HttpUnknown, Parcel, Tls, Verdict};

/// How long the server lets a refused token wait. Every call is given more than that.
pub const REFUSAL_TAKES: Duration = Duration::from_secs(3);
/// The least limit of a call.
const LEAST: Duration = Duration::from_secs(8);

/// The API of one node or cluster.
#[derive(Debug, Clone)]
pub struct Proxmox {
    client: Client,
}

/// A token, with its value.
#[derive(Debug, Clone)]
pub struct Token {
    /// `name@realm`.
    pub user: String,
    /// Its id under the user.
    pub id: String,
    /// Its value, a UUID.
    pub value: Secret,
}

/// What the server tells of a token: never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id under the user.
    pub id: String,
    /// Whether it has only what its own entries of the list give it.
    pub privsep: bool,
    /// Seconds since 1970 at which it expires; 0 for never.
    pub expire: u64,
    /// The comment.
    pub comment: Option<String>,
}

/// A token that was just made.
#[derive(Debug)]
pub struct Created {
    /// Its value, which is shown this once.
    pub value: Secret,
}

/// One entry of the access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The path.
    pub path: String,
    /// The user, group, or token (by its full id).
    pub who: String,
    /// The role.
    pub role: String,
    /// Whether it holds below the path too.
    pub propagate: bool,
}

impl Token {
    /// `name@realm!id`.
    pub fn full_id(&self) -> String {
        format!("{}!{}", self.user, self.id)
    }

    fn header(&self) -> Secret {
        Secret::new(format!(
            "PVEAPIToken={}={}",
            self.full_id(),
            self.value.expose()
        ))
    }
}

impl Proxmox {
    /// The API at this base URL, such as `https://node.example:8006`. Each call takes at most `limit`, or eight seconds where that is less.
    pub fn new(base_url: &str, tls: &Tls, limit: Duration) -> Result<Self, ClientError> {
        let client = Client::new(base_url, tls, limit.max(LEAST))?;
        Ok(Self { client })
    }

    /// Whether this token is accepted. Says nothing about its rights.
    pub async fn accepts(&self, token: &Token) -> Verdict {
        match self
            .call(token, Method::GET, "/version", vec![], "look")
            .await
        {
            Ok(data) if data["release"].is_string() => Verdict::Accepted(200),
            Ok(_) => Verdict::Unknown(garbage("/version has no release")),
            Err(ProxmoxError::Refused { .. }) => Verdict::Refused(401),
            Err(ProxmoxError::Unknown { why, .. }) => Verdict::Unknown(why),
            Err(other) => Verdict::Unknown(garbage(&other.to_string())),
        }
    }

    /// What this token can do, by its own view.
    pub async fn permissions(&self, token: &Token) -> Result<Permissions, ProxmoxError> {
        let what = "see its permissions";
        let path = "/access/permissions";
        let data = self.call(token, Method::GET, path, vec![], what).await?;
        Permissions::read(&data).ok_or_else(|| unreadable(what, path))
    }

    /// The tokens of a user.
    pub async fn tokens(
        &self,
        manager: &Token,
        user: &str,
    ) -> Result<Vec<TokenInfo>, ProxmoxError> {
        let what = format!("list the tokens of {user}");
        let path = tokens_of(user);
        let data = self
            .call(manager, Method::GET, &path, vec![], &what)
            .await?;
        let read = |item: &Value| {
            Some(TokenInfo {
                id: item["tokenid"].as_str()?.to_owned(),
                privsep: flag(&item["privsep"]).unwrap_or(true),
                expire: number(&item["expire"]).unwrap_or(0),
                comment: item["comment"].as_str().map(str::to_owned),
            })
        };
        list(&data, read).ok_or_else(|| unreadable(&what, &path))
    }

    /// Makes a token. [`ProxmoxError::Invalid`] where the id exists.
    ///
    /// After [`ProxmoxError::Unknown`] it may exist, and its value is lost: delete it by its id.
    pub async fn create(
        &self,
        manager: &Token,
        user: &str,
        new: &TokenInfo,
    ) -> Result<Created, ProxmoxError> {
        let what = format!("make the token {user}!{}", new.id);
        let mut fields = vec![
            ("privsep", u8::from(new.privsep).to_string()),
            ("expire", new.expire.to_string()),
        ];
        if let Some(comment) = &new.comment {
            fields.push(("comment", comment.clone()));
        }
        let path = token_at(user, &new.id);
        let data = self
            .call(manager, Method::POST, &path, fields, &what)
            .await?;
        created(&data).ok_or_else(|| unreadable(&what, &path))
    }

    /// Deletes a token. To one that is not there the server answers with a 500, so ask [`Proxmox::tokens`] after an error.
    pub async fn delete(&self, manager: &Token, user: &str, id: &str) -> Result<(), ProxmoxError> {
        let what = format!("delete the token {user}!{id}");
        let path = token_at(user, id);
        let call = self.call(manager, Method::DELETE, &path, vec![], &what);
        call.await.map(drop)
    }

    /// Gives a token another value in place; the old one is dead with the answer, or with its loss. [`ProxmoxError::Invalid`] where the
    /// server is older than pve-access-control 9.1.0.
    pub async fn regenerate(
        &self,
        manager: &Token,
        user: &str,
        id: &str,
    ) -> Result<Created, ProxmoxError> {
        let what = format!("give the token {user}!{id} another value");
        let fields = vec![("regenerate", "1".to_owned())];
        let path = token_at(user, id);
        let data = self
            .call(manager, Method::PUT, &path, fields, &what)
            .await?;
        created(&data).ok_or_else(|| unreadable(&what, &path))
    }

    /// The access control list, as far as this token may change it: entries elsewhere are not shown.
    pub async fn grants(&self, manager: &Token) -> Result<Vec<Grant>, ProxmoxError> {
        let (what, path) = ("list the access control list", "/access/acl");
        let data = self.call(manager, Method::GET, path, vec![], what).await?;
        let read = |item: &Value| {
            Some(Grant {
                path: item["path"].as_str()?.to_owned(),
                who: item["ugid"].as_str()?.to_owned(),
                role: item["roleid"].as_str()?.to_owned(),
                propagate: flag(&item["propagate"]).unwrap_or(true),
            })
        };
        list(&data, read).ok_or_else(|| unreadable(what, path))
    }

    /// Adds an entry for a token. Once more does no harm.
    pub async fn grant(&self, manager: &Token, grant: &Grant) -> Result<(), ProxmoxError> {
        let what = format!(
            "give {} the role {} on {}",
            grant.who, grant.role, grant.path
        );
        let fields = vec![
            ("path", grant.path.clone()),
            ("roles", grant.role.clone()),
            ("tokens", grant.who.clone()),
            ("propagate", u8::from(grant.propagate).to_string()),
        ];
        let call = self.call(manager, Method::PUT, "/access/acl", fields, &what);
        call.await.map(drop)
    }

    /// One call; the answer's `data`.
    async fn call(
        &self,
        token: &Token,
        method: Method,
        path: &str,
        fields: Vec<(&'static str, String)>,
        what: &str,
    ) -> Result<Value, ProxmoxError> {
        let unknown = |why| ProxmoxError::Unknown {
            what: what.to_owned(),
            why,
        };
        let fields = fields
            .into_iter()
            .map(|(name, text)| (name, Secret::new(text)));
        let parcel = Parcel {
            form: fields.collect(),
            authorization: Some(token.header()),
            ..Parcel::default()
        };
        let path = format!("/api2/json{path}");
        let sent = self.client.send(method, &path, parcel).await;
        let raw = sent.map_err(unknown)?;
        let full = || token.full_id();
        let json: Option<Value> = serde_json::from_str(raw.body.text()).ok();
        match raw.status {
            200 => json
                .and_then(|mut json| json.get_mut("data").map(Value::take))
                .ok_or_else(|| unreadable(what, &path)),
            401 => Err(ProxmoxError::Refused { token: full() }),
            403 => Err(ProxmoxError::Forbidden {
                token: full(),
                what: what.to_owned(),
            }),
            400 => Err(ProxmoxError::Invalid {
                what: what.to_owned(),
                why: json.map_or_else(String::new, |json| errors(&json)),
            }),
            status => Err(unknown(match status {
                500.. => HttpUnknown::ServerError(status),
                _ => HttpUnknown::Unexpected {
                    status,
                    why: match status {
                        300..=399 => "a redirect, which is not followed".into(),
                        _ => "not an answer of this API".into(),
                    },
                },
            })),
        }
    }
}

fn tokens_of(user: &str) -> String {
    let user = utf8_percent_encode(user, NON_ALPHANUMERIC);
    format!("/access/users/{user}/token")
}

fn token_at(user: &str, id: &str) -> String {
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    format!("{}/{id}", tokens_of(user))
}

/// What was refused, parameter by parameter.
fn errors(json: &Value) -> String {
    let all = json["errors"].as_object().into_iter().flatten();
    let told = all.map(|(name, why)| format!("{name}: {}", why.as_str().unwrap_or("?").trim()));
    told.collect::<Vec<_>>().join("; ")
}

/// The value in the answer to a token that was made, or made anew.
fn created(data: &Value) -> Option<Created> {
    let value = Secret::new(data["value"].as_str()?);
    Some(Created { value })
}

/// All items of a list, if each can be read.
fn list<T>(data: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    data.as_array()?.iter().map(read).collect()
}

fn garbage(why: &str) -> HttpUnknown {
    HttpUnknown::Garbage {
        status: 200,
        why: why.to_owned(),
    }
}

fn unreadable(what: &str, path: &str) -> ProxmoxError {
    ProxmoxError::Unknown {
        what: what.to_owned(),
        why: garbage(&format!(
            "the answer to {path} is not what the API describes"
        )),
    }
}

/// Perl writes booleans as 0, 1, "0" and "1".
fn flag(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| number(value).map(|n| n != 0))
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
