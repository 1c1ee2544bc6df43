//! What comes before going on with a rotation that another process began.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyroll_journal::RotationId;
use keyroll_providers::postgres::ApplicationName;
use keyroll_runtimes::orphans;
use keyroll_secret::{Identity, Secret};

use crate::about::About;
use crate::panel::Panel;
use crate::report::Progress;
use crate::stack;
use crate::world::{Pair, World, redactor};

/// How long what a killed run left gets to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The world of a rotation that is read back. Asks the engine and compose for their versions, and nothing else.
pub(crate) async fn world(
    about: About,
    identity: Identity,
    pairs: BTreeMap<String, Pair>,
    others: BTreeMap<String, Secret>,
    id: &RotationId,
) -> Result<World, String> {
    let redactor = redactor(&pairs, &others);
    let socket = &about.profile.compose.socket;
    let engine = stack::engine(socket, &redactor)
        .await
        .map_err(|e| e.to_string())?;
    let cli = stack::compose(&engine, (&about.project).into(), id, &redactor)
        .await
        .map_err(|e| e.to_string())?;
    let panel = match &about.profile.http {
        Some(http) => Some(Panel::new(http, about.profile.limits).map_err(|e| e.to_string())?),
        None => None,
    };
    Ok(World {
        about,
        identity,
        redactor,
        engine,
        cli,
        pairs,
        others,
        panel,
        staged: std::sync::Mutex::default(),
    })
}

/// Ends what the killed run left: its children, its commands in containers, its database sessions, and the file with the new
/// values that it had not yet renamed into place.
pub(crate) async fn end_orphans(
    world: &World,
    id: &RotationId,
    progress: &dyn Progress,
) -> Result<(), String> {
    // Again until there are none: one may have started another just before it ended.
    let begun = Instant::now();
    loop {
        let left = orphans::find(id.as_str())
            .map_err(|e| e.to_string())?
            .orphans;
        if left.is_empty() {
            break;
        }
        let names: Vec<&str> = left.iter().map(|o| o.what.as_str()).collect();
        let names = names.join(", ");
        if begun.elapsed() > 2 * LIMIT {
            return Err(format!("the killed run's processes go on: {names}"));
        }
        progress.looking(&format!("ending what the killed run left: {names}"));
        orphans::end(&left, LIMIT)
            .await
            .map_err(|e| e.to_string())?;
    }
    // A step that goes on writes a file of its own.
    keyroll_envfile::remove_leftovers(&world.about.env_file.path).map_err(|e| e.to_string())?;
    if world.about.database.is_some()
        && let Ok(session) = world.database_session(id).await
    {
        // A statement that was sent goes on in the server although its client is gone. If the database cannot be reached now,
        // the steps' own observations find out.
        let name = ApplicationName::of_rotation(id.as_str()).map_err(|e| e.to_string())?;
        let ended = session
            .terminate_own_backends(&name, LIMIT)
            .await
            .map_err(|e| world.clean(&e.to_string()))?;
        if !ended.left.is_empty() {
            return Err("a database session of the killed run does not end".into());
        }
    }
    Ok(())
}
