//! Step: the consumers, recreated with the environment that the files now give them.
//!
//! Never restarted: a restart keeps the environment that the container was made with. Only services that use a rotated value
//! are made anew, with the images that ran; the database is left alone although its own environment goes stale.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::about::Fate;
use crate::panel::Finding;
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

    /// Services that compose would make anew and nobody expects: a file was edited since preflight.
    async fn surprises(&self) -> Result<Vec<String>, Finding> {
        let (hashes, containers) = tokio::join!(self.world.hashes(), self.world.containers());
        let (hashes, containers) = (hashes?, containers?);
        let untouched = self.world.about.services_with(Fate::Untouched);
        let changed = |service: &&String| {
            let running = containers.iter().find(|c| c.service == **service);
            running
                .zip(hashes.get(*service))
                .is_some_and(|(c, wanted)| !wanted.fits(&c.config_hash))
        };
        let stale = |service: &&String| !self.world.about.stale.contains(service);
        Ok(untouched
            .iter()
            .filter(changed)
            .filter(stale)
            .cloned()
            .collect())
    }

    async fn up(&self) -> Result<(), ActError> {
        let world = &self.world;
        world
            .recreate(&self.targets(), self.world.about.build)
            .await
            .map_err(|e| ActError::Indeterminate(world.clean(&e)))
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
        let targets = self.targets();
        self.world
            .pin_images(&targets)
            .await
            .map_err(Finding::Unknown)?;
        self.world
            .recreate(&targets, false)
            .await
            .map_err(Finding::Unknown)?;
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
                .surprises()
                .await
                .map_err(|e| not_applied(e.to_string()))?;
            if !surprises.is_empty() {
                return Err(not_applied(format!(
                    "compose would now also change {}: a file was edited since preflight",
                    surprises.join(", ")
                )));
            }
            let targets = self.targets();
            if !self.world.about.build
                && let Some((reference, _)) = self
                    .world
                    .moved_images(&targets)
                    .await
                    .map_err(not_applied)?
                    .first()
            {
                return Err(not_applied(format!(
                    "the image {reference} was moved to another one since preflight"
                )));
            }
            cx.fence()?;
            self.up().await?;
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
