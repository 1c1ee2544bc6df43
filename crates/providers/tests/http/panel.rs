//! A small panel with good and bad habits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use keyroll_providers::http::{LoginSpec, Refusals, TokenAt, jwt};
use keyroll_secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const ADMIN: &str = "admin@panel.test";
pub(crate) const RIGHT: &str = "right-admin-password";
/// What access tokens are signed with.
pub(crate) const KEY: &str = "panel-jwt-key";
const REFRESH: &str = "refresh-token-1";
/// `{"alg":"HS256"}`, `{"sub":"admin"}` and a signature to be replaced.
const UNSIGNED: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.AA";

/// Its login, at one of its paths.
pub(crate) fn login_at(path: &str) -> LoginSpec {
    LoginSpec {
        path: path.into(),
        email_field: "email".into(),
        password_field: "password".into(),
        access: TokenAt::Json("/data/accessToken".into()),
        refresh: Some(TokenAt::Json("/data/refreshToken".into())),
        refused: Refusals::default(),
    }
}

pub(crate) struct Panel {
    address: SocketAddr,
    logins: Arc<AtomicU32>,
    server: JoinHandle<()>,
}

impl Panel {
    pub(crate) async fn start() -> Self {
        let logins = Arc::new(AtomicU32::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = routes(Arc::clone(&logins));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            logins,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many logins arrived.
    pub(crate) fn logins(&self) -> u32 {
        self.logins.load(Ordering::SeqCst)
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn routes(logins: Arc<AtomicU32>) -> Router {
    Router::new()
        .route("/api/health", get(async || "ok"))
        .route("/api/login", post(log_in))
        .route("/api/cookie-login", post(cookie_log_in))
        .route("/api/refresh", post(refresh))
        .route("/api/cookie-refresh", post(cookie_refresh))
        .route("/rbac", get(guarded))
        .route("/cookie-page", get(cookie_guarded))
        .route("/status/{status}", any(status))
        .route("/html", any(async || "<html>a shell for everybody</html>"))
        .route(
            "/second-factor",
            any(async || Json(json!({"next": "factor"}))),
        )
        .route("/huge", any(async || "x".repeat(1 << 20)))
        .route(
            "/echo",
            any(async |body: String| (StatusCode::BAD_REQUEST, body)),
        )
        .route(
            "/to-login",
            get(async || (StatusCode::FOUND, [(LOCATION, "/login?next=1")])),
        )
        .route(
            "/elsewhere",
            get(async || (StatusCode::FOUND, [(LOCATION, "/welcome")])),
        )
        .route("/hang", any(hang))
        .with_state(logins)
}

fn access() -> Secret {
    jwt::resign(&Secret::new(UNSIGNED), &Secret::new(KEY)).unwrap()
}

fn is_right(body: &Value) -> bool {
    body["email"] == ADMIN && body["password"] == RIGHT
}

async fn log_in(State(logins): State<Arc<AtomicU32>>, Json(body): Json<Value>) -> Response {
    logins.fetch_add(1, Ordering::SeqCst);
    if !is_right(&body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({"data": {"accessToken": access().expose(), "refreshToken": REFRESH}}))
        .into_response()
}

async fn cookie_log_in(Json(body): Json<Value>) -> Response {
    if !is_right(&body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut headers = HeaderMap::new();
    headers.append(SET_COOKIE, "theme=dark".parse().unwrap());
    let session = format!("session={}; HttpOnly; Path=/", access().expose());
    headers.append(SET_COOKIE, session.parse().unwrap());
    let refresh = format!("refresh={REFRESH}; HttpOnly; Path=/api");
    headers.append(SET_COOKIE, refresh.parse().unwrap());
    (headers, "welcome").into_response()
}

async fn refresh(headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let bearer = header(&headers, AUTHORIZATION.as_str());
    if body["refreshToken"] != REFRESH && bearer != format!("Bearer {REFRESH}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({"accessToken": access().expose()})).into_response()
}

async fn cookie_refresh(headers: HeaderMap) -> Response {
    if header(&headers, COOKIE.as_str()) != format!("refresh={REFRESH}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let session = format!("session={}; HttpOnly", access().expose());
    ([(SET_COOKIE, session)], "").into_response()
}

async fn guarded(headers: HeaderMap) -> StatusCode {
    allow(header(&headers, AUTHORIZATION.as_str()).strip_prefix("Bearer "))
}

async fn cookie_guarded(headers: HeaderMap) -> StatusCode {
    allow(header(&headers, COOKIE.as_str()).strip_prefix("session="))
}

fn allow(token: Option<&str>) -> StatusCode {
    let signed = |t: &str| jwt::signed_with(&Secret::new(t), &Secret::new(KEY));
    match token.map(signed) {
        Some(Ok(true)) => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |v| v.to_str().unwrap())
}

async fn status(Path(status): Path<u16>) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(RETRY_AFTER, "30")], "why").into_response()
}

async fn hang() {
    std::future::pending::<()>().await;
}

/// A server that reads a request, writes `answer`, and then hangs up or waits; how many requests it saw.
pub(crate) async fn raw(answer: &'static str, hangs_up: bool) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if !hangs_up {
                open.push(stream);
            }
        }
    });
    (url, seen)
}
