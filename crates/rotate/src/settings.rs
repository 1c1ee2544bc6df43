//! Secrets that the application keeps in its settings table: what is in which row, before and after.
//!
//! A webhook secret takes two rows. The application accepts an event that is signed with either, so while the provider cuts over nothing is
//! refused: the row of the previous value gets the old one when the row of the current value gets the new one, in one transaction.
//! The window that this opens is closed by nobody but `keyroll finalize`.

use std::collections::BTreeMap;

use keyroll_journal::{Journal, RotationId, VersionState};
use keyroll_providers::postgres::{
    Cell, Named, PostgresError, Session, SettingChange, SettingsTable,
};
use keyroll_secret::Secret;

use crate::about::{About, Held, SecretFact};
use crate::database;
use crate::error::{Code, Refusal};
use crate::panel::Finding;
use crate::profile::SettingsSpec;
use crate::world::{Pair, Set, World};

/// Start of the sealed names of what the setting of a previous value holds.
const BEFORE: &str = "previous/before/";
const AFTER: &str = "previous/after/";

/// What the settings of previous values hold before and after a rotation, by the secret's name.
pub(crate) type Previous = BTreeMap<String, (Cell, Cell)>;

/// Where the application keeps its settings, as the profile says.
pub(crate) fn table(spec: &SettingsSpec) -> SettingsTable {
    SettingsTable {
        table: database::table("settings.table", &spec.table),
        key_column: Named::new("settings.key_column", &spec.key_column),
        value_column: Named::new("settings.value_column", &spec.value_column),
        scope: spec.scope.as_ref().map(|scope| {
            let column = Named::new("settings.scope.column", &scope.column);
            (column, scope.value.clone())
        }),
        updated: spec
            .updated_column
            .as_ref()
            .map(|column| Named::new("settings.updated_column", column)),
    }
}

/// What these settings hold, in the order of their names.
pub(crate) async fn read(
    session: &Session,
    table: &SettingsTable,
    keys: &[&str],
) -> Result<Vec<Cell>, Refusal> {
    session.read_settings(table, keys).await.map_err(|e| {
        let next = "mend it, or correct [settings] in the profile";
        Refusal::new(Code::Settings, e.to_string(), next)
    })
}

/// Which kind of thing a setting holds; no value.
pub(crate) fn held(cell: &Cell) -> Held {
    match cell {
        Cell::Missing => Held::Missing,
        Cell::Null => Held::Null,
        Cell::Value(_) => Held::Sealed,
    }
}

/// The values among these, under the names that they are sealed by.
pub(crate) fn to_seal(previous: &Previous) -> Vec<(String, Secret)> {
    let mut all = vec![];
    for (name, (before, after)) in previous {
        for (start, cell) in [(BEFORE, before), (AFTER, after)] {
            if let Cell::Value(value) = cell {
                all.push((format!("{start}{name}"), value.clone()));
            }
        }
    }
    all
}

/// Reads back what [`to_seal`] gave.
pub(crate) fn unseal(
    about: &About,
    kept: impl Fn(&str) -> Result<Option<Secret>, String>,
) -> Result<Previous, String> {
    let cell = |held: Held, name: String| match held {
        Held::Missing => Ok(Cell::Missing),
        Held::Null => Ok(Cell::Null),
        Held::Sealed => match kept(&name)? {
            Some(value) => Ok(Cell::Value(value)),
            None => Err(format!(
                "the sealed {name} is missing from the state database"
            )),
        },
    };
    let mut all = Previous::new();
    for fact in &about.secrets {
        if let Some(previous) = fact.setting.as_ref().and_then(|s| s.previous.as_ref()) {
            let before = cell(previous.before, format!("{BEFORE}{}", fact.name))?;
            let after = cell(previous.after, format!("{AFTER}{}", fact.name))?;
            all.insert(fact.name.clone(), (before, after));
        }
    }
    Ok(all)
}

/// Whether two settings hold the same.
pub(crate) fn same(one: &Cell, other: &Cell) -> bool {
    match (one, other) {
        (Cell::Value(one), Cell::Value(other)) => one.same_as(other),
        (Cell::Null, Cell::Null) | (Cell::Missing, Cell::Missing) => true,
        _ => false,
    }
}

/// What a row has to hold under each of the two sets.
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) old: Cell,
    pub(crate) new: Cell,
}

impl Row {
    pub(crate) fn under(&self, set: Set) -> &Cell {
        match set {
            Set::Old => &self.old,
            Set::New => &self.new,
        }
    }

    /// Whether this is neither the old nor the new.
    pub(crate) fn is_edited(&self, now: &Cell) -> bool {
        !same(&self.old, now) && !same(&self.new, now)
    }

    /// The change that leads to this set.
    pub(crate) fn towards(&self, set: Set) -> SettingChange {
        let (from, to) = match set {
            Set::Old => (&self.new, &self.old),
            Set::New => (&self.old, &self.new),
        };
        SettingChange {
            key: self.key.clone(),
            from: from.clone(),
            to: to.clone(),
        }
    }
}

/// The rows of these secrets.
pub(crate) fn rows(
    secrets: &[SecretFact],
    finalizes: bool,
    pairs: &BTreeMap<String, Pair>,
    previous: &Previous,
) -> Vec<Row> {
    let mut rows = vec![];
    for fact in secrets {
        let (Some(setting), Some(pair)) = (&fact.setting, pairs.get(&fact.name)) else {
            continue;
        };
        let value = |secret: &Secret| Cell::Value(secret.clone());
        rows.push(Row {
            key: setting.key.clone(),
            // The value in force stays in force while its window is ended.
            old: value(if finalizes { &pair.new } else { &pair.old }),
            new: value(&pair.new),
        });
        if let Some(id) = &setting.id {
            let text = |id: &String| Cell::Value(Secret::new(id));
            rows.push(Row {
                key: id.key.clone(),
                old: text(&id.old),
                new: text(&id.new),
            });
        }
        if let (Some(own), Some((before, after))) = (&setting.previous, previous.get(&fact.name)) {
            rows.push(Row {
                key: own.key.clone(),
                old: before.clone(),
                new: after.clone(),
            });
        }
    }
    rows
}

impl World {
    /// Every row of the settings that the rotation is about.
    pub(crate) fn settings_rows(&self) -> Vec<Row> {
        let about = &self.about;
        rows(&about.secrets, about.finalizes, &self.pairs, &self.previous)
    }

    /// Where they are. The steps about settings are planned only where the profile says it.
    pub(crate) fn settings_table(&self) -> SettingsTable {
        let spec = self.about.profile.settings.as_ref();
        table(spec.expect("a secret in a setting needs [settings]"))
    }

    /// Each row, and what it holds now.
    pub(crate) async fn read_settings(
        &self,
        rotation: &RotationId,
    ) -> Result<Vec<(Row, Cell)>, String> {
        let rows = self.settings_rows();
        let session = self.database_session(rotation).await?;
        let read = cells(&session, &self.settings_table(), &rows).await;
        let read = read.map_err(|e| self.clean(&e.to_string()))?;
        self.sessions.put(session);
        Ok(rows.into_iter().zip(read).collect())
    }

    /// Whether each setting holds what keyroll put there last, by its fingerprint: what was seen, and what is otherwise.
    pub(crate) async fn settings_as_left(
        &self,
        journal: &Journal,
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let mut left = vec![];
        for (name, spec) in &self.about.profile.secrets {
            let versions = journal.versions_of(name).map_err(|e| e.to_string())?;
            let current = versions
                .into_iter()
                .find(|v| v.state == VersionState::Current);
            if let (Some(setting), Some(current)) = (&spec.setting, current) {
                left.push((name, setting.as_str(), current.fingerprint));
            }
        }
        if left.is_empty() {
            return Ok((vec![], vec![]));
        }
        let keys: Vec<&str> = left.iter().map(|(_, setting, _)| *setting).collect();
        let session = self.database_session(&self.rotation).await?;
        let cells = read(&session, &self.settings_table(), &keys).await;
        let cells = cells.map_err(|refusal| refusal.what)?;
        session.close().await;
        let key = self.identity.fingerprint_key();
        let mut found = vec![];
        for ((name, setting, fingerprint), cell) in left.iter().zip(&cells) {
            match cell {
                Cell::Value(value) if key.fingerprint(value).to_string() == *fingerprint => {}
                Cell::Value(_) => found.push(format!(
                    "{name}: setting {setting} holds another value than keyroll put there; somebody has changed it"
                )),
                Cell::Null | Cell::Missing => {
                    found.push(format!("{name}: setting {setting} has no value any more"));
                }
            }
        }
        let right = left.len() - found.len();
        let seen =
            (right > 0).then(|| format!("settings that hold what keyroll put there: {right}"));
        Ok((seen.into_iter().collect(), found))
    }

    /// The settings hold this set, by the database's view, and the application accepts what it should, by its own.
    pub(crate) async fn prove_settings(
        &self,
        set: Set,
        edits: Edits,
    ) -> Result<Vec<String>, Finding> {
        if self.settings_rows().is_empty() {
            return Ok(vec![]);
        }
        let edited = self.settings_hold(set, edits).await?;
        let mut seen = vec!["the settings hold what they should".to_owned()];
        if !edited.is_empty() {
            let others = edited.join(", ");
            seen.push(format!("but {others}, which somebody else has changed"));
        }
        seen.extend(self.prove_webhooks(set, &edited).await?);
        Ok(seen)
    }

    /// The first half of it; the settings that somebody has changed.
    pub(crate) async fn settings_hold(
        &self,
        set: Set,
        edits: Edits,
    ) -> Result<Vec<String>, Finding> {
        let read = self.read_settings(&self.rotation).await;
        let mut edited = vec![];
        for (row, now) in read.map_err(Finding::Unknown)? {
            let left = edits == Edits::Left && row.is_edited(&now);
            if left {
                edited.push(row.key);
            } else if !same(row.under(set), &now) {
                return Err(Finding::Wrong(format!(
                    "setting {} does not hold what it should",
                    row.key
                )));
            }
        }
        Ok(edited)
    }
}

/// What somebody else's change of a setting means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edits {
    /// The set is not in force.
    Wrong,
    /// It is theirs, and stays: on the way back keyroll answers for its own changes.
    Left,
}

async fn cells(
    session: &Session,
    table: &SettingsTable,
    rows: &[Row],
) -> Result<Vec<Cell>, PostgresError> {
    let keys: Vec<&str> = rows.iter().map(|r| r.key.as_str()).collect();
    session.read_settings(table, &keys).await
}
