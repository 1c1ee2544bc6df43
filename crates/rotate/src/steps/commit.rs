//! The point of no return: the pending versions become current, and what they replace is retired.
//!
//! Until here a failed step takes everything back. From here the new set is the truth, and what is left to do is telling.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyroll_journal::{
    Evidence, Forward, Intended, JournalError, Receipt, Stale, StepName, VersionState,
};
use keyroll_runtimes::compose::StaleByChoice;
use keyroll_saga::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};

use crate::steps::names;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) world: Arc<World>,
}

impl Commit {
    /// Versions that are not what they will be.
    fn pending(&self, cx: &StepCx) -> Result<usize, String> {
        let about = &self.world.about;
        if about.finalizes {
            let mut open = 0;
            for fact in &about.secrets {
                let versions = cx
                    .writer()
                    .versions_of(&fact.name)
                    .map_err(|e| e.to_string())?;
                let previous = versions
                    .iter()
                    .filter(|v| v.state == VersionState::Previous);
                open += previous.count();
            }
            return Ok(open);
        }
        let versions = cx
            .writer()
            .versions_of_rotation(cx.rotation())
            .map_err(|e| e.to_string())?;
        Ok(versions
            .iter()
            .filter(|v| v.state == VersionState::Pending)
            .count())
    }

    /// Containers left alone although compose would now make them anew: remembered, so that they are no drift tomorrow.
    async fn stale(&self) -> Result<BTreeMap<String, Option<Stale>>, String> {
        let stale = self
            .world
            .stale_by_choice()
            .await
            .map_err(|e| e.to_string())?;
        let remembered = |s: StaleByChoice| Stale {
            service: s.service,
            container: s.container_id,
            desired: s.desired_hash,
        };
        Ok(stale
            .into_iter()
            .map(|(service, s)| (service, s.map(remembered)))
            .collect())
    }
}

impl Step for Commit {
    fn name(&self) -> StepName {
        names::COMMIT.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match self.pending(cx) {
                Ok(0) => Observed::After(Receipt::Null),
                Ok(_) => Observed::Before,
                Err(why) => Observed::Unknown(why),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            // Nothing is asked of the database any more.
            self.world.sessions.close().await;
            let stale = if self.world.about.finalizes {
                BTreeMap::new()
            } else {
                let stale = self.stale().await;
                stale.map_err(|e| ActError::NotApplied(self.world.clean(&e)))?
            };
            // A commit that reports an error may be on the disk all the same.
            let now = cx.now();
            let about = &self.world.about;
            let committed = if about.finalizes {
                let names: Vec<String> = about.secrets.iter().map(|s| s.name.clone()).collect();
                cx.writer().retire_previous(&names, now)
            } else {
                cx.writer()
                    .promote(cx.rotation(), &about.graced(), &stale, now)
            };
            match committed {
                Ok(()) => Ok(Receipt::Null),
                Err(JournalError::Fenced { newer, .. }) => Err(ActError::Fenced { newer }),
                Err(error) => Err(ActError::Indeterminate(error.to_string())),
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            match self.pending(cx) {
                Ok(0) if self.world.about.makes.is_some() => {
                    Ok(Evidence::new("the token is made, and its value sealed"))
                }
                Ok(0) if self.world.about.finalizes => Ok(Evidence::new(
                    "the grace windows are over, the previous versions retired",
                )),
                Ok(0) => {
                    let graced = self.world.about.graced();
                    let mut says = "the new versions are current, the old ones retired".to_owned();
                    if !graced.is_empty() {
                        says = format!("{says}, but those of {} previous", graced.join(", "));
                    }
                    Ok(Evidence::new(says))
                }
                Ok(n) => Err(ConfirmError::Refuted(format!(
                    "{n} versions are not yet what they will be"
                ))),
                Err(why) => Err(ConfirmError::Unknown(why)),
            }
        })
    }
}
