//! What is looked at before grace windows are ended: which are open, and what the rows of the previous values held before.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keyroll_journal::{Journal, RotationId, VersionState};
use keyroll_providers::postgres::{Cell, Session};
use keyroll_secret::{Identity, Secret};

use super::{Findings, Ready, bystander, ready_without_edit};
use crate::about::{About, Held, IdFact, Operator, PreviousFact, SecretFact, SettingFact};
use crate::error::{Code, Refusal, RotateError};
use crate::profile::Profile;
use crate::report::Progress;
use crate::settings::{self, Previous};
use crate::world::{Pair, Values};

/// Grace windows that are to be ended.
#[derive(Debug)]
pub(crate) struct Windows<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) operator: &'a Operator,
    /// Secrets that can have one.
    pub(crate) names: &'a [String],
}

impl Windows<'_> {
    /// Which of them are open, and all that ending those needs.
    pub(crate) async fn look(
        &self,
        journal: &Journal,
        identity: &Identity,
        progress: &dyn Progress,
    ) -> Result<Ready, RotateError> {
        let mut world = bystander(self.profile, self.operator, identity.clone(), progress).await?;
        progress.looking("the application's settings");
        let trouble = |what: String| {
            RotateError::from(Refusal::new(
                Code::Database,
                what,
                "mend it, or correct [database] in the profile",
            ))
        };
        let id = RotationId::new(Timestamp::now());
        world.rotation = id.clone();
        world.about.finalizes = true;
        let session = world.database_session(&id).await;
        let session = session.map_err(|e| trouble(world.clean(&e)))?;
        let mut found = Findings::default();
        let opened = self.open(&session, journal, identity, &mut found).await;
        let (facts, pairs, previous) = opened?;
        world.sessions.put(session);
        found.stop()?;
        if facts.is_empty() {
            let what = "no grace window is open";
            return Err(Refusal::new(
                Code::Grace,
                what,
                "there is nothing to end; see `keyroll status`",
            )
            .into());
        }
        world.about.secrets = facts;
        let values = Values {
            pairs,
            others: std::mem::take(&mut world.others),
            previous,
        };
        let facts = world.about.secrets.iter();
        let names: Vec<&str> = facts.map(|s| s.name.as_str()).collect();
        let notice = format!(
            "events that are signed with the previous value of {} are refused from now on",
            names.join(", ")
        );
        ready_without_edit(world, values, vec![notice], journal)
    }

    async fn open(
        &self,
        session: &Session,
        journal: &Journal,
        identity: &Identity,
        found: &mut Findings,
    ) -> Result<(Vec<SecretFact>, BTreeMap<String, Pair>, Previous), RotateError> {
        let (mut facts, mut pairs, mut all) = (vec![], BTreeMap::new(), Previous::new());
        let key = identity.fingerprint_key();
        let Some(table) = self.profile.settings.as_ref().map(settings::table) else {
            return Ok((facts, pairs, all));
        };
        for name in self.names {
            let spec = &self.profile.secrets[name];
            if spec.make.is_some() {
                if let Some((fact, pair)) =
                    self.open_token(session, journal, identity, name).await?
                {
                    facts.push(fact);
                    pairs.insert(name.clone(), pair);
                }
                continue;
            }
            let (Some(setting), Some(previous)) = (&spec.setting, &spec.previous) else {
                continue;
            };
            let read = settings::read(session, &table, &[setting, previous]).await?;
            let [now, before] = read.as_slice() else {
                continue;
            };
            let (old, after) = match before {
                Cell::Value(old) if !old.is_empty() => (old.clone(), was_before(journal, name)?),
                // Somebody has emptied the row by hand: what is left is to show that the value is dead, and to forget the window.
                _ => match value_in(journal, identity, name, VersionState::Previous)? {
                    Some(old) => (old, before.clone()),
                    None => continue,
                },
            };
            let Cell::Value(new) = now else {
                found.refuse(
                    Code::Settings,
                    format!("{name}: setting {setting} has no value, and its previous one is all that is accepted"),
                    "enter the value in force in the application first",
                );
                continue;
            };
            facts.push(SecretFact {
                name: name.clone(),
                kind: spec.kind,
                key: spec.key.clone(),
                setting: Some(SettingFact {
                    key: setting.clone(),
                    previous: Some(PreviousFact {
                        key: previous.clone(),
                        before: settings::held(before),
                        after: settings::held(&after),
                        grace_hours: None,
                    }),
                    id: None,
                }),
                retires: None,
                old: key.fingerprint(&old).to_string(),
                new: key.fingerprint(new).to_string(),
                uses: vec![],
            });
            let pair = Pair {
                old,
                new: new.clone(),
                written: None,
            };
            pairs.insert(name.clone(), pair);
            all.insert(name.clone(), (before.clone(), after));
        }
        Ok((facts, pairs, all))
    }

    /// A token before the present one, where the journal has it as previous.
    async fn open_token(
        &self,
        session: &Session,
        journal: &Journal,
        identity: &Identity,
        name: &str,
    ) -> Result<Option<(SecretFact, Pair)>, RotateError> {
        let spec = &self.profile.secrets[name];
        let Some(old) = value_in(journal, identity, name, VersionState::Previous)? else {
            return Ok(None);
        };
        let table = self.profile.settings.as_ref().map(settings::table);
        let setting = opened_by(journal, name)?;
        let new = value_in(journal, identity, name, VersionState::Current)?;
        let (Some(table), Some(setting), Some(new)) = (table, setting, new) else {
            return Ok(None);
        };
        let Some(id) = setting.id else {
            return Ok(None);
        };
        let read = settings::read(session, &table, &[&setting.key, &id.key]).await?;
        // Whoever has put the old token into the settings again still uses it.
        let holds =
            |at: usize, text: &str| matches!(&read[at], Cell::Value(v) if v.expose() == text);
        if !holds(0, new.expose()) || !holds(1, &id.new) {
            let what = format!(
                "{name}: the settings do not hold the token {} that the last rotation put there",
                id.new
            );
            return Err(Refusal::new(
                Code::Drift,
                what,
                "find out who has changed them; the old token is not deleted",
            )
            .into());
        }
        let key = identity.fingerprint_key();
        let fact = SecretFact {
            name: name.to_owned(),
            kind: spec.kind,
            key: spec.key.clone(),
            setting: Some(SettingFact {
                key: setting.key,
                previous: None,
                id: Some(IdFact {
                    old: id.new.clone(),
                    ..id.clone()
                }),
            }),
            retires: Some(id.old),
            old: key.fingerprint(&old).to_string(),
            new: key.fingerprint(&new).to_string(),
            uses: vec![],
        };
        let written = None;
        Ok(Some((fact, Pair { old, new, written })))
    }
}

/// The value that the journal has of this secret in this state.
fn value_in(
    journal: &Journal,
    identity: &Identity,
    name: &str,
    state: VersionState,
) -> Result<Option<Secret>, RotateError> {
    let versions = journal.versions_of(name)?;
    let version = versions.iter().find(|v| v.state == state);
    let sealed = version.and_then(|v| v.sealed.as_ref());
    let open = |sealed| identity.open_secret(sealed);
    let opened = sealed.map(open).transpose();
    opened.map_err(|e| RotateError::Failed(e.to_string()))
}

/// The settings of this secret, as the rotation that put its current value in force, and opened its window, knew them.
fn opened_by(journal: &Journal, name: &str) -> Result<Option<SettingFact>, RotateError> {
    let versions = journal.versions_of(name)?;
    let current = versions.iter().find(|v| v.state == VersionState::Current);
    let Some(current) = current else {
        return Ok(None);
    };
    let about = About::of(&journal.rotation(&current.rotation)?)?;
    let fact = about.secrets.into_iter().find(|s| s.name == name);
    Ok(fact.and_then(|fact| fact.setting))
}

/// How the row of the previous value had no value before its window, as the rotation that opened it found it.
fn was_before(journal: &Journal, name: &str) -> Result<Cell, RotateError> {
    let previous = opened_by(journal, name)?.and_then(|s| s.previous);
    Ok(match previous.map(|p| p.before) {
        Some(Held::Null) => Cell::Null,
        _ => Cell::Missing,
    })
}
