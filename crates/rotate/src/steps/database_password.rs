//! Step: the role's password.
//!
//! The server gets a verifier computed here, of the kind that the role has; the old verifier is sealed first, and undo
//! writes it back verbatim, so that the role is then as if nothing had happened, salt included.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_providers::postgres::{
    PasswordSet, PostgresError, StoredPassword, Verifier, VerifierKind,
};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::Secret;
use serde_json::json;

use crate::database::{self, InForce};
use crate::panel::Finding;
use crate::profile::SecretKind;
use crate::recovery;
use crate::steps::names;
use crate::world::World;

const OLD_VERIFIER: &str = "database/verifier-before";
const NEW_VERIFIER: &str = "database/verifier-after";

#[derive(Debug)]
pub(crate) struct DatabasePassword {
    pub(crate) world: Arc<World>,
}

impl DatabasePassword {
    fn values(&self) -> (&Secret, &Secret) {
        self.world
            .both(SecretKind::PostgresPassword)
            .expect("the step is planned only when the password is rotated")
    }

    async fn in_force(&self) -> Result<InForce, Finding> {
        let endpoint = self.world.endpoint().await?;
        let (old, new) = self.values();
        database::which_logs_in(&endpoint, old, new).await
    }

    /// The kind that a new verifier gets: the role's own, unless the profile upgrades md5.
    fn kind(&self, stored: &StoredPassword) -> VerifierKind {
        let upgrade = self
            .world
            .about
            .profile
            .database
            .as_ref()
            .is_some_and(|d| d.upgrade_md5);
        match stored {
            StoredPassword::Verifier(v) if !(upgrade && v.kind() == VerifierKind::Md5) => v.kind(),
            _ => VerifierKind::default(),
        }
    }

    /// Reads back a sealed verifier; `None` when nothing was sealed under the name.
    fn sealed(&self, cx: &StepCx, name: &str) -> Result<Option<StoredPassword>, String> {
        let Some(text) = self.world.kept(cx, name)? else {
            return Ok(None);
        };
        if text.is_empty() {
            return Ok(Some(StoredPassword::None));
        }
        Verifier::parse(text)
            .map(|v| Some(StoredPassword::Verifier(v)))
            .map_err(|e| e.to_string())
    }

    fn seal(&self, name: &str, stored: &StoredPassword) -> Result<Kept, String> {
        let empty = Secret::new("");
        let text = match stored {
            StoredPassword::Verifier(v) => v.secret(),
            StoredPassword::None => &empty,
        };
        let sealed = self
            .world
            .identity
            .seal_secret(text)
            .map_err(|e| e.to_string())?;
        Ok(Kept {
            name: name.to_owned(),
            sealed,
        })
    }

    async fn set(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let not_applied =
            |e: &dyn std::fmt::Display| ActError::NotApplied(self.world.clean(&e.to_string()));
        let (_, new) = self.values();
        let role = self.world.database_role();
        let role = role.map_err(|e| not_applied(&e))?;
        // It may have been opened with the old password, so it is used for this and no more.
        let session = self.world.database_session(cx.rotation()).await;
        let mut session = session.map_err(|e| not_applied(&e))?;
        let found = session
            .stored_password(&role)
            .await
            .map_err(|e| not_applied(&e))?;
        let made = Verifier::make(self.kind(&found), &role, new).map_err(|e| not_applied(&e))?;
        let kept = [
            self.seal(OLD_VERIFIER, &found)
                .map_err(|e| not_applied(&e))?,
            self.seal(NEW_VERIFIER, &StoredPassword::Verifier(made))
                .map_err(|e| not_applied(&e))?,
        ];
        cx.writer().keep(cx.rotation(), &kept, cx.now())?;
        // Read back: after a crash the first try's verifiers are the ones that count, not those just made.
        let read = |name| self.sealed(cx, name).map_err(|e| not_applied(&e));
        let (Some(expected), Some(wanted)) = (read(OLD_VERIFIER)?, read(NEW_VERIFIER)?) else {
            return Err(ActError::NotApplied(
                "a verifier that was just sealed cannot be read back".into(),
            ));
        };
        cx.fence()?;
        match session.set_password(&role, &expected, &wanted).await {
            Ok(PasswordSet::Done | PasswordSet::AlreadySo) => {}
            Err(error @ PostgresError::Indeterminate { .. }) => {
                return Err(ActError::Indeterminate(
                    self.world.clean(&error.to_string()),
                ));
            }
            Err(error) => return Err(not_applied(&error)),
        }
        // Sessions that began before this instant were opened with the old password, or may have been.
        let time = session
            .server_time()
            .await
            .map_err(|e| ActError::Indeterminate(self.world.clean(&e.to_string())))?;
        Ok(json!({"role": role, "kind": wanted.to_string(), "changed_at_micros": time.micros()}))
    }

    async fn set_back(&self, cx: &StepCx) -> Result<Evidence, UndoError> {
        let failed = |e: &dyn std::fmt::Display| UndoError(self.world.clean(&e.to_string()));
        let there = recovery::start_database(&self.world).await;
        there.map_err(|e| failed(&e))?;
        let endpoint = self.world.endpoint().await.map_err(|e| failed(&e))?;
        let (old, new) = self.values();
        let Some(before) = self.sealed(cx, OLD_VERIFIER).map_err(|e| failed(&e))? else {
            // Sealed before the ALTER: without it there was no ALTER. The look below still has the last word.
            return match self.in_force().await.map_err(|e| failed(&e))? {
                InForce::Old => Ok(Evidence::new("the role's password was never changed")),
                _ => Err(failed(
                    &"the old verifier was never sealed, and the old password does not log in",
                )),
            };
        };
        let mut session = database::session(&endpoint, cx.rotation(), &[new, old])
            .await
            .map_err(|e| failed(&e))?;
        let found = session
            .stored_password(&endpoint.role)
            .await
            .map_err(|e| failed(&e))?;
        let changed = !found.same_as(&before);
        // Somebody else's hash of the old password is theirs to keep; of the new password, or keyroll's own, it goes.
        if changed && self.in_force().await.map_err(|e| failed(&e))? == InForce::Old {
            return Ok(Evidence::new(format!(
                "the old password of role {} logs in, under a verifier that somebody else has set meanwhile; it was left",
                endpoint.role
            )));
        }
        if changed {
            cx.fence().map_err(|e| failed(&e))?;
            session
                .set_password(&endpoint.role, &found, &before)
                .await
                .map_err(|e| failed(&e))?;
        }
        match self.in_force().await.map_err(|e| failed(&e))? {
            InForce::Old => Ok(Evidence::new(format!(
                "the old verifier of role {} is back verbatim; the old password logs in, the new one is refused",
                endpoint.role
            ))),
            other => Err(failed(&format!(
                "after the old verifier was written back, {other:?} logs in"
            ))),
        }
    }
}

impl Step for DatabasePassword {
    fn name(&self) -> StepName {
        names::DATABASE_PASSWORD.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match self.in_force().await {
                Ok(InForce::Old) => Observed::Before,
                // Act finds the verifier in place, changes nothing, and gives a receipt with a time.
                Ok(InForce::New) => Observed::Overlap,
                Ok(InForce::Both) => Observed::Unknown(
                    "both passwords log in: the path no longer checks passwords".into(),
                ),
                Ok(InForce::Neither) => Observed::Drifted(Evidence::new(
                    "neither the old nor the new password logs in",
                )),
                Err(finding) => Observed::Unknown(self.world.clean(&finding.to_string())),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.set(cx))
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let endpoint = self.world.endpoint().await?;
            let (control, found) =
                tokio::join!(database::path_checks_passwords(&endpoint), self.in_force());
            control?;
            match found? {
                InForce::New => Ok(Evidence::with(
                    format!(
                        "{endpoint}: the new password logs in, the old one and a made-up one are refused; verifier read back verbatim"
                    ),
                    receipt.clone(),
                )),
                other => Err(ConfirmError::Refuted(format!(
                    "{endpoint}: after the change {other:?} logs in"
                ))),
            }
        })
    }
}

impl Compensate for DatabasePassword {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(self.set_back(cx))
    }
}
