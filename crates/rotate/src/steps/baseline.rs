//! Step: the old set, shown to be in force just before anything changes; and again, when the rotation went back.
//!
//! Going forward it shows that the tokens taken at preflight are accepted, so that their refusal afterwards means
//! something. Its undo is the last of all, and is the verification of the stack on the old set.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::panel::Finding;
use crate::steps::names;
use crate::world::{Set, WITNESS_REFRESH_NEXT, World};

#[derive(Debug)]
pub(crate) struct Baseline {
    pub(crate) world: Arc<World>,
}

impl Baseline {
    async fn accepted(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        let Some(witness) = self.world.witness(cx)? else {
            return Ok(Evidence::new("no session was taken at preflight"));
        };
        let panel = self.world.panel()?;
        panel.pages_open(&witness.access).await?;
        if let Some(refresh) = witness.refresh.as_ref().filter(|_| panel.has_refresh()) {
            // An application that replaces refresh tokens gives the next one: that is the witness then.
            if let Some(next) = panel.refresh(refresh).await? {
                let unknown = |e: String| Finding::Unknown(e);
                let sealed = self
                    .world
                    .identity
                    .seal_secret(&next)
                    .map_err(|e| unknown(e.to_string()))?;
                let kept = Kept {
                    name: WITNESS_REFRESH_NEXT.into(),
                    sealed,
                };
                cx.writer()
                    .keep(cx.rotation(), &[kept], jiff::Timestamp::now())
                    .map_err(|e| unknown(e.to_string()))?;
            }
        }
        Ok(Evidence::new(
            "the access and refresh tokens taken at preflight are accepted",
        ))
    }
}

impl Step for Baseline {
    fn name(&self) -> StepName {
        names::BASELINE.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async { Observed::After(Receipt::Null) })
    }

    fn act<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async { Ok(Receipt::Null) })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            // A stack that was forced although it is sick cannot show that its sessions work.
            if !self.world.about.accepted.is_empty() {
                return Ok(Evidence::new(
                    "not shown: the stack was not well before the rotation, and was forced",
                ));
            }
            Ok(self.accepted(cx).await?)
        })
    }
}

impl Compensate for Baseline {
    fn undo<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async move {
            if let Some(panel) = &self.world.panel {
                panel.goes_back();
            }
            match self.world.prove(Set::Old, None).await {
                Ok(seen) => Ok(Evidence::with(
                    format!("the old set is in force: {}", seen.join("; ")),
                    json!({"seen": seen}),
                )),
                Err(finding) if !self.world.about.accepted.is_empty() => {
                    Ok(Evidence::new(format!(
                        "the old set is back; the stack was not well before the rotation and is not now: {}",
                        self.world.clean(&finding.to_string())
                    )))
                }
                Err(finding) => Err(UndoError(self.world.clean(&finding.to_string()))),
            }
        })
    }
}
