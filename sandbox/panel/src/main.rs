//! The application that the sandbox rotates: a hosting panel in small, but real where a rotation looks.
//!
//! It keeps its tables in `PostgreSQL`, hashes passwords with bcrypt, signs access and refresh tokens with two different
//! keys, remembers sessions in `"AuthSession"`, locks an account after wrong logins, and checks its database in its health
//! answer. Two processes use the database password: `panel api` (inside `DATABASE_URL`) and `panel worker` (as `PGPASSWORD`).
//! Its habits are those of the applications it stands for, good and bad: an access token is believed by signature and
//! expiry alone, and a pooled connection goes on working after its password was changed.

mod accounts;
mod api;
mod db;
mod faults;
mod pages;
mod schema;
mod seed;
mod tokens;
mod webhooks;
mod worker;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let done = match command.as_str() {
        "migrate" => schema::migrate().await,
        "api" => api::run().await,
        "worker" => worker::run().await,
        "worker-health" => worker::health(),
        "seed" => seed::run().await,
        other => Err(format!(
            "unknown command {other:?}: migrate, api, worker, worker-health or seed"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("panel {command}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The value of an environment variable that the panel cannot do without. The error names the variable, never a value.
fn required(name: &str) -> Result<String, String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("the environment variable {name} is not set"))
}

/// Resolves when the process is asked to stop, so that `docker stop` takes milliseconds.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
