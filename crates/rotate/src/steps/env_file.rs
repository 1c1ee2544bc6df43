//! Step: the env file. One rename, synced; undo puts the old bytes back as long as the file is what keyroll wrote.

use std::sync::Arc;

use keyroll_envfile::{EnvFile, Reverted, Staged};
use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::Secret;
use serde_json::json;

use crate::steps::{env_candidate, names};
use crate::world::{ENV_AFTER, ENV_BEFORE, World};

#[derive(Debug)]
pub(crate) struct EnvFileStep {
    pub(crate) world: Arc<World>,
}

impl EnvFileStep {
    async fn rename(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let not_applied = |e: String| ActError::NotApplied(self.world.clean(&e));
        let fact = &self.world.about.env_file;
        let receipt = json!({"path": fact.path, "keys": self.world.env_keys().collect::<Vec<_>>()});
        // An act may come twice: the second finds its work done, and no edit of somebody else's.
        let now = self.world.env_bytes();
        if now.is_ok_and(|now| self.world.env_fingerprint(&now) == fact.after) {
            return Ok(receipt);
        }
        let staged = match self.world.take_staged() {
            Some(staged) => staged,
            // Another process staged it, and was killed.
            None => Box::pin(env_candidate::stage(&self.world, cx))
                .await
                .map_err(not_applied)?,
        };
        cx.fence()?;
        // Refused when somebody touched the file since it was staged.
        staged.commit().map_err(|e| {
            if e.may_have_landed() {
                ActError::Indeterminate(e.to_string())
            } else {
                ActError::NotApplied(e.to_string())
            }
        })?;
        Ok(receipt)
    }

    fn put_back(&self, cx: &StepCx) -> Result<Evidence, String> {
        let fact = &self.world.about.env_file;
        let path = fact.path.display();
        cx.fence().map_err(|e| e.to_string())?;
        drop(self.world.take_staged());
        keyroll_envfile::remove_leftovers(&fact.path).map_err(|e| e.to_string())?;
        let before = self.world.env_kept(cx, ENV_BEFORE)?;
        // Without it nothing of the stack starts again, on either set.
        if !fact.path.exists() {
            keyroll_envfile::make_again(&fact.path, before.expose().as_bytes(), fact.owner)
                .map_err(|e| e.to_string())?;
            return Ok(Evidence::new(format!(
                "{path} was deleted by somebody meanwhile: it is back byte for byte, with its owner and mode"
            )));
        }
        let now = self.world.env_bytes()?;
        let fingerprint = self.world.env_fingerprint(&now);
        if fingerprint == fact.before {
            return Ok(Evidence::new(format!("{path} is byte for byte as before")));
        }
        cx.fence().map_err(|e| e.to_string())?;
        if fingerprint == fact.after {
            self.replace(&now, before.expose().as_bytes())?;
            return Ok(Evidence::new(format!(
                "{path} is byte for byte as before, with its owner and mode"
            )));
        }
        // Somebody edited it after keyroll did: their edit stays, and keyroll's keys alone go back.
        let parse =
            |text: &Secret| EnvFile::parse(text.expose().as_bytes()).map_err(|e| e.to_string());
        let written = self.world.env_kept(cx, ENV_AFTER)?;
        let (mut edited, old, written) = (parse(&now)?, parse(&before)?, parse(&written)?);
        let keys: Vec<&str> = self.world.env_keys().collect();
        let reverted = edited.revert(&old, &written, &keys);
        let left: Vec<&str> = reverted
            .iter()
            .filter(|(_, r)| !matches!(r, Reverted::Restored | Reverted::AlreadyOld))
            .map(|(key, _)| key.as_str())
            .collect();
        self.replace(&now, edited.as_bytes())?;
        let left = if left.is_empty() {
            String::new()
        } else {
            format!("; left as they were edited: {}", left.join(", "))
        };
        Ok(Evidence::new(format!(
            "{path} was edited by somebody else meanwhile: their edit stays, keyroll's keys went back{left}"
        )))
    }

    fn replace(&self, now: &Secret, with: &[u8]) -> Result<(), String> {
        let staged = Staged::write(
            &self.world.about.env_file.path,
            now.expose().as_bytes(),
            with,
        )
        .map_err(|e| e.to_string())?;
        staged.commit().map_err(|e| e.to_string())
    }
}

impl Step for EnvFileStep {
    fn name(&self) -> StepName {
        names::ENV_FILE.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            let fact = &self.world.about.env_file;
            match self
                .world
                .env_bytes()
                .map(|bytes| self.world.env_fingerprint(&bytes))
            {
                Ok(now) if now == fact.before => Observed::Before,
                Ok(now) if now == fact.after => Observed::After(json!({"path": fact.path})),
                Ok(_) => Observed::Drifted(Evidence::new(format!(
                    "{} is neither the old nor the new file",
                    fact.path.display()
                ))),
                Err(why) => Observed::Unknown(why),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.rename(cx))
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            let fact = &self.world.about.env_file;
            let now = self.world.env_bytes().map_err(ConfirmError::Unknown)?;
            if self.world.env_fingerprint(&now) != fact.after {
                return Err(ConfirmError::Refuted(format!(
                    "{} is not what was written",
                    fact.path.display()
                )));
            }
            let owner = crate::world::owner(&fact.path).map_err(ConfirmError::Unknown)?;
            if owner != fact.owner {
                return Err(ConfirmError::Refuted(format!(
                    "{} has another owner or mode than before",
                    fact.path.display()
                )));
            }
            Ok(Evidence::with(
                format!(
                    "{} holds the new values; every other byte, owner and mode are as before",
                    fact.path.display()
                ),
                receipt.clone(),
            ))
        })
    }
}

impl Compensate for EnvFileStep {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            self.put_back(cx)
                .map_err(|e| UndoError(self.world.clean(&e)))
        })
    }
}
