//! After the point of no return of a finalize: tokens that have been in a grace window are deleted. From here on they are of no use to anybody.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};
use serde_json::json;

use crate::steps::names;
use crate::steps::token::Managed;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct OldToken {
    pub(crate) world: Arc<World>,
}

impl OldToken {
    /// The tokens, each with the API that knows it.
    fn all(&self) -> Result<Vec<(Managed, &str)>, String> {
        let about = &self.world.about;
        let limit = Duration::from_secs(about.profile.limits.request_seconds);
        let mut all = vec![];
        for fact in &about.secrets {
            if let (Some(id), Some(spec)) = (&fact.retires, about.profile.secrets.get(&fact.name)) {
                all.push((Managed::of(&fact.name, spec, limit)?, id.as_str()));
            }
        }
        Ok(all)
    }

    async fn left(&self) -> Result<Vec<&str>, String> {
        let mut left = vec![];
        for (managed, id) in self.all()? {
            if managed.find(id).await.map_err(|e| e.to_string())?.is_some() {
                left.push(id);
            }
        }
        Ok(left)
    }
}

impl Step for OldToken {
    fn name(&self) -> StepName {
        names::OLD_TOKEN.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match self.left().await {
                Ok(left) if left.is_empty() => Observed::After(Receipt::Null),
                Ok(_) => Observed::Before,
                Err(why) => Observed::Unknown(self.world.clean(&why)),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            let not = |e: String| ActError::NotApplied(self.world.clean(&e));
            cx.fence()?;
            let mut deleted = vec![];
            for (managed, id) in self.all().map_err(not)? {
                managed.delete(id).await.map_err(|e| not(e.to_string()))?;
                deleted.push(id);
            }
            Ok(json!({"deleted": deleted}))
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            let left = self.left().await;
            let left = left.map_err(|e| ConfirmError::Unknown(self.world.clean(&e)))?;
            if left.is_empty() {
                Ok(Evidence::with(
                    "the old tokens are deleted",
                    receipt.clone(),
                ))
            } else {
                Err(ConfirmError::Refuted(format!(
                    "{} is still there",
                    left.join(", ")
                )))
            }
        })
    }
}
