//! The HTTP side: health, login, refresh, and the pages of [`crate::pages`].

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::accounts::{self, Keys, Login};
use crate::db::{Lost, Pool};
use crate::faults::Fault;
use crate::{pages, webhooks};

const ADDRESS: &str = "0.0.0.0:3000";

/// What every request needs.
pub(crate) struct Panel {
    pub(crate) pool: Pool,
    pub(crate) keys: Keys,
    login_limit: i32,
}

/// Why a request gets no answer. The client learns the status, the log learns the reason.
pub(crate) enum Failure {
    Unauthorized,
    Locked,
    Unavailable(Lost),
    Internal(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Unavailable(lost)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Locked => (StatusCode::LOCKED, "account locked"),
            Self::Unavailable(lost) => {
                eprintln!("error {lost}");
                (StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
            }
            Self::Internal(why) => {
                eprintln!("error {why}");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            }
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}

/// Serves until it is asked to stop.
pub(crate) async fn run() -> Result<(), String> {
    if Fault::StartFail.is_set() {
        return Err("refusing to start".to_owned());
    }
    let panel = Arc::new(Panel {
        pool: Pool::from_url()?,
        keys: Keys {
            access: crate::required("JWT_SECRET")?,
            refresh: crate::required("JWT_REFRESH_SECRET")?,
        },
        login_limit: match std::env::var("PANEL_LOGIN_LIMIT") {
            Ok(limit) => limit
                .parse()
                .map_err(|_| "PANEL_LOGIN_LIMIT is not a number")?,
            Err(_) => 5,
        },
    });
    let app = Router::new()
        .route("/api/health", get(health))
        .route("/api/auth/login", post(login))
        .route("/api/auth/refresh", post(refresh))
        .merge(pages::routes())
        .merge(webhooks::routes())
        .with_state(panel);
    let listener = tokio::net::TcpListener::bind(ADDRESS)
        .await
        .map_err(|e| format!("cannot listen on {ADDRESS}: {e}"))?;
    println!("panel listens on {ADDRESS}");
    // No graceful drain: a kept-alive connection would hold the stop up.
    tokio::select! {
        served = axum::serve(listener, app) => served.map_err(|e| e.to_string()),
        () = crate::asked_to_stop() => Ok(()),
    }
}

async fn health(State(panel): State<Arc<Panel>>) -> Result<Response, Failure> {
    if Fault::Health503.is_set() {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    panel.pool.query("SELECT 1", &[]).await?;
    Ok(Json(json!({ "status": "ok" })).into_response())
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

async fn login(
    State(panel): State<Arc<Panel>>,
    headers: HeaderMap,
    Json(given): Json<Credentials>,
) -> Result<Response, Failure> {
    if Fault::Login500.is_set() {
        return Err(Failure::Internal("login is broken".to_owned()));
    }
    let user = match accounts::login(&panel.pool, &given.email, given.password, panel.login_limit)
        .await?
    {
        Login::Welcome(user) => user,
        Login::Wrong => return Err(Failure::Unauthorized),
        Login::Locked => return Err(Failure::Locked),
    };
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (access, refresh) = accounts::open_session(&panel.pool, &user, &panel.keys, agent)
        .await
        .map_err(Failure::Internal)?;
    Ok(Json(json!({
        "accessToken": access,
        "refreshToken": refresh,
        "user": { "id": user.id, "email": user.email, "role": user.role },
    }))
    .into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefreshRequest {
    refresh_token: String,
}

async fn refresh(
    State(panel): State<Arc<Panel>>,
    Json(given): Json<RefreshRequest>,
) -> Result<Response, Failure> {
    let check = !Fault::RefreshAcceptAny.is_set();
    let Some((user, sid)) =
        accounts::session(&panel.pool, &given.refresh_token, &panel.keys, check).await?
    else {
        return Err(Failure::Unauthorized);
    };
    let access = accounts::access(&user, &sid, &panel.keys).map_err(Failure::Internal)?;
    Ok(Json(json!({ "accessToken": access, "refreshToken": given.refresh_token })).into_response())
}
