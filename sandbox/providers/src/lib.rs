//! Providers that cannot be had in a sandbox, as far as keyroll asks them.
//!
//! They answer what the real ones are documented to answer, no more: which key is alive, which webhook exists. Each can be made to
//! fail in the ways that networks and providers do ([`Fault`]). The real ones are never asked by a test.

mod alerts;
mod payments;
pub mod proxmox;
mod tls;

pub use tls::Certificate;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// How a provider fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It answers after this time.
    Slow(Duration),
    /// It takes the request and never answers.
    Hangs,
    /// It answers with this status.
    Status(u16),
    /// It sends elsewhere.
    Redirect(String),
    /// 200 and a web page, as a captive portal does.
    Garbage,
    /// 200 and 5 MiB of it.
    Endless,
}

/// All providers behind one address. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Providers(Arc<Mutex<Known>>);

/// What the providers know.
#[derive(Debug, Default)]
pub struct Known {
    /// Secrets that are alive: keys, client secrets, webhook paths, bot tokens.
    pub alive: BTreeSet<String>,
    /// Keys that are alive and have hardly any rights.
    pub narrow: BTreeSet<String>,
    /// The Proxmox cluster.
    pub proxmox: proxmox::Cluster,
    /// What goes wrong now.
    pub fault: Option<Fault>,
    /// So many changes (PUT) are made, and their answers are lost behind a gateway, which says 502.
    pub loses: u32,
    /// `METHOD path` of each request, in order.
    pub asked: Vec<String>,
    /// Messages that people would have seen.
    pub posted: usize,
    /// What a receiver of the operator's own got: signature and body.
    pub received: Vec<(String, String)>,
}

impl Providers {
    /// Nothing is alive yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What they know, to be looked at or changed.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The web server's routes.
    pub fn router(&self) -> Router {
        payments::routes()
            .merge(alerts::routes())
            .merge(proxmox::routes())
            .layer(axum::middleware::from_fn_with_state(self.clone(), meets))
            .with_state(self.clone())
    }

    /// Serves on a free port of loopback until the runtime ends; the base URL.
    pub async fn serve(&self) -> std::io::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    pub(crate) fn is_alive(&self, secret: &str) -> bool {
        self.known().alive.contains(secret)
    }
}

/// Notes the request, and lets it meet the fault of the day.
async fn meets(State(providers): State<Providers>, request: Request, next: Next) -> Response {
    let (fault, lost) = {
        let mut known = providers.known();
        let asked = format!("{} {}", request.method(), request.uri().path());
        let lost = known.loses > 0 && asked.starts_with("PUT ");
        known.loses -= u32::from(lost);
        known.asked.push(asked);
        (known.fault.clone(), lost)
    };
    if lost {
        drop(next.run(request).await);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let page = |size: usize| {
        let headers = [(header::CONTENT_TYPE, "text/html")];
        (headers, Body::from("<html>".repeat(size))).into_response()
    };
    match fault {
        None => next.run(request).await,
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            next.run(request).await
        }
        Some(Fault::Hangs) => std::future::pending().await,
        Some(Fault::Status(status)) => StatusCode::from_u16(status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response(),
        Some(Fault::Redirect(to)) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Fault::Garbage) => page(1),
        Some(Fault::Endless) => page((5 << 20) / "<html>".len()),
    }
}
