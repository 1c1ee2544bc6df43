//! Step: the consumers, recreated with the environment that the files now give them.
//!
//! Never restarted: a restart keeps the environment that the container was made with. Only services that use a rotated value
//! are made anew, with the images that ran; the database is left alone although its own environment goes stale.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_runtimes::compose::{self, MovedImage};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::about::Fate;
use crate::panel::Finding;
use crate::preflight;
use crate::steps::names;
use crate::world::{Set, World};

#[derive(Debug)]
pub(crate) struct Recreate {
    pub(crate) world: Arc<World>,
}

impl Recreate {
    fn targets(&self) -> Vec<String> {
        self.world.about.services_with(Fate::Recreated)
    }

    async fn healthy(&self) -> Result<(), Finding> {
        let limit = Duration::from_secs(self.world.about.profile.limits.healthy_seconds);
        // One that was not well before, and was rotated all the same, is not waited for.
        let sick = |s: &String| {
            self.world
                .about
                .services
                .get(s)
                .is_some_and(|f| f.sick.is_some())
        };
        let targets: Vec<String> = self.targets().into_iter().filter(|s| !sick(s)).collect();
        self.world.wait_healthy(&targets, limit).await
    }

    async fn back(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        // Containers that already run the old values are left alone: so a stack whose recreation never began goes back even
        // if its compose file is the reason.
        if self.world.prove_containers(Set::Old).await.is_ok() && self.healthy().await.is_ok() {
            return Ok(Evidence::new("the containers run the old values"));
        }
        cx.fence().map_err(|e| Finding::Unknown(e.to_string()))?;
        self.world
            .recreate(&self.targets(), false, MovedImage::PointBack)
            .await
            .map_err(|e| Finding::Unknown(e.to_string()))?;
        self.healthy().await?;
        self.world.prove_containers(Set::Old).await?;
        Ok(Evidence::new(format!(
            "{} recreated with the old values, healthy",
            self.targets().join(", ")
        )))
    }
}

impl Step for Recreate {
    fn name(&self) -> StepName {
        names::RECREATE.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match (
                self.world.prove_containers(Set::New).await,
                self.world.prove_containers(Set::Old).await,
            ) {
                (Ok(_), _) => Observed::After(json!({"services": self.targets()})),
                (_, Ok(_)) => Observed::Before,
                (Err(Finding::Unknown(why)), _) => Observed::Unknown(self.world.clean(&why)),
                // Some are new and some are old, or one is between two containers: making the rest anew is the same act.
                _ => Observed::Overlap,
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            let not_applied = |e: String| ActError::NotApplied(self.world.clean(&e));
            let surprises = self
                .world
                .surprises()
                .await
                .map_err(|e| not_applied(e.to_string()))?;
            if !surprises.is_empty() {
                return Err(not_applied(format!(
                    "compose would now also change {}: a file was edited since preflight",
                    surprises.join(", ")
                )));
            }
            // The services that are recreated change by the rotation itself, so their hashes cannot show that somebody else
            // changed them too; the files can.
            let about = &self.world.about;
            let files =
                preflight::fingerprints_of(&about.project.config_files, &self.world.identity);
            if files.map_err(|e| not_applied(e.to_string()))? != about.config_fingerprints {
                return Err(not_applied("a compose file was edited since preflight: recreating would deploy the edit by surprise".into()));
            }
            cx.fence()?;
            let made = self
                .world
                .recreate(&self.targets(), self.world.about.build, MovedImage::Refuse)
                .await;
            made.map_err(|e| match e {
                compose::ActError::NotApplied(why) => not_applied(why),
                other => ActError::Indeterminate(self.world.clean(&other.to_string())),
            })?;
            Ok(json!({"services": self.targets()}))
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            self.healthy().await?;
            let seen = self.world.prove_containers(Set::New).await?;
            self.world.prove_environments().await?;
            Ok(Evidence::with(
                format!(
                    "{} recreated and healthy; {}",
                    self.targets().join(", "),
                    seen.join("; ")
                ),
                receipt.clone(),
            ))
        })
    }
}

impl Compensate for Recreate {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            self.back(cx)
                .await
                .map_err(|e| UndoError(self.world.clean(&e.to_string())))
        })
    }
}
