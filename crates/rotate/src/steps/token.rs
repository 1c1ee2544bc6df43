//! Step: a Proxmox token, made under an id that the rotation knew before, with the rights of the one in force.
//!
//! The server makes the value and shows it once, so it cannot be sealed before it exists. It is sealed with the next commit; a token whose value was lost in between
//! is of no use to anybody, and is deleted and made again. Its id stands in what the rotation is about, so no token is ever left that the journal does not know.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_providers::http::Verdict;
use keyroll_providers::proxmox::{Grant, Proxmox, ProxmoxError, Token as ProxmoxToken, TokenInfo};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::Secret;
use serde_json::json;

use crate::about::MakesFact;
use crate::profile::SecretSpec;
use crate::steps::names;
use crate::vendor;
use crate::world::World;

/// Sealed name of the value that was made.
pub(crate) const MADE: &str = "token/made";

#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) world: Arc<World>,
}

/// The API, as seen by whoever manages the tokens.
pub(crate) struct Managed {
    proxmox: Proxmox,
    manager: ProxmoxToken,
}

/// `user@realm` and the token's name.
pub(crate) fn parts(full: &str) -> (&str, &str) {
    full.split_once('!').unwrap_or((full, ""))
}

impl Managed {
    /// For this secret of the profile; the file with the manager's value is read each time.
    pub(crate) fn of(name: &str, spec: &SecretSpec, limit: Duration) -> Result<Self, String> {
        let make = spec.make.as_ref();
        let make = make.ok_or_else(|| format!("the profile has no secrets.{name}.make"))?;
        let value = std::fs::read_to_string(&make.manager_file).map(zeroize::Zeroizing::new);
        let value = value.map_err(|e| format!("{}: {e}", make.manager_file.display()))?;
        let (user, id) = parts(&make.manager);
        Ok(Self {
            proxmox: vendor::proxmox(spec, limit).map_err(|e| format!("{name}: {e}"))?,
            manager: ProxmoxToken {
                user: user.to_owned(),
                id: id.to_owned(),
                value: Secret::new(value.trim()),
            },
        })
    }

    /// What is told of this token, if it is there.
    pub(crate) async fn find(&self, full: &str) -> Result<Option<TokenInfo>, ProxmoxError> {
        let (user, id) = parts(full);
        let all = self.proxmox.tokens(&self.manager, user).await?;
        Ok(all.into_iter().find(|token| token.id == id))
    }

    /// Sees to it that this token is not there. May run again.
    pub(crate) async fn delete(&self, full: &str) -> Result<(), ProxmoxError> {
        let (user, id) = parts(full);
        if self.find(full).await?.is_none() {
            return Ok(());
        }
        let deleted = self.proxmox.delete(&self.manager, user, id).await;
        // To one that is gone by now, or was deleted by a call whose answer is lost, the server answers with an error.
        match self.find(full).await? {
            None => Ok(()),
            Some(_) => deleted,
        }
    }

    /// Whether this token is accepted with this value.
    pub(crate) async fn accepts(&self, full: &str, value: &Secret) -> Verdict {
        let (user, id) = parts(full);
        let token = ProxmoxToken {
            user: user.to_owned(),
            id: id.to_owned(),
            value: value.clone(),
        };
        self.proxmox.accepts(&token).await
    }

    /// Gives this token another value in place.
    pub(crate) async fn regenerate(&self, full: &str) -> Result<Secret, ProxmoxError> {
        let (user, id) = parts(full);
        let made = self.proxmox.regenerate(&self.manager, user, id).await?;
        Ok(made.value)
    }

    async fn grants_of(&self, full: &str) -> Result<Vec<Grant>, ProxmoxError> {
        let mut all = self.proxmox.grants(&self.manager).await?;
        all.retain(|grant| grant.who == full);
        Ok(all)
    }
}

/// What steps about a token have in common, whether it is made or given another value.
impl World {
    pub(super) fn token(&self) -> &MakesFact {
        let fact = self.about.makes.as_ref();
        fact.expect("the step is planned only where a token is made")
    }

    pub(super) fn token_spec(&self) -> Result<&SecretSpec, String> {
        let name = &self.token().secret;
        let spec = self.about.profile.secrets.get(name);
        spec.ok_or_else(|| format!("the profile has no secret {name}"))
    }

    pub(super) fn request_limit(&self) -> Duration {
        Duration::from_secs(self.about.profile.limits.request_seconds)
    }

    pub(super) fn token_manager(&self) -> Result<Managed, String> {
        Managed::of(
            &self.token().secret,
            self.token_spec()?,
            self.request_limit(),
        )
    }
}

impl Token {
    fn made(&self, cx: &StepCx) -> Result<Option<Secret>, String> {
        self.world.kept(cx, MADE)
    }

    async fn make(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let fact = self.world.token();
        let not = |e: String| ActError::NotApplied(self.world.clean(&e));
        let failed = |e: ProxmoxError| {
            let text = self.world.clean(&e.to_string());
            if e.is_not_applied() {
                ActError::NotApplied(text)
            } else {
                ActError::Indeterminate(text)
            }
        };
        let managed = self.world.token_manager().map_err(not)?;
        cx.fence()?;
        for unused in &fact.discards {
            managed.delete(unused).await.map_err(failed)?;
        }
        let there = managed.find(&fact.id).await.map_err(failed)?.is_some();
        if !there || self.made(cx).map_err(not)?.is_none() {
            // Its value was shown once, and is lost.
            if there {
                managed.delete(&fact.id).await.map_err(failed)?;
            }
            let like = managed.find(&fact.like).await.map_err(failed)?;
            let like = like.ok_or_else(|| {
                not(format!(
                    "there is no token {}, whose rights it would get",
                    fact.like
                ))
            })?;
            let (user, id) = parts(&fact.id);
            let new = TokenInfo {
                id: id.to_owned(),
                comment: Some(format!("made by keyroll, rotation {}", cx.rotation())),
                ..like
            };
            let made = managed.proxmox.create(&managed.manager, user, &new).await;
            let made = made.map_err(failed)?;
            let sealed = self.world.identity.seal_secret(&made.value);
            let kept = Kept {
                name: MADE.to_owned(),
                sealed: sealed.map_err(|e| not(e.to_string()))?,
            };
            cx.writer().renew(cx.rotation(), &[kept], cx.now())?;
        }
        for grant in managed.grants_of(&fact.like).await.map_err(failed)? {
            let own = Grant {
                who: fact.id.clone(),
                ..grant
            };
            managed
                .proxmox
                .grant(&managed.manager, &own)
                .await
                .map_err(failed)?;
        }
        Ok(json!({"token": fact.id, "like": fact.like}))
    }

    /// Whether it is there, has the rights of the other path by path, and its value works.
    async fn shown(&self, cx: &StepCx) -> Result<Evidence, ConfirmError> {
        let fact = self.world.token();
        let unknown = |e: String| ConfirmError::Unknown(self.world.clean(&e));
        let managed = self.world.token_manager().map_err(unknown)?;
        let grants = async |full: &str| {
            let found = managed
                .grants_of(full)
                .await
                .map_err(|e| unknown(e.to_string()))?;
            let mut all: Vec<_> = found
                .into_iter()
                .map(|g| (g.path, g.role, g.propagate))
                .collect();
            all.sort();
            Ok::<_, ConfirmError>(all)
        };
        let (own, like) = (grants(&fact.id).await?, grants(&fact.like).await?);
        if own != like {
            return Err(ConfirmError::Refuted(format!(
                "{} has {} entries of the access control list, {} has {}",
                fact.id,
                own.len(),
                fact.like,
                like.len()
            )));
        }
        let value = self.made(cx).map_err(unknown)?;
        let value = value.ok_or_else(|| unknown("the value is not sealed".into()))?;
        let old = self.world.others.get(&fact.secret);
        let old = old.ok_or_else(|| unknown("the value in force is not sealed".into()))?;
        let spec = self.world.token_spec().map_err(unknown)?;
        let ids = vendor::Ids {
            old: Some(&fact.like),
            new: Some(&fact.id),
        };
        match vendor::validate(
            &fact.secret,
            spec,
            ids,
            old,
            &value,
            self.world.request_limit(),
        )
        .await
        {
            Ok(seen) => Ok(Evidence::with(
                format!(
                    "{} is made, with {} entries of the access control list, as {} has; {}",
                    fact.id,
                    own.len(),
                    fact.like,
                    seen.unwrap_or_default()
                ),
                json!({"token": fact.id, "grants": own.len()}),
            )),
            Err(refusal) => Err(ConfirmError::Refuted(self.world.clean(&refusal.what))),
        }
    }
}

impl Step for Token {
    fn name(&self) -> StepName {
        names::TOKEN.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            let managed = match self.world.token_manager() {
                Ok(managed) => managed,
                Err(why) => return Observed::Unknown(self.world.clean(&why)),
            };
            match (managed.find(&self.world.token().id).await, self.made(cx)) {
                (Ok(None), Ok(None)) => Observed::Before,
                // It may lack its value or rights: the act makes both whole.
                (Ok(_), Ok(_)) => Observed::Overlap,
                (Err(e), _) => Observed::Unknown(self.world.clean(&e.to_string())),
                (_, Err(e)) => Observed::Unknown(e),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.make(cx))
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(self.shown(cx))
    }
}

impl Compensate for Token {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            let failed = |e: String| UndoError(self.world.clean(&e));
            let managed = self.world.token_manager().map_err(failed)?;
            cx.fence().map_err(|e| failed(e.to_string()))?;
            let id = &self.world.token().id;
            managed
                .delete(id)
                .await
                .map_err(|e| failed(e.to_string()))?;
            Ok(Evidence::new(format!("there is no token {id}")))
        })
    }
}
