//! Step: the new env file, written beside the old one and read by compose itself, before anything is renamed.
//!
//! keyroll's own parser decides what to edit; compose decides what is in force. So compose reads both files, and exactly the
//! intended keys may differ. The candidate holds the new values in plain, like the env file it will become, with the same
//! owner and mode; it is removed when the rotation goes back, and after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyroll_envfile::Staged;
use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::steps::names;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct EnvCandidate {
    pub(crate) world: Arc<World>,
}

/// Writes the candidate and has compose judge it.
pub(crate) async fn stage(world: &World, cx: &StepCx) -> Result<Staged, String> {
    let fact = &world.about.env_file;
    let now = world.env_bytes()?;
    if world.env_fingerprint(&now) != fact.before {
        return Err(format!(
            "{}: somebody edited it since preflight",
            fact.path.display()
        ));
    }
    let after = world.env_kept(cx, crate::world::ENV_AFTER)?;
    let staged = Staged::write(
        &fact.path,
        now.expose().as_bytes(),
        after.expose().as_bytes(),
    )
    .map_err(|e| e.to_string())?;
    let candidate = staged.path();
    let (old, new) = tokio::join!(
        world.cli.read_env(&fact.path),
        world.cli.read_env(&candidate)
    );
    let (old, new) = (
        old.map_err(|e| e.to_string())?,
        new.map_err(|e| e.to_string())?,
    );
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ: BTreeSet<&str> = keys
        .into_iter()
        .filter(|key| match (old.get(*key), new.get(*key)) {
            (Some(a), Some(b)) => !a.same_as(b),
            _ => true,
        })
        .map(String::as_str)
        .collect();
    let meant: BTreeSet<&str> = world.env_keys().collect();
    if differ != meant {
        return Err(format!(
            "{}: compose reads other changes from the new file than are meant: {differ:?} instead of {meant:?}",
            fact.path.display()
        ));
    }
    for secret in world.about.secrets.iter().filter(|s| s.env_key().is_some()) {
        let right = &world.pairs[&secret.name].new;
        if new.get(&secret.key).is_none_or(|v| !v.same_as(right)) {
            return Err(format!(
                "{}: compose reads another value for {} than the new one",
                fact.path.display(),
                secret.key
            ));
        }
    }
    Ok(staged)
}

impl Step for EnvCandidate {
    fn name(&self) -> StepName {
        names::ENV_CANDIDATE.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async { Observed::Overlap })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            cx.fence()?;
            let staged = Box::pin(stage(&self.world, cx))
                .await
                .map_err(|e| ActError::NotApplied(self.world.clean(&e)))?;
            let receipt = json!({"keys": self.world.env_keys().collect::<Vec<_>>()});
            self.world.hold_staged(staged);
            Ok(receipt)
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            Ok(Evidence::with(
                "compose reads the new file; exactly the intended keys differ",
                receipt.clone(),
            ))
        })
    }
}

impl Compensate for EnvCandidate {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            cx.fence().map_err(|e| UndoError(e.to_string()))?;
            drop(self.world.take_staged());
            keyroll_envfile::remove_leftovers(&self.world.about.env_file.path)
                .map_err(|e| UndoError(e.to_string()))?;
            Ok(Evidence::new("no candidate is left"))
        })
    }
}
