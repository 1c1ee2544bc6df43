//! Step: the old set, shown to be in force just before anything changes; and again, when the rotation went back.
//!
//! Going forward it shows that the tokens taken at preflight are accepted, so that their refusal afterwards means
//! something. Its undo is the last of all, and is the verification of the stack on the old set.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_providers::http::Tokens;
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::Secret;
use serde_json::json;

use crate::panel::Finding;
use crate::profile::SecretKind;
use crate::settings::Edits;
use crate::steps::names;
use crate::world::{Set, WITNESS_ACCESS, WITNESS_REFRESH, WITNESS_REFRESH_NEXT, World};

#[derive(Debug)]
pub(crate) struct Baseline {
    pub(crate) world: Arc<World>,
}

impl Baseline {
    async fn accepted(&self, cx: &StepCx) -> Result<Evidence, Finding> {
        let Some(witness) = self.world.witness(cx)? else {
            return Ok(Evidence::new("no session was taken at preflight"));
        };
        let shown = match self.shown(cx, &witness).await {
            // Its time may be up, after a long prompt or a long dump; and a run that was killed here may have traded it in.
            Err(Finding::Wrong(_)) => {
                let again = self.log_in(cx).await?;
                self.shown(cx, &again).await
            }
            other => other,
        };
        shown?;
        Ok(Evidence::new(
            "the access and refresh tokens of a live session are accepted",
        ))
    }

    /// This session's tokens are accepted, and one that is still good is kept to be shown dead.
    async fn shown(&self, cx: &StepCx, witness: &Tokens) -> Result<(), Finding> {
        let panel = self.world.panel()?;
        panel.pages_open(&witness.access).await?;
        let Some(refresh) = witness.refresh.as_ref().filter(|_| panel.has_refresh()) else {
            return Ok(());
        };
        // An application that replaces refresh tokens gives the next one: that is the witness then.
        if let Some(next) = panel.refresh(refresh).await? {
            return self.keep(cx, &[(WITNESS_REFRESH_NEXT, &next)]);
        }
        // It may replace them without saying where: then this one is dead now, and would prove nothing later. Another
        // session's, of the same kind and not traded, takes its place.
        match panel.refresh(refresh).await {
            Err(Finding::Wrong(_)) => self.log_in(cx).await.map(drop),
            other => other.map(drop),
        }
    }

    async fn log_in(&self, cx: &StepCx) -> Result<Tokens, Finding> {
        let email = self.world.about.admin_email.as_deref();
        let password = self.world.value_of(SecretKind::AdminPassword, Set::Old)?;
        let panel = self.world.panel()?;
        let tokens = panel.log_in(email.unwrap_or_default(), password).await?;
        let mut keep = vec![(WITNESS_ACCESS, &tokens.access)];
        if let Some(refresh) = &tokens.refresh {
            keep.extend([(WITNESS_REFRESH, refresh), (WITNESS_REFRESH_NEXT, refresh)]);
        }
        self.keep(cx, &keep)?;
        Ok(tokens)
    }

    fn keep(&self, cx: &StepCx, tokens: &[(&str, &Secret)]) -> Result<(), Finding> {
        let unknown = |e: &dyn std::fmt::Display| Finding::Unknown(e.to_string());
        let mut kept = vec![];
        for (name, token) in tokens {
            let sealed = self.world.identity.seal_secret(token);
            kept.push(Kept {
                name: (*name).to_owned(),
                sealed: sealed.map_err(|e| unknown(&e))?,
            });
        }
        cx.writer()
            .renew(cx.rotation(), &kept, cx.now())
            .map_err(|e| unknown(&e))
    }

    /// Whether what was found may be the sickness that was there before, and accepted: not in the database or the containers,
    /// and not that something dead is accepted.
    async fn excused(&self, finding: &Finding) -> bool {
        !self.world.about.accepted.is_empty()
            && !matches!(finding, Finding::Alive(_))
            && self.world.prove_database(Set::Old).await.is_ok()
            && self.world.prove_containers(Set::Old).await.is_ok()
    }
}

impl Step for Baseline {
    fn name(&self) -> StepName {
        names::BASELINE.into()
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
        Box::pin(async move {
            // A stack that was forced although it is sick cannot show that its sessions work.
            if !self.world.about.accepted.is_empty() {
                return Ok(Evidence::new(
                    "not shown: the stack was not well before the rotation, and was forced",
                ));
            }
            let mut shown = self.accepted(cx).await?;
            for line in self.world.prove_settings(Set::Old, Edits::Wrong).await? {
                shown.says = format!("{}; {line}", shown.says);
            }
            Ok(shown)
        })
    }
}

impl Compensate for Baseline {
    fn undo<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async move {
            if let Some(panel) = &self.world.panel {
                panel.goes_back();
            }
            match self.world.prove(Set::Old, None).await {
                Ok(seen) => Ok(Evidence::with(
                    format!("the old set is in force: {}", seen.join("; ")),
                    json!({"seen": seen}),
                )),
                Err(finding) => {
                    let excused = self.excused(&finding).await;
                    let found = self.world.clean(&finding.to_string());
                    if excused {
                        Ok(Evidence::new(format!(
                            "the old values are back in the database and the containers; not verified beyond that, the stack was not well before the rotation and is not now: {found}"
                        )))
                    } else {
                        Err(UndoError(found))
                    }
                }
            }
        })
    }
}
