//! The second consumer of the database password. It takes the parts (`PGPASSWORD`), not the URL.

use std::path::Path;
use std::time::Duration;

use crate::db::Pool;
use crate::faults::Fault;
use crate::tokens::now;

const BEAT: Duration = Duration::from_millis(500);
/// The heartbeat that this very container wrote last, in seconds since 1970. The table would also show another worker's.
const OWN_BEAT: &str = "/tmp/worker-heartbeat";
const FRESH_SECONDS: u64 = 3;

/// Beats until it is asked to stop. A lost database is logged once and tried again; it never ends the worker.
pub(crate) async fn run() -> Result<(), String> {
    if Fault::WorkerStartFail.is_set() {
        return Err("refusing to start".to_owned());
    }
    let pool = Pool::from_parts()?;
    println!("panel worker started");
    tokio::select! {
        () = beat(&pool) => Ok(()),
        () = crate::asked_to_stop() => Ok(()),
    }
}

async fn beat(pool: &Pool) {
    let mut failing = false;
    let mut tick = tokio::time::interval(BEAT);
    loop {
        tick.tick().await;
        let written = pool
            .query(
                r#"INSERT INTO "WorkerHeartbeat" ("worker", "beatAt") VALUES ('worker', now())
                   ON CONFLICT ("worker") DO UPDATE SET "beatAt" = now()"#,
                &[],
            )
            .await
            .map_err(|lost| lost.to_string())
            .and_then(|_| write_own(Path::new(OWN_BEAT)).map_err(|e| format!("{OWN_BEAT}: {e}")));
        match written {
            Ok(()) => failing = false,
            Err(why) if !failing => {
                eprintln!("error {why}");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

/// Renamed into place, so that the health check never reads half a number.
fn write_own(path: &Path) -> std::io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, now().to_string())?;
    std::fs::rename(&next, path)
}

/// Well when this container's own last heartbeat is under 3 seconds old.
pub(crate) fn health() -> Result<(), String> {
    let last: u64 = std::fs::read_to_string(OWN_BEAT)
        .map_err(|e| format!("{OWN_BEAT}: {e}"))?
        .trim()
        .parse()
        .map_err(|_| format!("{OWN_BEAT} holds no time"))?;
    let age = now().saturating_sub(last);
    if age < FRESH_SECONDS {
        Ok(())
    } else {
        Err(format!("the last heartbeat is {age} seconds old"))
    }
}
