//! Paystack, Flutterwave and Stripe.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use serde_json::json;

use crate::Providers;

pub(crate) fn routes() -> Router<Providers> {
    Router::new()
        .route("/balance", get(paystack))
        .route("/v3/balances", get(flutterwave_v3))
        .route(
            "/realms/flutterwave/protocol/openid-connect/token",
            post(flutterwave_v4),
        )
        .route("/v1/balance", get(stripe))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

fn no(status: StatusCode, body: serde_json::Value) -> Response {
    (status, Json(body)).into_response()
}

async fn paystack(State(providers): State<Providers>, headers: HeaderMap) -> Response {
    if bearer(&headers).is_some_and(|key| providers.is_alive(key)) {
        let data = json!([{"currency": "NGN", "balance": 170_000}]);
        return Json(json!({"status": true, "message": "Balances retrieved", "data": data}))
            .into_response();
    }
    no(
        StatusCode::UNAUTHORIZED,
        json!({"status": false, "message": "Invalid key"}),
    )
}

async fn flutterwave_v3(State(providers): State<Providers>, headers: HeaderMap) -> Response {
    if bearer(&headers).is_some_and(|key| providers.is_alive(key)) {
        return Json(json!({"status": "success", "message": "Wallets fetched", "data": []}))
            .into_response();
    }
    no(
        StatusCode::UNAUTHORIZED,
        json!({"status": "error", "message": "Invalid authorization key", "data": null}),
    )
}

/// The token endpoint of OAuth 2.0 (RFC 6749, section 4.4).
async fn flutterwave_v4(
    State(providers): State<Providers>,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Response {
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    if field("grant_type") != "client_credentials" {
        return no(
            StatusCode::BAD_REQUEST,
            json!({"error": "unsupported_grant_type"}),
        );
    }
    if !field("client_id").is_empty() && providers.is_alive(field("client_secret")) {
        let token = json!({"access_token": "a-token", "expires_in": 600, "token_type": "Bearer"});
        return Json(token).into_response();
    }
    no(
        StatusCode::UNAUTHORIZED,
        json!({"error": "invalid_client", "error_description": "Invalid client or Invalid client credentials"}),
    )
}

async fn stripe(State(providers): State<Providers>, headers: HeaderMap) -> Response {
    let key = bearer(&headers).unwrap_or_default();
    if providers.known().narrow.contains(key) {
        let error = json!({"type": "invalid_request_error", "message": "The provided key does not have the required permissions for this endpoint"});
        return no(StatusCode::FORBIDDEN, json!({"error": error}));
    }
    if providers.is_alive(key) {
        return Json(json!({"object": "balance", "available": [], "livemode": true}))
            .into_response();
    }
    let error = json!({"type": "invalid_request_error", "message": "Invalid API Key provided"});
    no(StatusCode::UNAUTHORIZED, json!({"error": error}))
}
