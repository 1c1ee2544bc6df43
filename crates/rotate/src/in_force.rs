//! What is in force where, each place by a view of its own.
//!
//! A rotation that is stuck leaves somebody with a question that no journal answers: which password does the database take
//! now, and what do the containers have? The places do not ask one another, so each is asked by itself, and one that cannot be
//! looked at is told as that. Looking changes nothing and costs no wrong login of the application: the admin's password is known
//! by its stored hash.

use std::collections::BTreeSet;
use std::time::Duration;

use keyroll_envfile::{EnvFile, Reading};
use keyroll_journal::{Journal, RotationId};
use keyroll_providers::postgres::Cell;
use keyroll_runtimes::compose::Container;
use keyroll_secret::{Identity, Secret};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::about::{About, Fate, SecretFact};
use crate::database::{self, InForce};
use crate::profile::SecretKind;
use crate::settings::same;
use crate::stack;
use crate::steps::hashes;
use crate::world::{Set, World, kept};

/// Time for all that is looked at over a network.
const LIMIT: Duration = Duration::from_secs(20);

/// One place, and what it has of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// The secret's name.
    pub secret: String,
    /// The place.
    pub place: String,
    /// How it was looked at.
    pub by: String,
    /// What was seen.
    pub holds: Holds,
}

/// Which value of a secret a place has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// The value from before the rotation.
    Old,
    /// The value that it rotates to.
    New,
    /// Both: logins are not checked there, or some of it is old and some is new.
    Both,
    /// A third one.
    Another,
    /// No value.
    None,
    /// It could not be looked at, for this reason.
    Unknown(String),
}

impl std::fmt::Display for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Old => f.write_str("the old value"),
            Self::New => f.write_str("the new value"),
            Self::Both => f.write_str("both the old and the new value"),
            Self::Another => f.write_str("another value, neither old nor new"),
            Self::None => f.write_str("no value"),
            Self::Unknown(why) => write!(f, "could not look: {why}"),
        }
    }
}

impl Holds {
    /// Of a place that can have each of the two.
    fn of(old: bool, new: bool) -> Self {
        match (old, new) {
            (true, true) => Self::Both,
            (true, false) => Self::Old,
            (false, true) => Self::New,
            (false, false) => Self::Another,
        }
    }
}

/// What the env file holds of each secret of a rotation that has a key there, in the rotation's order.
pub(crate) fn in_env_file<'a>(
    about: &'a About,
    identity: &Identity,
) -> Vec<(&'a SecretFact, Holds)> {
    let path = &about.env_file.path;
    let file = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|e| e.to_string())
        .and_then(|text| EnvFile::parse(&text).map_err(|e| e.to_string()))
        .map_err(|e| format!("{}: {e}", path.display()));
    let fingerprints = identity.fingerprint_key();
    let holds = |fact: &SecretFact, key: &str| match file.as_ref().map(|f| f.get(key)) {
        Err(why) => Holds::Unknown(why.clone()),
        Ok(Some(Reading::Value(value))) => match fingerprints.fingerprint(value).to_string() {
            now if now == fact.new => Holds::New,
            now if now == fact.old => Holds::Old,
            _ => Holds::Another,
        },
        Ok(_) => Holds::None,
    };
    let all = about.secrets.iter();
    all.filter_map(|fact| Some((fact, holds(fact, fact.env_key()?))))
        .collect()
}

/// What the application's settings hold of each secret that is kept there.
pub(crate) async fn in_settings<'a>(
    about: &'a About,
    world: Result<&World, &str>,
) -> Vec<(&'a SecretFact, Holds)> {
    let there: Vec<&SecretFact> = about
        .secrets
        .iter()
        .filter(|s| s.setting.is_some())
        .collect();
    if there.is_empty() || about.finalizes {
        return vec![];
    }
    let read = match world {
        Ok(world) => world.read_settings(&world.rotation).await,
        Err(why) => Err(why.to_owned()),
    };
    let holds = |fact: &SecretFact| {
        let read = match &read {
            Ok(read) => read,
            Err(why) => return Holds::Unknown(why.clone()),
        };
        let key = fact.setting.as_ref().map(|s| s.key.as_str());
        let found = read.iter().find(|(row, _)| Some(row.key.as_str()) == key);
        match found {
            Some((row, now)) if same(row.under(Set::New), now) => Holds::New,
            Some((row, now)) if same(row.under(Set::Old), now) => Holds::Old,
            Some((_, Cell::Value(_))) => Holds::Another,
            _ => Holds::None,
        }
    };
    there.into_iter().map(|fact| (fact, holds(fact))).collect()
}

/// Every place that has a secret of the rotation. `world` is why the systems cannot be asked, where they cannot.
pub(crate) async fn everywhere(
    about: &About,
    identity: &Identity,
    world: Result<&World, &str>,
    journal: &Journal,
    rotation: &RotationId,
) -> Vec<View> {
    let file = about.env_file.path.display().to_string();
    let mut all: Vec<View> = in_env_file(about, identity)
        .into_iter()
        .map(|(fact, holds)| view(&fact.name, &file, "the file itself", holds))
        .collect();
    let look = async {
        let mut seen = in_containers(about, world).await;
        seen.extend(in_database(about, world).await);
        for (fact, holds) in in_settings(about, world).await {
            let setting = fact.setting.as_ref().map_or("", |s| s.key.as_str());
            let place = format!("setting {setting} of the application");
            seen.push(view(&fact.name, &place, "the row itself", holds));
        }
        seen.extend(in_application(about, world, journal, rotation).await);
        seen
    };
    match tokio::time::timeout(LIMIT, look).await {
        Ok(seen) => all.extend(seen),
        Err(_) => all.push(view(
            "",
            "containers, database and application",
            "their own answers",
            Holds::Unknown(format!("no answer within {LIMIT:?}")),
        )),
    }
    if let Ok(world) = world {
        world.sessions.close().await;
        for seen in &mut all {
            if let Holds::Unknown(why) = &mut seen.holds {
                *why = world.clean(why);
            }
        }
    }
    all.sort_by_key(|v| about.secrets.iter().position(|s| s.name == v.secret));
    all
}

/// When not even keyroll's identity is there: without it nothing that is sealed can be compared.
pub(crate) fn nowhere(about: &About, why: &str) -> Vec<View> {
    let unknown = |fact: &SecretFact| {
        let holds = Holds::Unknown(why.to_owned());
        view(
            &fact.name,
            "every place",
            "comparison with what is sealed",
            holds,
        )
    };
    about.secrets.iter().map(unknown).collect()
}

/// The containers that a rotation makes anew. Those that it leaves alone keep what they were made with, by choice.
async fn in_containers(about: &About, world: Result<&World, &str>) -> Vec<View> {
    let by = "its configuration, by the container engine";
    let there = match world {
        Ok(world) => world.containers().await.map_err(|e| e.to_string()),
        Err(why) => Err(why.to_owned()),
    };
    let anew = about.services_with(Fate::Recreated);
    let mut all = vec![];
    for fact in &about.secrets {
        let shown = fact
            .uses
            .iter()
            .filter(|u| u.in_container && anew.contains(&u.service));
        let services: BTreeSet<&str> = shown.map(|u| u.service.as_str()).collect();
        for service in services {
            let own = there.as_ref().map(|all| {
                let mut own = all.iter().filter(|c| c.service == service);
                (own.next(), own.next())
            });
            let (place, holds) = match (own, world) {
                (Err(why), _) => (service.to_owned(), Holds::Unknown(why.clone())),
                (Ok((Some(container), None)), Ok(world)) => (
                    format!("{} ({})", container.name, container.state),
                    in_container(world, fact, container),
                ),
                _ => {
                    let why = "it does not have exactly one container".to_owned();
                    (service.to_owned(), Holds::Unknown(why))
                }
            };
            all.push(view(&fact.name, &place, by, holds));
        }
    }
    all
}

fn in_container(world: &World, fact: &SecretFact, container: &Container) -> Holds {
    let Some(pair) = world.pairs.get(&fact.name) else {
        return Holds::Unknown("its values are no longer sealed".into());
    };
    let has = |value: &Secret| {
        let named = [(fact.name.clone(), value.clone())];
        !stack::uses_in(container, &named).is_empty()
    };
    Holds::of(has(pair.held(Set::Old)), has(&pair.new))
}

/// The database, by logging in with both passwords.
async fn in_database(about: &About, world: Result<&World, &str>) -> Option<View> {
    let fact = about.secret_of(SecretKind::PostgresPassword)?;
    let place = about.database.as_ref().map_or_else(
        || "the database".to_owned(),
        |d| format!("role {} of database {}", d.role, d.database),
    );
    let holds = look_at_database(world).await.unwrap_or_else(Holds::Unknown);
    Some(view(&fact.name, &place, "a login with each value", holds))
}

async fn look_at_database(world: Result<&World, &str>) -> Result<Holds, String> {
    let world = world.map_err(str::to_owned)?;
    let (old, new) = world
        .both(SecretKind::PostgresPassword)
        .ok_or("its values are no longer sealed")?;
    let endpoint = world.endpoint().await.map_err(|e| e.to_string())?;
    let found = database::which_logs_in(&endpoint, old, new).await;
    Ok(match found.map_err(|e| e.to_string())? {
        InForce::Old => Holds::Old,
        InForce::New => Holds::New,
        InForce::Both => Holds::Both,
        InForce::Neither => Holds::Another,
    })
}

/// The application's admin, by the hash that it has stored.
async fn in_application(
    about: &About,
    world: Result<&World, &str>,
    journal: &Journal,
    rotation: &RotationId,
) -> Option<View> {
    let fact = about.secret_of(SecretKind::AdminPassword)?;
    let email = about.admin_email.as_deref().unwrap_or("the admin");
    let place = format!("{email} in the application");
    let by = "the stored hash, against the sealed ones";
    let seen = look_at_admin(about, world, journal, rotation).await;
    Some(match seen {
        Ok(Some(holds)) => view(&fact.name, &place, by, holds),
        Ok(None) => view(
            &fact.name,
            &place,
            "the journal: changing it was never begun",
            Holds::Old,
        ),
        Err(why) => view(&fact.name, &place, by, Holds::Unknown(why)),
    })
}

/// `None` when keyroll had not begun to change it.
async fn look_at_admin(
    about: &About,
    world: Result<&World, &str>,
    journal: &Journal,
    rotation: &RotationId,
) -> Result<Option<Holds>, String> {
    let world = world.map_err(str::to_owned)?;
    let sealed = |name| kept(journal, &world.identity, rotation, name);
    let Some(before) = sealed(hashes::BEFORE)? else {
        return Ok(None);
    };
    let (Some(spec), Some(email)) = (&about.profile.admin, &about.admin_email) else {
        return Err("the profile has no [admin] section".into());
    };
    let session = world.database_session(rotation).await?;
    let stored = session.read_cell(&database::admin_hash(spec, email)).await;
    world.sessions.put(session);
    let Cell::Value(stored) = stored.map_err(|e| e.to_string())? else {
        return Ok(Some(Holds::None));
    };
    let after = sealed(hashes::AFTER)?;
    Ok(Some(Holds::of(
        stored.same_as(&before),
        after.is_some_and(|after| stored.same_as(&after)),
    )))
}

fn view(secret: &str, place: &str, by: &str, holds: Holds) -> View {
    View {
        secret: secret.to_owned(),
        place: place.to_owned(),
        by: by.to_owned(),
        holds,
    }
}
