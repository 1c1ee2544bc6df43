//! Step: the rows of the application's settings, all in one transaction, each compared with what it held at preflight.
//!
//! The application reads them at its next event, so this is the instant from which a new webhook secret is accepted, and the old one as the
//! previous. A row that somebody has changed since is never overwritten, on the way there or back.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_providers::postgres::{Cell, SettingChange, SettingsSet};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::settings::{Edits, Row, same};
use crate::steps::names;
use crate::world::{Set, World};

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) world: Arc<World>,
}

/// Why the rows are not what they should be.
enum NotSet {
    /// Nothing was changed.
    Not(String),
    /// It may have been.
    Perhaps(String),
}

fn keys(rows: &[Row]) -> String {
    let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    keys.join(", ")
}

impl Settings {
    fn receipt(&self) -> Receipt {
        json!({"settings": keys(&self.world.settings_rows())})
    }

    async fn lead_to(&self, cx: &StepCx, set: Set, rows: &[Row]) -> Result<(), NotSet> {
        let world = &self.world;
        let not = |e: String| NotSet::Not(world.clean(&e));
        let changes: Vec<SettingChange> = rows.iter().map(|row| row.towards(set)).collect();
        let mut session = world.database_session(cx.rotation()).await.map_err(not)?;
        cx.fence().map_err(|e| not(e.to_string()))?;
        let table = world.settings_table();
        match session.change_settings(&table, &changes).await {
            Ok(SettingsSet::Done) => {
                world.sessions.put(session);
                Ok(())
            }
            Ok(SettingsSet::Drifted(keys)) => Err(not(format!(
                "somebody has changed {} in the application's settings since preflight; their value stays, and nothing was changed",
                keys.join(", ")
            ))),
            Err(e) if e.is_indeterminate() => Err(NotSet::Perhaps(world.clean(&e.to_string()))),
            Err(e) => Err(not(e.to_string())),
        }
    }
}

impl Step for Settings {
    fn name(&self) -> StepName {
        names::SETTINGS.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            let read = match self.world.read_settings(cx.rotation()).await {
                Ok(read) => read,
                Err(why) => return Observed::Unknown(why),
            };
            let all = |set| read.iter().all(|(row, now)| same(row.under(set), now));
            if all(Set::New) {
                Observed::After(self.receipt())
            } else if all(Set::Old) {
                Observed::Before
            } else {
                // Somebody's edit: the act compares, and says so.
                Observed::Overlap
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            cx.fence()?;
            match self
                .lead_to(cx, Set::New, &self.world.settings_rows())
                .await
            {
                Ok(()) => Ok(self.receipt()),
                Err(NotSet::Not(why)) => Err(ActError::NotApplied(why)),
                Err(NotSet::Perhaps(why)) => Err(ActError::Indeterminate(why)),
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            self.world.settings_hold(Set::New, Edits::Wrong).await?;
            let says = format!(
                "{} hold what they should",
                keys(&self.world.settings_rows())
            );
            Ok(Evidence::with(says, receipt.clone()))
        })
    }
}

impl Compensate for Settings {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            let read = self.world.read_settings(cx.rotation()).await;
            let read = read.map_err(UndoError)?.into_iter();
            // What somebody has changed is theirs. Whether it is changed after this look, the transaction sees.
            let (edited, own): (Vec<_>, Vec<_>) = read.partition(|(row, now)| row.is_edited(now));
            let rows = |all: Vec<(Row, Cell)>| all.into_iter().map(|(row, _)| row).collect();
            let (edited, own): (Vec<Row>, Vec<Row>) = (rows(edited), rows(own));
            match self.lead_to(cx, Set::Old, &own).await {
                Ok(()) => {
                    let mut says = format!("{} hold what they held before", keys(&own));
                    if !edited.is_empty() {
                        says = format!(
                            "{says}; somebody else has changed {}, which stay as they are",
                            keys(&edited)
                        );
                    }
                    Ok(Evidence::new(says))
                }
                Err(NotSet::Not(why) | NotSet::Perhaps(why)) => Err(UndoError(why)),
            }
        })
    }
}
