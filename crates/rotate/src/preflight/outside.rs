//! Values that somebody else makes: given by the operator, looked at, asked about; and the settings that hold those in force.

use std::collections::BTreeMap;
use std::time::Duration;

use keyroll_providers::payment::Mode;
use keyroll_providers::postgres::{Cell, Session};
use keyroll_secret::{Format, Secret};

use super::{Findings, TakesBack};
use crate::about::{About, IdFact, PreviousFact, Reason, SecretFact, SettingFact};
use crate::error::{Code, RotateError};
use crate::operations::Request;
use crate::profile::{Profile, SecretKind, SecretSpec};
use crate::settings::{self, Previous};
use crate::vendor;
use crate::world::Pair;

/// The values to come that are not made here: kept ones, and those that were given. Their forms are checked.
pub(super) fn given(
    profile: &Profile,
    names: &[String],
    request: &Request,
    back: Option<&TakesBack>,
    found: &mut Findings,
) -> Result<BTreeMap<String, Secret>, RotateError> {
    let mut values = BTreeMap::new();
    for name in request.values.keys() {
        let kind = profile.secrets.get(name).map(|s| s.kind);
        let takes = kind.is_some_and(|k| k.comes_from_outside() || k == SecretKind::Environment);
        if !takes {
            found.refuse(
                Code::Value,
                format!("a value was given for {name}, which takes none"),
                "keyroll makes it itself; leave it out",
            );
        } else if !names.contains(name) {
            found.refuse(
                Code::Value,
                format!("a value was given for {name}, which is not among what is rotated"),
                format!("add {name} to the names"),
            );
        }
    }
    for name in &request.allow_grace {
        let has_one = |name| profile.secrets[name].previous.is_some();
        if !names.contains(name) || !has_one(name) {
            found.refuse(
                Code::Grace,
                format!(
                    "--allow-grace {name}: no secret with a grace window by that name is rotated"
                ),
                "name a secret that is rotated and has `previous` in the profile",
            );
        }
    }
    for name in &request.left_out {
        found.waive(format!("{name}: left out of the rotation of everything"));
    }
    for name in names {
        let spec = &profile.secrets[name];
        if let Some(value) = back.and_then(|b| b.values.get(name)) {
            values.insert(name.clone(), value.clone());
        } else if let Some(value) = request.values.get(name) {
            match vendor::form(spec.kind).map(|form| form.check(value)) {
                Some(Err(error)) => found.refuse(
                    Code::Value,
                    format!("{name}: {error}"),
                    "copy it from the provider again, whole and with nothing around it",
                ),
                _ => drop(values.insert(name.clone(), value.clone())),
            }
        } else if spec.make.is_some() && request.stand_ins {
            found.note(format!(
                "{name}: keyroll makes a token with the rights of the present one first, as a rotation of its own"
            ));
            let made_up = Format::default().generate();
            let made_up = made_up.map_err(|e| RotateError::Failed(e.to_string()))?;
            values.insert(name.clone(), made_up);
        } else if spec.kind.comes_from_outside() && request.stand_ins {
            found.note(format!(
                "{name} needs its new value from its provider, for which a rotation asks; its form and whether it is alive were not looked at"
            ));
            let made_up = Format::default().generate();
            let made_up = made_up.map_err(|e| RotateError::Failed(e.to_string()))?;
            values.insert(name.clone(), made_up);
        } else if spec.kind.comes_from_outside() {
            found.refuse(
                Code::Value,
                format!("{name} is made by its provider, and no new value was given"),
                format!("make one in the provider's dashboard, and give it with --value-file {name}=PATH"),
            );
        }
    }
    Ok(values)
}

/// What the settings hold, and will.
#[derive(Debug, Default)]
pub(super) struct InSettings {
    pub(super) pairs: BTreeMap<String, Pair>,
    pub(super) previous: Previous,
    pub(super) facts: BTreeMap<String, SettingFact>,
}

/// What decides what becomes of settings.
pub(super) struct Wish<'a> {
    pub(super) profile: &'a Profile,
    pub(super) request: &'a Request,
    pub(super) back: Option<&'a TakesBack>,
    /// Values to come, by name.
    pub(super) values: &'a BTreeMap<String, Secret>,
    /// Pairs that were found in the env file.
    pub(super) in_env: &'a BTreeMap<String, Pair>,
}

impl Wish<'_> {
    /// Looks at the values to come of secrets that stand in the env file and in no setting.
    pub(super) fn in_env_alone(&self, names: &[String], found: &mut Findings) {
        for name in names {
            let spec = &self.profile.secrets[name];
            let values = (self.in_env.get(name), self.values.get(name));
            if let (Some(env), Some(new)) = values
                && spec.setting.is_none()
                && spec.kind.comes_from_outside()
            {
                self.fits(name, spec, &env.old, new, found);
            }
        }
    }

    /// Reads the settings of these secrets.
    pub(super) async fn read(
        &self,
        names: &[String],
        session: &Session,
        found: &mut Findings,
    ) -> InSettings {
        let mut all = InSettings::default();
        let Some(table) = self.profile.settings.as_ref().map(settings::table) else {
            return all;
        };
        for name in names {
            let spec = &self.profile.secrets[name];
            let Some(setting) = &spec.setting else {
                continue;
            };
            let id_setting = spec.make.as_ref().map(|make| &make.id_setting);
            // A token has the one, a webhook secret the other.
            let keys = [Some(setting), spec.previous.as_ref().or(id_setting)];
            let keys: Vec<&str> = keys.into_iter().flatten().map(String::as_str).collect();
            let cells = match settings::read(session, &table, &keys).await {
                Ok(cells) => cells,
                Err(refusal) => {
                    found.refusals.push(refusal);
                    return all;
                }
            };
            let Some(Cell::Value(old)) = cells.first().filter(|c| !is_empty(c)) else {
                if self.request.leave_out_unused {
                    found.note(format!(
                        "{name} is left out: setting {setting} has no value"
                    ));
                    continue;
                }
                found.refuse(
                    Code::Settings,
                    format!("{name}: setting {setting} has no value"),
                    format!("correct secrets.{name}.setting in the profile, or enter the value in the application first"),
                );
                continue;
            };
            let Some(new) = self.values.get(name) else {
                continue;
            };
            self.fits(name, spec, old, new, found);
            let id = match (id_setting, cells.get(1)) {
                (Some(key), Some(Cell::Value(now))) => {
                    let now = now.expose().to_owned();
                    let wanted = match self.back {
                        Some(back) => back.ids.get(name),
                        None => self.request.token_ids.get(name),
                    };
                    Some(IdFact {
                        key: key.clone(),
                        new: wanted.unwrap_or(&now).clone(),
                        old: now,
                    })
                }
                (Some(key), _) => {
                    found.refuse(
                        Code::Settings,
                        format!("{name}: setting {key} has no value"),
                        "enter the token's full id in the application first",
                    );
                    continue;
                }
                (None, _) => None,
            };
            let before = cells.get(1).filter(|_| spec.previous.is_some());
            let previous = before.map(|before| {
                let after = self.previous_after(name, spec, old, before, found);
                all.previous
                    .insert(name.clone(), (before.clone(), after.clone()));
                PreviousFact {
                    key: spec.previous.clone().unwrap_or_default(),
                    before: settings::held(before),
                    after: settings::held(&after),
                    grace_hours: self.opens_a_window(name).then_some(spec.grace_hours),
                }
            });
            all.facts.insert(
                name.clone(),
                SettingFact {
                    key: setting.clone(),
                    previous,
                    id,
                },
            );
            all.pairs.insert(
                name.clone(),
                Pair {
                    old: old.clone(),
                    new: new.clone(),
                    written: None,
                },
            );
        }
        all
    }

    /// After an incident the old value is in other hands: what is signed with it is refused at once, unless it was asked otherwise.
    fn opens_a_window(&self, name: &str) -> bool {
        let wanted =
            self.request.reason != Reason::Incident || self.request.allow_grace.contains(name);
        self.back.is_none() && wanted
    }

    fn previous_after(
        &self,
        name: &str,
        spec: &SecretSpec,
        old: &Secret,
        before: &Cell,
        found: &mut Findings,
    ) -> Cell {
        if let Some(back) = self.back {
            return back.previous.get(name).cloned().unwrap_or(Cell::Missing);
        }
        let open = !is_empty(before);
        if open && !self.request.replace_grace && self.opens_a_window(name) {
            found.refuse(
                Code::Grace,
                format!(
                    "{name}: its grace window is open, {} still holds a previous value",
                    spec.previous.as_deref().unwrap_or_default()
                ),
                format!("end it with `keyroll finalize {name}`; or --replace-grace, which drops the value before the present one: events signed with it are refused then"),
            );
        } else if open {
            found.waive(format!(
                "{name}: the value before the present one was dropped out of its grace window"
            ));
        }
        if self.opens_a_window(name) {
            Cell::Value(old.clone())
        } else {
            emptied(before)
        }
    }

    fn fits(
        &self,
        name: &str,
        spec: &SecretSpec,
        old: &Secret,
        new: &Secret,
        found: &mut Findings,
    ) {
        if old.same_as(new) {
            found.refuse(
                Code::Value,
                format!("{name}: the value that was given is the one in force"),
                "make a new one in the provider's dashboard",
            );
        }
        let differs = self.in_env.get(name).filter(|env| !env.old.same_as(old));
        if differs.is_some() {
            found.refuse(
                Code::Settings,
                format!("{name}: {} in the env file and the application's setting hold different values", spec.key),
                "find out which one is in force, and make them the same",
            );
        }
        let mode = |value| vendor::form(spec.kind).and_then(|form| form.check(value).ok());
        if (mode(old), mode(new)) == (Some(Mode::Live), Some(Mode::Test)) {
            if self.request.allow_test_keys {
                found.waive(format!("{name}: a test key replaces a live one"));
            } else {
                found.refuse(
                    Code::Value,
                    format!("{name}: the new value is a test key, the one in force is live: no real payment would come in"),
                    "give the live key; or --allow-test-keys",
                );
            }
        }
    }
}

fn is_empty(cell: &Cell) -> bool {
    match cell {
        Cell::Missing | Cell::Null => true,
        Cell::Value(value) => value.is_empty(),
    }
}

/// A setting without a value, in the way in which this one has had none, if it had none; else there is no such row.
fn emptied(cell: &Cell) -> Cell {
    if is_empty(cell) {
        cell.clone()
    } else {
        Cell::Missing
    }
}

/// Asks the makers about the new values, one secret after the other; what was seen.
pub(super) async fn validate(
    about: &About,
    pairs: &BTreeMap<String, Pair>,
    request: &Request,
    found: &mut Findings,
) -> Vec<String> {
    let outside = |fact: &&SecretFact| fact.kind.comes_from_outside();
    let mut seen = vec![];
    let limit = Duration::from_secs(about.profile.limits.request_seconds);
    for fact in about.secrets.iter().filter(outside) {
        if request.skip_validation {
            found.waive(format!(
                "{}: its maker was not asked about the new value",
                fact.name
            ));
            continue;
        }
        let (Some(spec), Some(pair)) =
            (about.profile.secrets.get(&fact.name), pairs.get(&fact.name))
        else {
            continue;
        };
        if request.stand_ins && !request.values.contains_key(&fact.name) {
            continue;
        }
        let id = fact.setting.as_ref().and_then(|s| s.id.as_ref());
        let ids = vendor::Ids {
            old: id.map(|id| id.old.as_str()),
            new: id.map(|id| id.new.as_str()),
        };
        match vendor::validate(&fact.name, spec, ids, &pair.old, &pair.new, limit).await {
            Ok(Some(line)) => seen.push(line),
            Ok(None) => seen.push(format!(
                "{}: nobody can be asked whether the new value is right",
                fact.name
            )),
            Err(refusal) => found.refusals.push(refusal),
        }
    }
    seen
}
