//! Slack, Discord and Telegram.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::Providers;

pub(crate) fn routes() -> Router<Providers> {
    Router::new()
        .route("/services/{team}/{channel}/{token}", post(slack))
        .route(
            "/api/webhooks/{id}/{token}",
            get(discord).post(discord_post),
        )
        .route("/{bot}/getMe", get(telegram))
        .route("/{bot}/sendMessage", post(telegram_post))
        .route("/hook/{token}", post(hook))
}

/// A receiver of the operator's own: keeps what it gets, with its signature.
async fn hook(State(providers): State<Providers>, headers: HeaderMap, body: String) -> StatusCode {
    let signature = headers
        .get("x-keyroll-signature")
        .and_then(|v| v.to_str().ok());
    let signature = signature.unwrap_or_default().to_owned();
    providers.known().received.push((signature, body));
    StatusCode::NO_CONTENT
}

async fn discord_post(
    State(providers): State<Providers>,
    Path((id, token)): Path<(String, String)>,
    Json(message): Json<Value>,
) -> Response {
    if !providers.is_alive(&format!("/api/webhooks/{id}/{token}")) {
        let unknown = json!({"message": "Unknown Webhook", "code": 10015});
        return (StatusCode::NOT_FOUND, Json(unknown)).into_response();
    }
    if message["content"]
        .as_str()
        .is_none_or(|text| text.is_empty() || text.chars().count() > 2000)
    {
        return (StatusCode::BAD_REQUEST, Json(json!({"code": 50006}))).into_response();
    }
    providers.known().posted += 1;
    StatusCode::NO_CONTENT.into_response()
}

async fn telegram_post(
    State(providers): State<Providers>,
    Path(bot): Path<String>,
    Json(message): Json<Value>,
) -> Response {
    let token = bot.strip_prefix("bot").unwrap_or_default();
    if !providers.is_alive(token) {
        let no = json!({"ok": false, "error_code": 401, "description": "Unauthorized"});
        return (StatusCode::UNAUTHORIZED, Json(no)).into_response();
    }
    if message["chat_id"].is_null() || message["text"].as_str().is_none_or(str::is_empty) {
        let no = json!({"ok": false, "error_code": 400, "description": "Bad Request"});
        return (StatusCode::BAD_REQUEST, Json(no)).into_response();
    }
    providers.known().posted += 1;
    Json(json!({"ok": true, "result": {"message_id": 1}})).into_response()
}

async fn slack(
    State(providers): State<Providers>,
    Path((team, channel, token)): Path<(String, String, String)>,
    Json(message): Json<Value>,
) -> Response {
    if !providers.is_alive(&format!("/services/{team}/{channel}/{token}")) {
        return (StatusCode::NOT_FOUND, "no_service").into_response();
    }
    if message["text"].as_str().is_none_or(str::is_empty) {
        return (StatusCode::BAD_REQUEST, "no_text").into_response();
    }
    providers.known().posted += 1;
    "ok".into_response()
}

async fn discord(
    State(providers): State<Providers>,
    Path((id, token)): Path<(String, String)>,
) -> Response {
    if providers.is_alive(&format!("/api/webhooks/{id}/{token}")) {
        return Json(json!({"type": 1, "id": id, "name": "alerts"})).into_response();
    }
    let unknown = json!({"message": "Unknown Webhook", "code": 10015});
    (StatusCode::NOT_FOUND, Json(unknown)).into_response()
}

async fn telegram(State(providers): State<Providers>, Path(bot): Path<String>) -> Response {
    let token = bot.strip_prefix("bot").unwrap_or_default();
    if providers.is_alive(token) {
        let result = json!({"id": 1, "is_bot": true, "first_name": "alerts"});
        return Json(json!({"ok": true, "result": result})).into_response();
    }
    let no = json!({"ok": false, "error_code": 401, "description": "Unauthorized"});
    (StatusCode::UNAUTHORIZED, Json(no)).into_response()
}
