//! Step: the new set in force, the old one dead, as a consumer sees it. The last before the point of no return.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::panel::Finding;
use crate::profile::SecretKind;
use crate::steps::{database_sessions, names};
use crate::world::{Set, World};

#[derive(Debug)]
pub(crate) struct Verify {
    pub(crate) world: Arc<World>,
}

impl Verify {
    async fn look(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        let witness = self.world.witness(cx)?;
        let (seen, sessions) = tokio::join!(
            self.world.prove(Set::New, witness.as_ref()),
            self.old_sessions(cx)
        );
        let mut seen = seen?;
        seen.extend(sessions?);
        self.world.recreated_stayed_well().await?;
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

impl Verify {
    /// A client that was logging in while the password changed stood in no list then, and may have come in since.
    async fn old_sessions(&self, cx: &StepCx) -> Result<Option<String>, Finding> {
        if !self.world.about.rotates(SecretKind::PostgresPassword) {
            return Ok(None);
        }
        let unknown = |e: String| Finding::Unknown(self.world.clean(&e));
        let (clients, _) = database_sessions::left(&self.world, cx)
            .await
            .map_err(unknown)?;
        match clients.first() {
            None => Ok(Some(
                "no database session from before the change is left".to_owned(),
            )),
            Some(one) => Err(Finding::Alive(format!(
                "a database session that was opened with the old password remains: {:?} (process {})",
                one.application, one.pid
            ))),
        }
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
