//! The calls of the API, and what their answers look like.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Acl, Caller, Cluster, ROLES, Token};
use crate::Providers;

pub(crate) fn routes() -> Router<Providers> {
    let at = |path: &str| format!("/api2/json{path}");
    Router::new()
        .route(&at("/version"), get(version))
        .route(&at("/access/permissions"), get(permissions))
        .route(&at("/access/acl"), any(acl))
        .route(&at("/access/users/{userid}/token"), get(tokens))
        .route(&at("/access/users/{userid}/token/{tokenid}"), any(token))
}

fn data(value: Value) -> Response {
    Json(BTreeMap::from([("data", value)])).into_response()
}

fn refused(status: StatusCode) -> Response {
    (status, Json(json!({"data": null}))).into_response()
}

/// Validation as the API does it: by parameter.
fn invalid(parameter: &str, why: &str) -> Response {
    let errors = json!({parameter: why});
    let body =
        json!({"data": null, "errors": errors, "message": "Parameter verification failed.\n"});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// The caller, or what somebody without a right token gets, late.
async fn known(providers: &Providers, headers: &HeaderMap) -> Result<Caller, Response> {
    let (caller, wait) = {
        let known = providers.known();
        (known.proxmox.caller(headers), known.proxmox.refusal_takes)
    };
    if let Some(caller) = caller {
        return Ok(caller);
    }
    tokio::time::sleep(wait).await;
    Err(StatusCode::UNAUTHORIZED.into_response())
}

async fn version(State(providers): State<Providers>, headers: HeaderMap) -> Response {
    match known(&providers, &headers).await {
        Ok(_) => data(json!({"version": "9.1.10", "release": "9.1", "repoid": "d563ce0b1eb1a1c2"})),
        Err(answer) => answer,
    }
}

async fn permissions(State(providers): State<Providers>, headers: HeaderMap) -> Response {
    match known(&providers, &headers).await {
        Ok(caller) => data(providers.known().proxmox.tree(&caller)),
        Err(answer) => answer,
    }
}

async fn tokens(
    State(providers): State<Providers>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Response {
    let caller = match known(&providers, &headers).await {
        Ok(caller) => caller,
        Err(answer) => return answer,
    };
    let state = providers.known();
    let cluster = &state.proxmox;
    if !cluster.manages(&caller, &user) {
        return refused(StatusCode::FORBIDDEN);
    }
    let own = cluster.tokens.iter().filter(|((u, _), _)| *u == user);
    data(own.map(|((_, id), token)| described(id, token)).collect())
}

fn described(id: &str, token: &Token) -> Value {
    let mut info =
        json!({"tokenid": id, "privsep": u8::from(token.privsep), "expire": token.expire});
    if let Some(comment) = &token.comment {
        info["comment"] = comment.as_str().into();
    }
    info
}

/// The parameters of a request, form-encoded or JSON; what the server's parser does not take is a 501.
async fn parameters(request: Request) -> Result<BTreeMap<String, String>, Response> {
    let not_implemented = || StatusCode::NOT_IMPLEMENTED.into_response();
    let method = request.method().clone();
    let headers = request.headers().clone();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(not_implemented());
    }
    let body = to_bytes(request.into_body(), 64 * 1024).await;
    let body = body.map_err(|_| not_implemented())?;
    if matches!(method, Method::GET | Method::DELETE) {
        return if body.is_empty() {
            Ok(BTreeMap::new())
        } else {
            Err(not_implemented())
        };
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|k| k.as_bytes().starts_with(b"application/json")) {
        let fields: serde_json::Map<String, Value> =
            serde_json::from_str(&text).map_err(|_| not_implemented())?;
        let plain = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        return Ok(fields.into_iter().map(|(k, v)| (k, plain(v))).collect());
    }
    Ok(text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect())
}

fn decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        bytes.push(match byte {
            b'%' => {
                u8::try_from(hex(rest.next()).unwrap_or(0) * 16 + hex(rest.next()).unwrap_or(0))
                    .unwrap_or_default()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const ACL: &str = "/access/acl";
const TOKEN: &str = "/access/users/{userid}/token/{tokenid}";

/// What each call that changes something takes besides what is in its path.
pub const TAKES: [(&str, &str, &[&str]); 3] = [
    (
        "PUT",
        ACL,
        &[
            "path",
            "roles",
            "tokens",
            "users",
            "groups",
            "propagate",
            "delete",
        ],
    ),
    ("POST", TOKEN, &["expire", "privsep", "comment"]),
    (
        "PUT",
        TOKEN,
        &["expire", "privsep", "comment", "delete", "regenerate"],
    ),
];

/// Refuses what the schema does not name (`additionalProperties: 0`).
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn only(fields: &BTreeMap<String, String>, method: &str, path: &str) -> Result<(), Response> {
    let takes = TAKES.iter().find(|t| (t.0, t.1) == (method, path));
    let known = takes.map_or(&[][..], |t| t.2);
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(other) => Err(not_in_schema(other)),
        None => Ok(()),
    }
}

fn not_in_schema(parameter: &str) -> Response {
    invalid(
        parameter,
        "property is not defined in schema and the schema does not allow additional properties",
    )
}

async fn acl(State(providers): State<Providers>, request: Request) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let caller = match known(&providers, &headers).await {
        Ok(caller) => caller,
        Err(answer) => return answer,
    };
    let fields = match parameters(request).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let mut state = providers.known();
    match method {
        Method::GET => {
            let cluster = &state.proxmox;
            let shown = cluster
                .acl
                .iter()
                .filter(|a| may_change(cluster, &caller, &a.path));
            data(shown.map(|a| entry(cluster, a)).collect())
        }
        Method::PUT => match change(&mut state.proxmox, &caller, &fields) {
            Ok(()) => data(Value::Null),
            Err(answer) => answer,
        },
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn may_change(cluster: &Cluster, caller: &Caller, path: &str) -> bool {
    cluster
        .privileges(caller, path)
        .contains_key("Permissions.Modify")
}

fn entry(cluster: &Cluster, acl: &Acl) -> Value {
    let kind = if acl.who.contains('!') {
        "token"
    } else if cluster.users.contains_key(&acl.who) {
        "user"
    } else {
        "group"
    };
    json!({"path": acl.path, "ugid": acl.who, "roleid": acl.role, "type": kind, "propagate": u8::from(acl.propagate)})
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn change(
    cluster: &mut Cluster,
    caller: &Caller,
    fields: &BTreeMap<String, String>,
) -> Result<(), Response> {
    only(fields, "PUT", ACL)?;
    let field = |name: &str| fields.get(name).map(String::as_str);
    let path = field("path")
        .ok_or_else(|| invalid("path", "property is missing and it is not optional"))?;
    let roles = field("roles")
        .ok_or_else(|| invalid("roles", "property is missing and it is not optional"))?;
    if !may_change(cluster, caller, path) {
        return Err(refused(StatusCode::FORBIDDEN));
    }
    let propagate = field("propagate") != Some("0");
    // What names a token that is gone is dropped whenever the file is written.
    let tokens: BTreeSet<String> = cluster
        .tokens
        .keys()
        .map(|(u, i)| format!("{u}!{i}"))
        .collect();
    cluster
        .acl
        .retain(|a| !a.who.contains('!') || tokens.contains(&a.who));
    for role in roles.split(',') {
        if ROLES.iter().all(|(name, _)| *name != role) {
            return Err(refused(StatusCode::INTERNAL_SERVER_ERROR));
        }
        let who = ["tokens", "users", "groups"]
            .iter()
            .filter_map(|kind| field(kind));
        for who in who.flat_map(|list| list.split(',')) {
            if who.contains('!') && !tokens.contains(who) {
                return Err(refused(StatusCode::INTERNAL_SERVER_ERROR));
            }
            let same = |a: &Acl| a.path == path && a.who == who && a.role == role;
            cluster.acl.retain(|a| !same(a));
            if field("delete") != Some("1") {
                cluster.acl.insert(Acl {
                    path: path.to_owned(),
                    who: who.to_owned(),
                    role: role.to_owned(),
                    propagate,
                });
            }
        }
    }
    Ok(())
}

async fn token(
    State(providers): State<Providers>,
    Path((user, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let caller = match known(&providers, &headers).await {
        Ok(caller) => caller,
        Err(answer) => return answer,
    };
    let fields = match parameters(request).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let mut state = providers.known();
    let cluster = &mut state.proxmox;
    if !cluster.manages(&caller, &user) {
        return refused(StatusCode::FORBIDDEN);
    }
    let well_named = id.len() >= 2
        && id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    if !well_named {
        return invalid("tokenid", "value does not match the regex pattern");
    }
    if !cluster.users.contains_key(&user) {
        return refused(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let done = match method {
        Method::GET => show(cluster, &user, &id),
        Method::POST => create(cluster, user, id, &fields),
        Method::PUT => update(cluster, &user, &id, &fields),
        Method::DELETE => remove(cluster, user, id),
        _ => Err(StatusCode::NOT_IMPLEMENTED.into_response()),
    };
    done.map_or_else(|answer| answer, data)
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn show(cluster: &Cluster, user: &str, id: &str) -> Result<Value, Response> {
    match cluster.tokens.get(&(user.to_owned(), id.to_owned())) {
        Some(token) => Ok(described(id, token)),
        None => Err(refused(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn create(
    cluster: &mut Cluster,
    user: String,
    id: String,
    fields: &BTreeMap<String, String>,
) -> Result<Value, Response> {
    only(fields, "POST", TOKEN)?;
    let full = format!("{user}!{id}");
    if cluster.tokens.contains_key(&(user.clone(), id.clone())) {
        return Err(invalid("tokenid", "Token already exists."));
    }
    let made = Token {
        value: uuid(),
        privsep: fields.get("privsep").is_none_or(|p| p != "0"),
        expire: expire(fields)?.unwrap_or(0),
        comment: fields.get("comment").cloned(),
    };
    let mut info = json!({"privsep": if made.privsep { "1" } else { "0" }});
    if let Some(comment) = &made.comment {
        info["comment"] = comment.as_str().into();
    }
    let answer = json!({"full-tokenid": full, "info": info, "value": made.value});
    cluster.tokens.insert((user, id), made);
    Ok(answer)
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn update(
    cluster: &mut Cluster,
    user: &str,
    id: &str,
    fields: &BTreeMap<String, String>,
) -> Result<Value, Response> {
    only(fields, "PUT", TOKEN)?;
    if !cluster.regenerates && fields.contains_key("regenerate") {
        return Err(not_in_schema("regenerate"));
    }
    let expire = expire(fields)?;
    let full = format!("{user}!{id}");
    let Some(token) = cluster.tokens.get_mut(&(user.to_owned(), id.to_owned())) else {
        return Err(refused(StatusCode::INTERNAL_SERVER_ERROR));
    };
    token.expire = expire.unwrap_or(token.expire);
    if let Some(privsep) = fields.get("privsep") {
        token.privsep = privsep != "0";
    }
    if let Some(comment) = fields.get("comment") {
        token.comment = Some(comment.clone());
    }
    let mut answer = described(id, token);
    if fields.get("regenerate").is_some_and(|r| r == "1") {
        token.value = uuid();
        answer["value"] = token.value.as_str().into();
        answer["full-tokenid"] = full.into();
    }
    Ok(answer)
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn remove(cluster: &mut Cluster, user: String, id: String) -> Result<Value, Response> {
    match cluster.tokens.remove(&(user, id)) {
        Some(_) => Ok(Value::Null),
        None => Err(refused(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn expire(fields: &BTreeMap<String, String>) -> Result<Option<u64>, Response> {
    let number = |text: &String| {
        text.parse()
            .map_err(|_| invalid("expire", "type check ('integer') failed"))
    };
    fields.get("expire").map(number).transpose()
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.expect("the kernel has a generator");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let hex = format!("{number:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
