//! Step: the consumers, recreated with the environment that the files now give them.
//!
//! Never restarted: a restart keeps the environment that the container was made with. Only services that use a rotated value
//! are made anew, with the images that ran; the database is left alone although its own environment goes stale.

use std::fmt::Write as _;
use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_runtimes::compose::{self, MovedImage, PointedBack};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::about::Fate;
use crate::panel::Finding;
use crate::preflight;
use crate::recovery;
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

    async fn back(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        let world = &self.world;
        let unknown = |e: compose::ActError| Finding::Unknown(e.to_string());
        cx.fence().map_err(|e| Finding::Unknown(e.to_string()))?;
        // Without it no consumer becomes well.
        let there = recovery::start_database(world).await;
        there.map_err(Finding::Unknown)?;
        // Containers that already run the old values are left alone: so a stack whose recreation never began goes back even
        // if its compose file is the reason.
        if world.prove_containers(Set::Old).await.is_ok()
            && world.containers_can_tell().await?
            && self.world.recreated_are_well().await.is_ok()
        {
            let moved = if world.about.build {
                world.point_back(&self.targets()).await.map_err(unknown)?
            } else {
                vec![]
            };
            return Ok(Evidence::new(format!(
                "the containers run the old values{}",
                told(&moved)
            )));
        }
        let targets = self.targets();
        let resolved = world.resolved().await?;
        let moved = world.recreate(&targets, false, MovedImage::PointBack, &resolved);
        let moved = moved.await.map_err(unknown)?;
        self.world.recreated_are_well().await?;
        self.proven(Set::Old).await?;
        // Recreating has deployed what the files say now; who edited them meanwhile shall know.
        let edited = world.edited_in(&resolved);
        let edited = if edited.is_empty() {
            String::new()
        } else {
            let names: Vec<String> = edited.into_iter().collect();
            format!(
                "; the configuration of {} was edited since preflight",
                names.join(", ")
            )
        };
        Ok(Evidence::new(format!(
            "{} recreated with the old values, healthy{}{edited}",
            self.targets().join(", "),
            told(&moved)
        )))
    }

    /// The containers hold this set, and have the whole environment that their files give them.
    async fn proven(&self, set: Set) -> Result<Vec<String>, Finding> {
        let containers = self.world.containers().await?;
        let seen = self.world.containers_hold(set, &containers)?;
        self.world.prove_environments(&containers).await?;
        Ok(seen)
    }
}

/// Image references that were moved, for whoever moved them in the meantime.
fn told(moved: &[PointedBack]) -> String {
    let mut text = String::new();
    for PointedBack {
        reference,
        from,
        to,
    } in moved
    {
        let from = from.as_deref().unwrap_or("no image");
        let _ = write!(text, "; {reference} names {to} again, it named {from}");
    }
    text
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
            // Asked for once: from the new password on, whoever opens a connection with the old one is refused.
            let resolved = self.world.resolved().await;
            let resolved = resolved.map_err(|e| not_applied(e.to_string()))?;
            let edited = self.world.edited_in(&resolved);
            if !edited.is_empty() {
                let names: Vec<String> = edited.into_iter().collect();
                return Err(not_applied(format!(
                    "the configuration of {} was edited since preflight: recreating would deploy the edit by surprise",
                    names.join(", ")
                )));
            }
            // What is outside of the services, such as a volume's definition.
            let about = &self.world.about;
            let files =
                preflight::fingerprints_of(&about.project.config_files, &self.world.identity);
            if files.map_err(|e| not_applied(e.to_string()))? != about.config_fingerprints {
                return Err(not_applied("a compose file was edited since preflight: recreating would deploy the edit by surprise".into()));
            }
            cx.fence()?;
            let made = self
                .world
                .recreate(
                    &self.targets(),
                    self.world.about.build,
                    MovedImage::Refuse,
                    &resolved,
                )
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
            self.world.recreated_are_well().await?;
            let seen = self.proven(Set::New).await?;
            self.world.becomes_reachable().await?;
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
