//! A visitor who asks 200 times a second, whatever the answer: the outage as users have it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyroll_secret::Secret;
use keyroll_testkit::{Panel, Stack};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Result;
use crate::shell::chain;

const EVERY: Duration = Duration::from_millis(5);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// From the first 401 to the next login, and between logins. A wrong password counts towards the panel's lock, so this must
/// not try while the env file is ahead of the administrator's row.
const BEFORE_LOGIN: Duration = Duration::from_millis(1500);
const PAGE: &str = "/audit-logs";

/// Asks for the health and for a page in turn, from `start` to `stop`.
pub(crate) struct Prober {
    seen: Arc<Seen>,
    asks: JoinHandle<()>,
    logs_in: JoinHandle<()>,
}

struct Seen {
    panel: Panel,
    token: Mutex<Secret>,
    refused: AtomicBool,
    failed: AtomicU32,
    ended: AtomicBool,
}

impl Prober {
    /// Logs in with the password that the env file has, and starts asking.
    pub(crate) async fn start(stack: &Arc<Stack>) -> Result<Self> {
        let panel = stack.panel().map_err(|e| chain(&e))?;
        let token = login(&panel, stack)
            .await?
            .ok_or("the panel refuses the administrator before the measurement")?;
        let seen = Arc::new(Seen {
            panel,
            token: Mutex::new(token),
            refused: AtomicBool::new(false),
            failed: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        });
        Ok(Self {
            asks: tokio::spawn(ask(seen.clone())),
            logs_in: tokio::spawn(keep_logged_in(seen.clone(), stack.clone())),
            seen,
        })
    }

    /// Stops asking, and waits for the answers that are due. Returns the outage: 5 ms for each request that failed.
    pub(crate) async fn stop(self) -> Duration {
        self.seen.ended.store(true, Ordering::Relaxed);
        let _ = self.asks.await;
        self.logs_in.abort();
        // Its hold on the stack ends with it.
        let _ = self.logs_in.await;
        EVERY * self.seen.failed.load(Ordering::Relaxed)
    }
}

async fn ask(seen: Arc<Seen>) {
    let mut ticks = tokio::time::interval(EVERY);
    // The rate holds on the average, also when this process was held up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due = tokio::task::JoinSet::new();
    let mut turn = false;
    while !seen.ended.load(Ordering::Relaxed) {
        ticks.tick().await;
        turn = !turn;
        due.spawn(one(seen.clone(), turn));
        while due.try_join_next().is_some() {}
    }
    due.join_all().await;
}

/// One request. A 401 is an answer: sessions are meant to end.
async fn one(seen: Arc<Seen>, page: bool) {
    let token = seen
        .token
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let answer = async {
        if page {
            seen.panel.page(PAGE, Some(&token)).await
        } else {
            seen.panel.health().await
        }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(401)) => seen.refused.store(true, Ordering::Relaxed),
        Ok(Ok(status)) if status < 500 => {}
        _ => {
            seen.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn keep_logged_in(seen: Arc<Seen>, stack: Arc<Stack>) {
    let mut since = None;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !seen.refused.load(Ordering::Relaxed) {
            since = None;
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() < BEFORE_LOGIN {
            continue;
        }
        if let Ok(Some(token)) = login(&seen.panel, &stack).await {
            *seen.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
            seen.refused.store(false, Ordering::Relaxed);
        }
        since = None;
    }
}

/// With the password that the env file has now. `None` when it is refused.
async fn login(panel: &Panel, stack: &Stack) -> Result<Option<Secret>> {
    let read = |key: &str| stack.env(key).map_err(|e| chain(&e));
    let reply = panel
        .login(read("ADMIN_EMAIL")?.expose(), &read("ADMIN_PASSWORD")?)
        .await
        .map_err(|e| chain(&e))?;
    Ok(reply.tokens.map(|tokens| tokens.access))
}
