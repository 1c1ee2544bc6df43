//! Steps of a token that is given another value in place, on request.
//!
//! The server kills the old value with the answer that holds the new one, or with the loss of that answer. So this is the point of
//! no return by itself: before it the application works with the old value, and after it with nothing but the new one, which its setting
//! gets at once. A lost answer leaves a token whose value nobody knows, and so it is given another one again.

use std::sync::Arc;

use keyroll_journal::{Evidence, Forward, Intended, NewVersion, Receipt, StepName, VersionState};
use keyroll_providers::http::Verdict;
use keyroll_providers::postgres::{Cell, SettingsSet};
use keyroll_saga::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};
use keyroll_secret::Secret;
use serde_json::json;

use crate::settings::{self, Row, same};
use crate::steps::names;
use crate::vendor;
use crate::world::{Set, World};

/// The point of no return: the token is given another value.
#[derive(Debug)]
pub(crate) struct Regenerate {
    pub(crate) world: Arc<World>,
}

/// After it: the application's setting gets that value.
#[derive(Debug)]
pub(crate) struct TokenSetting {
    pub(crate) world: Arc<World>,
}

/// The value before.
fn old(world: &World) -> Result<&Secret, String> {
    let value = world.others.get(&world.token().secret);
    value.ok_or_else(|| "the value in force before is not sealed".to_owned())
}

/// The value that the server gave last, once it is sealed.
fn new(world: &World, cx: &StepCx) -> Result<Option<Secret>, String> {
    let versions = cx.writer().versions_of_rotation(cx.rotation());
    let versions = versions.map_err(|e| e.to_string())?;
    let last = versions.into_iter().rfind(|v| {
        v.secret == world.token().secret
            && matches!(v.state, VersionState::Pending | VersionState::Current)
    });
    let sealed = last.and_then(|version| version.sealed);
    let open = |sealed| world.identity.open_secret(&sealed);
    sealed.map(open).transpose().map_err(|e| e.to_string())
}

/// The setting, and what it holds now.
async fn setting(world: &World, cx: &StepCx) -> Result<(String, Cell), String> {
    let key = world.token().setting.clone().unwrap_or_default();
    let session = world.database_session(cx.rotation()).await?;
    let read = settings::read(&session, &world.settings_table(), &[&key]).await;
    let read = read.map_err(|refusal| refusal.what)?;
    world.sessions.put(session);
    Ok((key, read.into_iter().next().unwrap_or(Cell::Missing)))
}

impl Regenerate {
    fn receipt(&self) -> Receipt {
        json!({"token": self.world.token().id})
    }

    async fn looked(&self, cx: &StepCx) -> Result<Observed, String> {
        let id = &self.world.token().id;
        let managed = self.world.token_manager()?;
        let (value, otherwise) = match new(&self.world, cx)? {
            Some(new) => (new, Observed::After(self.receipt())),
            None => (old(&self.world)?.clone(), Observed::Before),
        };
        match managed.accepts(id, &value).await {
            Verdict::Accepted(_) => Ok(otherwise),
            // Nobody has the value that works: the act asks for another.
            Verdict::Refused(_) => Ok(Observed::Overlap),
            Verdict::Unknown(why) => Err(why.to_string()),
        }
    }

    async fn shown(&self, cx: &StepCx) -> Result<Evidence, ConfirmError> {
        let world = &self.world;
        let fact = world.token();
        let unknown = |e: String| ConfirmError::Unknown(world.clean(&e));
        let new = new(world, cx).map_err(unknown)?;
        let new = new.ok_or_else(|| unknown("the new value is not sealed".into()))?;
        let old = old(world).map_err(unknown)?;
        let managed = self.world.token_manager().map_err(unknown)?;
        match managed.accepts(&fact.id, old).await {
            Verdict::Refused(_) => {}
            Verdict::Accepted(_) => {
                let alive = format!("{} is still accepted with its old value", fact.id);
                return Err(ConfirmError::Refuted(alive));
            }
            Verdict::Unknown(why) => return Err(unknown(why.to_string())),
        }
        let ids = vendor::Ids {
            old: Some(&fact.id),
            new: Some(&fact.id),
        };
        let spec = world.token_spec().map_err(unknown)?;
        match vendor::validate(&fact.secret, spec, ids, old, &new, world.request_limit()).await {
            Ok(seen) => Ok(Evidence::with(
                format!(
                    "{} has another value, and its old one is refused; {}",
                    fact.id,
                    seen.unwrap_or_default()
                ),
                self.receipt(),
            )),
            Err(refusal) => Err(ConfirmError::Refuted(world.clean(&refusal.what))),
        }
    }
}

impl Step for Regenerate {
    fn name(&self) -> StepName {
        names::REGENERATE.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            let looked = self.looked(cx).await;
            looked.unwrap_or_else(|why| Observed::Unknown(self.world.clean(&why)))
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            let world = &self.world;
            let not = |e: String| ActError::NotApplied(world.clean(&e));
            let managed = self.world.token_manager().map_err(not)?;
            // Nothing can be taken back from here on, so it must be possible to go on.
            let (key, now) = setting(world, cx).await.map_err(not)?;
            if !same(&now, &Cell::Value(old(world).map_err(not)?.clone())) {
                return Err(not(format!(
                    "somebody has changed setting {key} since preflight; the token keeps its value"
                )));
            }
            cx.fence()?;
            let value = managed.regenerate(&world.token().id).await.map_err(|e| {
                let text = world.clean(&e.to_string());
                if e.is_not_applied() {
                    ActError::NotApplied(text)
                } else {
                    ActError::Indeterminate(text)
                }
            })?;
            // From here to the commit it is nowhere but in this process.
            let lost = |e: String| ActError::Indeterminate(world.clean(&e));
            let sealed = world.identity.seal_secret(&value);
            let fingerprint = world.identity.fingerprint_key().fingerprint(&value);
            let version = NewVersion {
                secret: world.token().secret.clone(),
                state: VersionState::Pending,
                fingerprint: fingerprint.to_string(),
                sealed: sealed.map_err(|e| lost(e.to_string()))?,
            };
            cx.writer().made(cx.rotation(), &version, cx.now())?;
            Ok(self.receipt())
        })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        _: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(self.shown(cx))
    }
}

impl TokenSetting {
    fn row(&self, cx: &StepCx) -> Result<Row, String> {
        let new = new(&self.world, cx)?;
        Ok(Row {
            key: self.world.token().setting.clone().unwrap_or_default(),
            old: Cell::Value(old(&self.world)?.clone()),
            new: Cell::Value(new.ok_or("the new value is not sealed")?),
        })
    }

    async fn looked(&self, cx: &StepCx) -> Result<(Row, Cell), String> {
        let row = self.row(cx)?;
        let (_, now) = setting(&self.world, cx).await?;
        Ok((row, now))
    }

    async fn write(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let world = &self.world;
        let not = |e: String| ActError::NotApplied(world.clean(&e));
        let row = self.row(cx).map_err(not)?;
        let mut session = world.database_session(cx.rotation()).await.map_err(not)?;
        cx.fence()?;
        let change = [row.towards(Set::New)];
        match session
            .change_settings(&world.settings_table(), &change)
            .await
        {
            Ok(SettingsSet::Done) => {
                world.sessions.put(session);
                Ok(json!({"settings": row.key}))
            }
            Ok(SettingsSet::Drifted(_)) => Err(not(format!(
                "somebody has changed setting {} since preflight; it stays as it is. The token's value is sealed: `keyroll reveal` shows it",
                row.key
            ))),
            Err(e) if e.is_indeterminate() => {
                Err(ActError::Indeterminate(world.clean(&e.to_string())))
            }
            Err(e) => Err(not(e.to_string())),
        }
    }
}

impl Step for TokenSetting {
    fn name(&self) -> StepName {
        names::TOKEN_SETTING.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match self.looked(cx).await {
                Ok((row, now)) if same(&row.new, &now) => {
                    Observed::After(json!({"settings": row.key}))
                }
                Ok((row, now)) if same(&row.old, &now) => Observed::Before,
                // Somebody's edit: the act compares, and says so.
                Ok(_) => Observed::Overlap,
                Err(why) => Observed::Unknown(self.world.clean(&why)),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.write(cx))
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            let looked = self.looked(cx).await;
            let (row, now) = looked.map_err(|why| ConfirmError::Unknown(self.world.clean(&why)))?;
            if same(&row.new, &now) {
                let says = format!("setting {} holds the token's new value", row.key);
                return Ok(Evidence::with(says, receipt.clone()));
            }
            let other = format!("setting {} holds another value", row.key);
            Err(ConfirmError::Refuted(other))
        })
    }
}
