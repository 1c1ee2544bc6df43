//! What is looked at before a database is restored: the server, who logs in, the room, and who uses it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use keyroll_journal::{Journal, Writer};
use keyroll_providers::postgres::Endpoint;
use keyroll_runtimes::compose::{Container, State, form_of};
use keyroll_secret::{Identity, Secret};

use super::Origin;
use super::database::Database;
use super::intent::{Consumer, DATABASE, Part, command};
use super::server::{Server, kept_name, maintenance, side_name};
use crate::about::Fate;
use crate::error::{Code, Refusal, RotateError};
use crate::operations::Keyroll;
use crate::profile::SecretKind;
use crate::report::Progress;
use crate::world::{Set, World};
use crate::{database, preflight, recovery, world};

/// Kept free on the server's disk besides.
const RESERVE: u64 = 64 << 20;

fn refuse(code: Code, what: impl Into<String>, next: impl Into<String>) -> RotateError {
    Refusal::new(code, what, next).into()
}

/// A server that answers, and on which nothing of a killed run is at work any more.
struct Seen {
    world: World,
    server: Server,
    live: String,
    size: u64,
    service: String,
    containers: Vec<Container>,
}

/// Looks at the server, and ends what a killed run of the same restore left.
async fn server(
    keyroll: &Keyroll,
    journal: &Journal,
    from: &Origin,
    identity: Identity,
    progress: &dyn Progress,
) -> Result<Seen, RotateError> {
    let profile = &keyroll.profile;
    let mut world = preflight::bystander(profile, &keyroll.operator, identity, progress).await?;
    // What a second run of the same restore looks for.
    world.rotation = from.rotation.clone();
    let next = "see docs/guides/restore.md";
    let no_database = |what: String| refuse(Code::Database, what, next);
    let (Some(spec), Some(fact)) = (&profile.database, &world.about.database) else {
        return Err(no_database("the profile has no [database] section".into()));
    };
    if from.about.database.is_none() {
        let what = format!("the backup of {} has no dump", from.rotation);
        return Err(refuse(Code::Backup, what, "name another rotation"));
    }
    recovery::end_orphans(&world, &from.rotation, progress)
        .await
        .map_err(RotateError::Failed)?;
    let live = fact.database.clone();
    let base = maintenance(&live);
    let mut endpoint = world
        .endpoint()
        .await
        .map_err(|e| no_database(world.clean(&e.to_string())))?;
    base.clone_into(&mut endpoint.database);
    let password = password(&world, journal, from, &endpoint)
        .await
        .map_err(|why| no_database(world.clean(&why)))?;
    let containers = world
        .containers()
        .await
        .map_err(|e| no_database(e.to_string()))?;
    let container = containers.iter().find(|c| c.service == spec.service);
    let container =
        container.ok_or_else(|| no_database(format!("{} has no container", spec.service)))?;
    let server = Server {
        container: container.id.clone(),
        endpoint,
        password,
        rotation: from.rotation.clone(),
        patience: Duration::from_secs(profile.limits.dump_seconds),
    };
    let asked = server
        .sql(
            &world,
            base,
            &[("live", &live)],
            "SELECT rolsuper, (SELECT pg_database_size(datname) FROM pg_database WHERE datname = :'live') \
             FROM pg_roles WHERE rolname = current_user;",
        )
        .await
        .map_err(&no_database)?;
    let row = asked.first().map_or(&[][..], Vec::as_slice);
    let [superuser, size] = row else {
        return Err(no_database("the server did not answer as expected".into()));
    };
    if superuser != "t" {
        let what = format!(
            "role {} is no superuser: it cannot give a restored database the owners that it had",
            fact.role
        );
        return Err(no_database(what));
    }
    let Ok(size) = size.parse::<u64>() else {
        return Err(no_database(format!("there is no database {live:?}")));
    };
    Ok(Seen {
        service: spec.service.clone(),
        world,
        server,
        live,
        size,
        containers,
    })
}

/// Looks at everything that a restore needs.
pub(super) async fn database(
    keyroll: &Keyroll,
    journal: &Journal,
    from: &Origin,
    identity: Identity,
    progress: &dyn Progress,
) -> Result<Database, RotateError> {
    let seen = server(keyroll, journal, from, identity.clone(), progress).await?;
    let needed = seen
        .size
        .max(from.about.database_bytes.unwrap_or(0))
        .saturating_add(RESERVE);
    let free = seen
        .server
        .free_bytes(&seen.world, maintenance(&seen.live))
        .await
        .map_err(|why| refuse(Code::Space, why, "see docs/errors/space.md"))?;
    if needed > free {
        let what = format!(
            "{}: the restored database may take {} MiB beside the present one, {} MiB are free",
            seen.service,
            needed.div_ceil(1 << 20),
            free >> 20
        );
        return Err(refuse(Code::Space, what, "make room on the server's disk"));
    }
    let consumers = consumers(&seen.world, from, &seen.service, &seen.containers);
    Ok(Database {
        side: side_name(&seen.live, &from.rotation),
        kept: kept_name(&seen.live, Timestamp::now()),
        world: seen.world,
        server: seen.server,
        identity,
        live: seen.live,
        consumers,
        needed,
        free,
    })
}

/// Looks how far a killed run came. Where the two databases have not changed places, what it had stopped is started again, and
/// nothing is left of it; where they have, it is to be finished.
pub(super) async fn again(
    keyroll: &Keyroll,
    writer: &Writer,
    from: &Origin,
    part: Part,
    identity: Identity,
    progress: &dyn Progress,
) -> Result<Option<(Database, Part)>, RotateError> {
    progress.looking("how far the interrupted restore came");
    let Some(swap) = part.intent.swap.clone() else {
        let what =
            "the journal does not say which databases the unfinished restore was to exchange";
        return Err(refuse(
            Code::State,
            what,
            "restore the state directory from a copy",
        ));
    };
    let seen = server(keyroll, writer, from, identity.clone(), progress).await?;
    let today = swap.consumers.iter().map(|c| c.today(&seen.containers));
    let database = Database {
        consumers: today.collect(),
        world: seen.world,
        server: seen.server,
        identity,
        live: swap.live,
        side: swap.side,
        kept: swap.kept,
        needed: 0,
        free: 0,
    };
    let changed = database.changed_places().await;
    if changed.map_err(|why| refuse(Code::Database, why, "see docs/guides/restore.md"))? {
        return Ok(Some((database, part)));
    }
    writer.fence()?;
    // Nothing was stopped before it was written down what the database beside came to.
    let may_be_stopped = swap.restored.is_some();
    database.as_before(may_be_stopped).await.map_err(|why| {
        RotateError::Failed(format!(
            "the interrupted restore had changed nothing, {} is in its place as it was, but {why}; then run `{}` again",
            database.live,
            command(&[part.open()])
        ))
    })?;
    writer.drop_restore(DATABASE)?;
    Ok(None)
}

/// The first password that logs in: the env file's, and for a stuck rotation either of its own.
async fn password(
    world: &World,
    journal: &Journal,
    from: &Origin,
    endpoint: &Endpoint,
) -> Result<Secret, String> {
    let own = world.value_of(SecretKind::PostgresPassword, Set::Old);
    let mut candidates = vec![own.map_err(|e| e.to_string())?.clone()];
    if from.stuck
        && let Some(fact) = from.about.secret_of(SecretKind::PostgresPassword)
        && let Ok(mut values) = world::unseal(journal, &world.identity, &from.rotation, &from.about)
        && let Some(pair) = values.pairs.remove(&fact.name)
    {
        candidates.extend([pair.new, pair.old]);
    }
    let mut last = String::new();
    for candidate in candidates {
        match database::accepts(endpoint, &candidate).await {
            Ok(()) => return Ok(candidate),
            Err(why) => last = why.to_string(),
        }
    }
    Err(last)
}

/// Containers that use the database: those that the rotation recreated, and those that hold its password.
fn consumers(
    world: &World,
    from: &Origin,
    server: &str,
    containers: &[Container],
) -> Vec<Consumer> {
    let known: BTreeSet<String> = from
        .about
        .services_with(Fate::Recreated)
        .into_iter()
        .collect();
    let password = world.value_of(SecretKind::PostgresPassword, Set::Old).ok();
    let holds = |container: &Container| {
        password.is_some_and(|password| {
            let mut values = container.env.values();
            values.any(|v| form_of(password.expose(), v.expose()).is_some())
        })
    };
    // What runs once and has ended is not to be run again. What a killed run had stopped runs by now.
    let ended = |c: &Container| c.state == State::Exited(0);
    let uses = |c: &&Container| {
        c.service != server && (known.contains(&c.service) || (holds(c) && !ended(c)))
    };
    containers.iter().filter(uses).map(Consumer::from).collect()
}
