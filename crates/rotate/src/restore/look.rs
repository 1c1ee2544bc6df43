//! What is looked at before a database is restored: the server, who logs in, the room, and who uses it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use keyroll_journal::Journal;
use keyroll_providers::postgres::Endpoint;
use keyroll_runtimes::compose::{Container, State, form_of};
use keyroll_secret::{Identity, Secret};

use super::Origin;
use super::database::Database;
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

/// Looks at the server, and ends what a killed run of the same restore left.
pub(super) async fn database(
    keyroll: &Keyroll,
    journal: &Journal,
    from: &Origin,
    identity: Identity,
    progress: &dyn Progress,
) -> Result<Database, RotateError> {
    let profile = &keyroll.profile;
    let world =
        preflight::bystander(profile, &keyroll.operator, identity.clone(), progress).await?;
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
    let needed = size
        .max(from.about.database_bytes.unwrap_or(0))
        .saturating_add(RESERVE);
    let free = server
        .free_bytes(&world, base)
        .await
        .map_err(|why| refuse(Code::Space, why, "see docs/errors/space.md"))?;
    if needed > free {
        let what = format!(
            "{}: the restored database may take {} MiB beside the present one, {} MiB are free",
            spec.service,
            needed.div_ceil(1 << 20),
            free >> 20
        );
        return Err(refuse(Code::Space, what, "make room on the server's disk"));
    }
    let consumers = consumers(&world, from, &spec.service, containers);
    Ok(Database {
        side: side_name(&live, &from.rotation),
        kept: kept_name(&live, Timestamp::now()),
        world,
        server,
        identity,
        live,
        consumers,
        needed,
        free,
    })
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
        && let Ok((mut pairs, _)) =
            world::unseal(journal, &world.identity, &from.rotation, &from.about)
        && let Some(pair) = pairs.remove(&fact.name)
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
    mut containers: Vec<Container>,
) -> Vec<Container> {
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
    // What runs once and has ended is not to be run again.
    let ended = |c: &Container| c.state == State::Exited(0);
    containers
        .retain(|c| c.service != server && (known.contains(&c.service) || (holds(c) && !ended(c))));
    containers
}
