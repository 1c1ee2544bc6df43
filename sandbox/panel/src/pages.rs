//! The pages: small, but each reads the database. An access token is believed by signature and expiry alone.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Html;
use axum::routing::get;

use crate::api::{Failure, Panel};
use crate::faults::Fault;
use crate::tokens::{self, Access};

/// `/` for everybody, the others for those who have logged in.
pub(crate) fn routes() -> Router<Arc<Panel>> {
    Router::new()
        .route("/", get(welcome))
        .route("/rbac", get(rbac))
        .route("/profile", get(profile))
        .route("/system", get(system))
        .route("/audit-logs", get(audit_logs))
}

async fn welcome() -> Html<String> {
    page("Log in", "<form method=post action=/api/auth/login></form>")
}

async fn rbac(
    State(panel): State<Arc<Panel>>,
    headers: HeaderMap,
) -> Result<Html<String>, Failure> {
    visitor(&panel, &headers)?;
    list(
        &panel,
        "Roles and permissions",
        r#"SELECT "role" || ': ' || count(*) FROM "User" GROUP BY "role" ORDER BY 1"#,
    )
    .await
}

async fn profile(
    State(panel): State<Arc<Panel>>,
    headers: HeaderMap,
) -> Result<Html<String>, Failure> {
    let visitor = visitor(&panel, &headers)?;
    let rows = panel
        .pool
        .query(
            r#"SELECT "email", "role" FROM "User" WHERE "id" = $1"#,
            &[&visitor.sub],
        )
        .await?;
    let row = rows.first().ok_or(Failure::Unauthorized)?;
    let (email, role): (String, String) = (row.get(0), row.get(1));
    Ok(page(
        "Profile",
        &format!("<p>{} {}</p>", escape(&email), escape(&role)),
    ))
}

async fn system(
    State(panel): State<Arc<Panel>>,
    headers: HeaderMap,
) -> Result<Html<String>, Failure> {
    visitor(&panel, &headers)?;
    list(
        &panel,
        "System",
        r#"SELECT 'worker ' || "worker" || ' at ' || "beatAt" FROM "WorkerHeartbeat" ORDER BY 1"#,
    )
    .await
}

async fn audit_logs(
    State(panel): State<Arc<Panel>>,
    headers: HeaderMap,
) -> Result<Html<String>, Failure> {
    visitor(&panel, &headers)?;
    list(
        &panel,
        "Audit logs",
        r#"SELECT "createdAt" || ' ' || "action" || ' ' || "actor" FROM "AuditLog" ORDER BY "id" DESC LIMIT 20"#,
    )
    .await
}

async fn list(panel: &Panel, title: &str, sql: &str) -> Result<Html<String>, Failure> {
    let mut body = String::from("<ul>");
    for row in panel.pool.query(sql, &[]).await? {
        let _ = write!(body, "<li>{}</li>", escape(row.get(0))); // writing to a String cannot fail
    }
    body.push_str("</ul>");
    Ok(page(title, &body))
}

/// Who is asking: `Authorization: Bearer`, else the cookie `access_token`.
fn visitor(panel: &Panel, headers: &HeaderMap) -> Result<Access, Failure> {
    if Fault::Page500.is_set() {
        return Err(Failure::Internal("pages are broken".to_owned()));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let cookie = text(header::COOKIE).and_then(|value| {
        value
            .split(';')
            .find_map(|pair| pair.trim().strip_prefix("access_token="))
    });
    let token = bearer.or(cookie).ok_or(Failure::Unauthorized)?;
    if Fault::AccessAcceptAny.is_set() {
        return tokens::unchecked(token).ok_or(Failure::Unauthorized);
    }
    tokens::verify(token, &panel.keys.access).ok_or(Failure::Unauthorized)
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html><head><title>{title} - Panel</title></head><body><h1>{title}</h1>{body}</body></html>"
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
