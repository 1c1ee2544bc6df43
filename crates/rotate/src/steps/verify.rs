//! Step: the new set in force, the old one dead, as a consumer sees it. The last before the point of no return.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::panel::Finding;
use crate::steps::names;
use crate::world::{Set, World};

#[derive(Debug)]
pub(crate) struct Verify {
    pub(crate) world: Arc<World>,
}

impl Verify {
    async fn look(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        let witness = self.world.witness(cx)?;
        let mut seen = self.world.prove(Set::New, witness.as_ref()).await?;
        let errors = self.world.error_lines(cx).await;
        if !errors.is_empty() {
            seen.push(format!(
                "{} error lines in the containers' logs since they were recreated",
                errors.len()
            ));
        }
        Ok(Evidence::with(
            seen.join("; "),
            json!({"seen": seen, "error_lines": errors}),
        ))
    }
}

impl Step for Verify {
    fn name(&self) -> StepName {
        names::VERIFY.into()
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
        Box::pin(async move { Ok(self.look(cx).await?) })
    }
}

impl Compensate for Verify {
    fn undo<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async { Ok(Evidence::new("looking changed nothing")) })
    }
}
