//! What comes before going on with a rotation that another process began.

use std::time::{Duration, Instant};

use keyroll_journal::{Event, Journal, Record, RotationId};
use keyroll_providers::postgres::ApplicationName;
use keyroll_runtimes::compose::{Container, State};
use keyroll_runtimes::orphans;
use keyroll_secret::Identity;

use crate::about::About;
use crate::database::Free;
use crate::error::{Code, Refusal};
use crate::panel::Panel;
use crate::report::Progress;
use crate::stack;
use crate::steps::names;
use crate::world::{Values, World, redactor, unseal};

/// How long what a killed run left gets to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The world of a rotation that is read back. Asks the engine and compose for their versions, and nothing else.
pub(crate) async fn world(
    about: About,
    identity: Identity,
    values: Values,
    id: &RotationId,
) -> Result<World, String> {
    let redactor = redactor(&values);
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
        rotation: id.clone(),
        about,
        identity,
        redactor,
        engine,
        cli,
        pairs: values.pairs,
        others: values.others,
        previous: values.previous,
        panel,
        staged: std::sync::Mutex::default(),
        sessions: Free::default(),
    })
}

/// The same from the journal alone, where engine, compose and the sealed values can be had.
pub(crate) async fn read_back(
    journal: &Journal,
    identity: &Identity,
    id: &RotationId,
    about: &About,
) -> Result<World, String> {
    let values = unseal(journal, identity, id, about)?;
    world(about.clone(), identity.clone(), values, id).await
}

/// keyroll must be able to see whatever it may once have to end, and to give files back to their owners. Better now than in the
/// middle.
pub(crate) fn rights() -> Result<(), Refusal> {
    let next =
        "run keyroll as root on the host itself, with all of root's rights (`sudo keyroll …`)";
    let refuse = |what: String| Refusal::new(Code::State, what, next);
    let user = rustix::process::geteuid();
    if !user.is_root() {
        return Err(refuse(format!(
            "keyroll runs as user {}, not as root",
            user.as_raw()
        )));
    }
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|e| refuse(format!("{path}: {e}")));
    // The first user of every namespace but the host's own is somebody else's root.
    let map = read("/proc/self/uid_map")?;
    if map.split_whitespace().ne(["0", "0", "4294967295"]) {
        return Err(refuse("keyroll runs in a user namespace".into()));
    }
    let status = read("/proc/self/status")?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let missing = NEEDED
        .iter()
        .find(|(bit, _)| effective.is_none_or(|set| set & (1 << bit) == 0));
    match missing {
        Some((_, name)) => Err(refuse(format!("keyroll runs as root without {name}"))),
        None => Ok(()),
    }
}

/// Capabilities (capabilities(7)): to write and give back others' files, and to find and end what a killed run left.
const NEEDED: [(u32, &str); 5] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (19, "CAP_SYS_PTRACE"),
];

/// Ends what the killed run left: its children, its commands in containers, its database sessions, and the file with the new
/// values that it had not yet renamed into place.
pub(crate) async fn end_orphans(
    world: &World,
    id: &RotationId,
    progress: &dyn Progress,
) -> Result<(), String> {
    end_processes(&world.about, id, progress).await?;
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
        world.sessions.put(session);
        if !ended.left.is_empty() {
            return Err("a database session of the killed run does not end".into());
        }
    }
    Ok(())
}

/// Starts what ran before the rotation and stands still now, as after a reboot where nothing restarts it: a rotation can neither go on
/// nor back without its database. What each container was made with stays as it is. Waits until the database is well; and while the old
/// set is still whole, until the others are too, since a slow start alone is no reason to go back.
pub(crate) async fn start_what_ran(
    world: &World,
    records: &[Record],
    progress: &dyn Progress,
) -> Result<(), String> {
    let changed = |r: &Record| match &r.event {
        Event::Intended { step, .. } => step.as_str() == names::ENV_FILE,
        Event::TurnedBack { .. } => true,
        _ => false,
    };
    let whole = !records.iter().any(changed);
    let told = |container: &Container| {
        progress.doing(&format!(
            "starting {}, which ran before the rotation and stands still",
            container.name
        ));
    };
    let mut waits = start_still(world, |_| true, told).await?;
    if !whole {
        let database = world.about.profile.database.as_ref();
        waits.retain(|service| database.is_some_and(|spec| spec.service == *service));
    }
    let limit = Duration::from_secs(world.about.profile.limits.healthy_seconds);
    let well = world.wait_healthy(&waits, limit).await;
    well.map_err(|e| e.to_string())
}

/// Starts the database if it ran before the rotation and stands still now, as after an engine that was killed: on the way back nobody
/// else would, and without it nothing can be shown to be back. It waits for it, shorter than for a service, since going back tries again.
pub(crate) async fn start_database(world: &World) -> Result<(), String> {
    let Some(spec) = &world.about.profile.database else {
        return Ok(());
    };
    let started = start_still(world, |service| service == spec.service, |_| ()).await?;
    let well = world.wait_healthy(&started, LIMIT).await;
    well.map_err(|e| e.to_string())
}

/// Starts the containers of these services that ran before the rotation, were well, and stand still; the services that it started.
async fn start_still(
    world: &World,
    wanted: impl Fn(&str) -> bool,
    told: impl Fn(&Container),
) -> Result<Vec<String>, String> {
    let ran = |service: &str| {
        let fact = world.about.services.get(service);
        fact.is_some_and(|fact| !fact.done && fact.sick.is_none())
    };
    let mut started = vec![];
    for container in world.containers().await.map_err(|e| e.to_string())? {
        let service = &container.service;
        if matches!(container.state, State::Exited(_)) && wanted(service) && ran(service) {
            told(&container);
            let start = world.engine.start(&container.id).await;
            start.map_err(|e| world.clean(&e.to_string()))?;
            started.push(service.clone());
        }
    }
    Ok(started)
}

/// The part of it that needs neither the engine nor the database. A command in a container is a process of this host too.
pub(crate) async fn end_processes(
    about: &About,
    id: &RotationId,
    progress: &dyn Progress,
) -> Result<(), String> {
    // Again until there are none: one may have started another just before it ended.
    let begun = Instant::now();
    loop {
        let found = orphans::find(id.as_str()).map_err(|e| e.to_string())?;
        let left = found.orphans;
        if left.is_empty() {
            if let Some(process) = found.unreadable.first() {
                return Err(format!(
                    "{process}; it could be one of the killed run's; run keyroll as root, with all of root's rights"
                ));
            }
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
    keyroll_envfile::remove_leftovers(&about.env_file.path)
        .map(drop)
        .map_err(|e| e.to_string())
}
