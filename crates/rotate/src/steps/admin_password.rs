//! Step: the admin's password, put into the database by the application's own seed command.
//!
//! Many seeds are upserts with `update: {}`: they exit with 0 and change nothing for an account that exists. So the stored
//! hash is compared before and after; it is sealed first, and undo puts it back if it is still the one the seed wrote.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_providers::is_hash_of;
use keyroll_providers::postgres::{Cas, Cell, CellAt};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::Secret;
use serde_json::json;

use crate::database;
use crate::panel::Finding;
use crate::profile::{AdminSpec, SecretKind};
use crate::steps::{hashes, names};
use crate::world::{NotDone, World};

#[derive(Debug)]
pub(crate) struct AdminPassword {
    pub(crate) world: Arc<World>,
}

impl AdminPassword {
    fn spec(&self) -> &AdminSpec {
        self.world
            .about
            .profile
            .admin
            .as_ref()
            .expect("the step is planned only with an admin")
    }

    fn email(&self) -> &str {
        self.world.about.admin_email.as_deref().unwrap_or_default()
    }

    fn place(&self) -> CellAt {
        database::admin_hash(self.spec(), self.email())
    }

    async fn stored(&self, cx: &StepCx) -> Result<Secret, String> {
        let session = self.world.database_session(cx.rotation()).await?;
        let found = session.read_cell(&self.place()).await;
        let found = found.map_err(|e| e.to_string())?;
        self.world.sessions.put(session);
        match found {
            Cell::Value(hash) => Ok(hash),
            _ => Err(format!("{} has no stored password hash", self.email())),
        }
    }

    /// The hash from before stays the one that was found first; the one after is the last that a seed wrote.
    fn keep(&self, cx: &StepCx, name: &str, hash: &Secret) -> Result<(), String> {
        let sealed = self
            .world
            .identity
            .seal_secret(hash)
            .map_err(|e| e.to_string())?;
        let kept = [Kept {
            name: name.into(),
            sealed,
        }];
        let (writer, now) = (cx.writer(), cx.now());
        let done = if name == hashes::AFTER {
            writer.renew(cx.rotation(), &kept, now)
        } else {
            writer.keep(cx.rotation(), &kept, now)
        };
        done.map_err(|e| e.to_string())
    }

    async fn seed(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let not_applied = |e: String| ActError::NotApplied(self.world.clean(&e));
        let unsure = |e: String| ActError::Indeterminate(self.world.clean(&e));
        let found = self.stored(cx).await.map_err(not_applied)?;
        self.keep(cx, hashes::BEFORE, &found).map_err(not_applied)?;
        let before = self
            .world
            .kept(cx, hashes::BEFORE)
            .map_err(not_applied)?
            .unwrap_or(found);
        let spec = self.spec();
        let command = spec.seed.command.join(" ");
        let limit = Duration::from_secs(self.world.about.profile.limits.seed_seconds);
        cx.fence()?;
        let done = self
            .world
            .exec(cx.rotation(), &spec.seed.service, &spec.seed.command, limit)
            .await;
        let after = self.stored(cx).await.map_err(unsure)?;
        let changed = !after.same_as(&before);
        if changed {
            self.keep(cx, hashes::AFTER, &after).map_err(unsure)?;
        }
        match (done, changed) {
            (Ok(()), true) => Ok(json!({"command": command, "service": spec.seed.service})),
            (Ok(()), false) => Err(not_applied(format!(
                "`{command}` in {} exited with 0 and changed nothing for {}: a seed that upserts with an empty update does not set the password of an account that exists; make it write the hash",
                spec.seed.service,
                self.email()
            ))),
            // What may still run may still write.
            (Err(NotDone::MayRun(why)), false) => Err(unsure(why)),
            (Err(NotDone::Ended(why)), false) => Err(not_applied(why)),
            (Err(NotDone::MayRun(why) | NotDone::Ended(why)), true) => {
                Err(unsure(format!("{why}, but the stored hash changed")))
            }
        }
    }

    /// Without a login, where that can be told. A good hash takes its time.
    async fn is_hash_of(&self, stored: &Secret, password: &Secret) -> Option<bool> {
        let (stored, password) = (stored.clone(), password.clone());
        let judged = tokio::task::spawn_blocking(move || is_hash_of(&stored, &password));
        judged.await.unwrap_or(None)
    }

    async fn observed(&self, cx: &StepCx) -> Result<Observed, Finding> {
        let unknown = |e: String| Finding::Unknown(self.world.clean(&e));
        let Some(before) = self.world.kept(cx, hashes::BEFORE).map_err(unknown)? else {
            return Ok(Observed::Before);
        };
        let stored = self.stored(cx).await.map_err(unknown)?;
        if stored.same_as(&before) {
            return Ok(Observed::Before);
        }
        self.changed(cx, &stored).await
    }

    /// By whom a stored hash was written that is not the one from before.
    async fn changed(&self, cx: &StepCx, stored: &Secret) -> Result<Observed, Finding> {
        let unknown = |e: String| Finding::Unknown(self.world.clean(&e));
        let after = self.world.kept(cx, hashes::AFTER).map_err(unknown)?;
        if after.is_some_and(|after| stored.same_as(&after)) {
            let service = &self.spec().seed.service;
            return Ok(Observed::After(json!({"service": service})));
        }
        // A seed that was not seen to its end: killed, or one that ran on and wrote once more.
        let (_, new) = self
            .world
            .both(SecretKind::AdminPassword)
            .expect("planned only when it is rotated");
        let is_new = match self.is_hash_of(stored, new).await {
            Some(judged) => judged,
            // A hash of a kind that only the application knows. The session that this opens is ended with all others.
            None => match self.world.panel()?.log_in(self.email(), new).await {
                Ok(_) => true,
                Err(Finding::Wrong(_) | Finding::Alive(_)) => false,
                Err(unknown) => return Err(unknown),
            },
        };
        if !is_new {
            return Ok(Observed::Drifted(Evidence::new(
                "the stored hash is neither the old one nor one of the new password",
            )));
        }
        self.keep(cx, hashes::AFTER, stored).map_err(unknown)?;
        let service = &self.spec().seed.service;
        Ok(Observed::After(json!({"service": service})))
    }

    async fn put_back(&self, cx: &StepCx) -> Result<Evidence, UndoError> {
        let failed = |e: String| UndoError(self.world.clean(&e));
        if let Some(panel) = &self.world.panel {
            panel.goes_back();
        }
        let Some(before) = self.world.kept(cx, hashes::BEFORE).map_err(failed)? else {
            return Ok(Evidence::new("the admin's password was not touched"));
        };
        let stored = self.stored(cx).await.map_err(failed)?;
        if stored.same_as(&before) {
            return Ok(Evidence::new(
                "the admin's stored hash is the one from before",
            ));
        }
        // Only what the seed wrote is replaced; an admin who changed the password meanwhile keeps theirs.
        match self.changed(cx, &stored).await {
            Ok(Observed::After(_)) => {}
            Ok(_) => {
                return Ok(Evidence::new(
                    "somebody else changed the admin's password meanwhile; it was left",
                ));
            }
            Err(finding) => return Err(failed(finding.to_string())),
        }
        cx.fence().map_err(|e| failed(e.to_string()))?;
        let mut session = self
            .world
            .database_session(cx.rotation())
            .await
            .map_err(failed)?;
        match session
            .compare_and_set_cell(&self.place(), &stored, &before)
            .await
        {
            Ok(Cas::Done) => Ok(Evidence::new("the admin's stored hash is back")),
            Ok(Cas::Changed) => Ok(Evidence::new(
                "somebody else changed the admin's password meanwhile; it was left",
            )),
            Ok(_) => Err(failed(format!("the account {} is gone", self.email()))),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

impl Step for AdminPassword {
    fn name(&self) -> StepName {
        names::ADMIN_PASSWORD.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async move {
            self.observed(cx)
                .await
                .unwrap_or_else(|finding| Observed::Unknown(self.world.clean(&finding.to_string())))
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.seed(cx))
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let (_, new) = self
                .world
                .both(SecretKind::AdminPassword)
                .expect("planned only when it is rotated");
            if self.world.about.panel_sick {
                return Ok(Evidence::with(
                    "the stored hash changed; a login was not tried, the application is not well",
                    receipt.clone(),
                ));
            }
            self.world.panel()?.log_in(self.email(), new).await?;
            Ok(Evidence::with(
                format!("{} logs in with the new password", self.email()),
                receipt.clone(),
            ))
        })
    }
}

impl Compensate for AdminPassword {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(self.put_back(cx))
    }
}
