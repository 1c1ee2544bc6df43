//! What is looked at before a Proxmox token is made: which one is in force, what earlier rotations have made, and who manages them.

use std::time::Duration;

use jiff::Timestamp;
use keyroll_journal::{Ending, Journal, RotationId, VersionState};
use keyroll_providers::postgres::Cell;
use keyroll_secret::{Identity, Secret};

use super::{Ready, bystander, ready_without_edit};
use crate::about::{About, MakesFact, Operator};
use crate::error::{Code, Refusal, RotateError};
use crate::profile::Profile;
use crate::report::Progress;
use crate::settings;
use crate::steps::token::{MADE, Managed, parts};
use crate::world::{Values, World, kept};

/// Ends a token's own name, before a time.
const MARK: &str = "-kr";

/// A token that is to be made.
#[derive(Debug)]
pub(crate) struct NewToken<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) operator: &'a Operator,
    /// The secret that its value will be.
    pub(crate) name: &'a str,
    /// The one in force is given another value in place.
    pub(crate) in_place: bool,
}

/// What there is to do.
pub(crate) enum Making {
    /// It has to be made.
    Ready(Box<Ready>),
    /// An earlier rotation made one that nothing has used.
    There { id: String, value: Secret },
}

impl NewToken<'_> {
    pub(crate) async fn look(
        &self,
        journal: &Journal,
        identity: &Identity,
        progress: &dyn Progress,
    ) -> Result<Making, RotateError> {
        let name = self.name;
        let spec = &self.profile.secrets[name];
        let previous = journal.versions_of(name)?;
        if previous.iter().any(|v| v.state == VersionState::Previous) {
            return Err(refuse(
                Code::Grace,
                format!(
                    "{name}: its grace window is open: the token before the present one is still alive"
                ),
                format!("end it with `keyroll finalize {name}`"),
            ));
        }
        let mut world = bystander(self.profile, self.operator, identity.clone(), progress).await?;
        progress.looking("the tokens");
        let id = RotationId::new(Timestamp::now());
        world.rotation = id.clone();
        let (old, like) = self.in_force(&world, &id).await?;
        let limit = Duration::from_secs(self.profile.limits.request_seconds);
        let provider = |e: String| {
            refuse(
                Code::Provider,
                e,
                "see secrets.*.make in the profile".into(),
            )
        };
        let managed = Managed::of(name, spec, limit).map_err(provider)?;
        let find = async |id: &str| managed.find(id).await.map_err(|e| provider(e.to_string()));
        if find(&like).await?.is_none() {
            return Err(refuse(
                Code::Settings,
                format!("{name}: there is no token {like}, which the application's settings name"),
                "correct the setting; it holds the full id (user@realm!name)".into(),
            ));
        }
        if self.in_place {
            let fact = MakesFact {
                secret: name.to_owned(),
                id: like.clone(),
                like,
                discards: vec![],
                setting: spec.setting.clone(),
            };
            let notice = format!(
                "{} is given another value in place: its old one is dead at once, the application cannot use it until its setting holds the new one, and there is no way back",
                fact.id
            );
            world.about.makes = Some(fact);
            return self.ready(world, old, vec![notice], journal);
        }
        let mut discards = vec![];
        for (made, value) in earlier(journal, identity, name)? {
            if made == like {
                continue;
            }
            match value {
                Some(value) if find(&made).await?.is_some() => {
                    return Ok(Making::There { id: made, value });
                }
                _ => discards.push(made),
            }
        }
        let (user, own) = parts(&like);
        let base = own.split(MARK).next().unwrap_or(own);
        let stamp = Timestamp::now().strftime("%Y%m%dt%H%M%S");
        let fact = MakesFact {
            secret: name.to_owned(),
            id: format!("{user}!{base}{MARK}{stamp}"),
            like,
            discards,
            setting: None,
        };
        let mut notice = vec![format!(
            "the token {} is made, with the rights of {}; nothing uses it yet",
            fact.id, fact.like
        )];
        if !fact.discards.is_empty() {
            notice.push(format!(
                "deleted, made earlier and in use nowhere: {}",
                fact.discards.join(", ")
            ));
        }
        world.about.makes = Some(fact);
        self.ready(world, old, notice, journal)
    }

    fn ready(
        &self,
        mut world: World,
        old: Secret,
        notice: Vec<String>,
        journal: &Journal,
    ) -> Result<Making, RotateError> {
        let mut others = std::mem::take(&mut world.others);
        others.insert(self.name.to_owned(), old);
        let values = Values {
            others,
            ..Values::default()
        };
        let ready = ready_without_edit(world, values, notice, journal)?;
        Ok(Making::Ready(Box::new(ready)))
    }

    /// The secret and the full id that the application's settings hold.
    async fn in_force(
        &self,
        world: &World,
        id: &RotationId,
    ) -> Result<(Secret, String), RotateError> {
        let name = self.name;
        let spec = &self.profile.secrets[name];
        let table = self.profile.settings.as_ref().map(settings::table);
        let (Some(setting), Some(make), Some(table)) = (&spec.setting, &spec.make, table) else {
            let what = format!("{name} has no setting");
            return Err(refuse(Code::Settings, what, "see the profile".into()));
        };
        let session = world.database_session(id).await;
        let mend = "mend it, or correct [database] in the profile";
        let session = session.map_err(|e| refuse(Code::Database, world.clean(&e), mend.into()))?;
        let read = settings::read(&session, &table, &[setting, &make.id_setting]).await?;
        world.sessions.put(session);
        match read.as_slice() {
            [Cell::Value(secret), Cell::Value(full)] => {
                Ok((secret.clone(), full.expose().to_owned()))
            }
            _ => Err(refuse(
                Code::Settings,
                format!("{name}: {setting} or {} has no value", make.id_setting),
                "enter the token's full id and its secret in the application first".into(),
            )),
        }
    }
}

fn refuse(code: Code, what: String, next: String) -> RotateError {
    Refusal::new(code, what, next).into()
}

/// Tokens that rotations have made for this secret, the last one first; with the value of one that was made whole and is still kept.
fn earlier(
    journal: &Journal,
    identity: &Identity,
    name: &str,
) -> Result<Vec<(String, Option<Secret>)>, RotateError> {
    let mut all = vec![];
    for rotation in journal.rotations()? {
        let fact = About::of(&rotation)?.makes;
        if let Some(fact) = fact.filter(|fact| fact.secret == name) {
            let value = kept(journal, identity, &rotation.id, MADE).map_err(RotateError::Failed)?;
            let whole = rotation.ending == Some(Ending::Completed);
            all.push((fact.id, value.filter(|_| whole)));
        }
    }
    all.reverse();
    Ok(all)
}
