//! Step: database sessions that were opened with the old password are ended. `PostgreSQL` keeps them open for ever otherwise.

use std::sync::Arc;
use std::time::Duration;

use keyroll_journal::{Backward, Event, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_providers::postgres::{Backend, ServerTime};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde_json::json;

use crate::steps::names;
use crate::world::World;

/// How long a backend gets to end after it was told to.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct DatabaseSessions {
    pub(crate) world: Arc<World>,
}

impl DatabaseSessions {
    /// When the password was changed, by the server's clock, as the step that changed it recorded.
    fn changed_at(cx: &StepCx) -> Result<ServerTime, String> {
        let records = cx
            .writer()
            .records(cx.rotation())
            .map_err(|e| e.to_string())?;
        records
            .iter()
            .rev()
            .find_map(|record| match &record.event {
                Event::Applied { step, receipt, .. }
                    if step.as_str() == names::DATABASE_PASSWORD =>
                {
                    receipt["changed_at_micros"].as_i64()
                }
                _ => None,
            })
            .map(ServerTime::from_micros)
            .ok_or_else(|| "the journal does not say when the password was changed".into())
    }
}

/// Sessions of the role from before the change, of clients and of others: the server's own processes run as the bootstrap
/// superuser too, and never logged in.
pub(super) async fn left(
    world: &World,
    cx: &StepCx,
) -> Result<(Vec<Backend>, Vec<Backend>), String> {
    let changed_at = DatabaseSessions::changed_at(cx)?;
    let session = world.database_session(cx.rotation()).await?;
    let role = world.database_role()?;
    let old = session
        .old_sessions(&role, changed_at)
        .await
        .map_err(|e| e.to_string())?;
    world.sessions.put(session);
    Ok(old.into_iter().partition(|b| b.kind == "client backend"))
}

impl Step for DatabaseSessions {
    fn name(&self) -> StepName {
        names::DATABASE_SESSIONS.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        // Ending what is already gone does nothing.
        Box::pin(async { Observed::Overlap })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async move {
            let not_applied = |e: String| ActError::NotApplied(self.world.clean(&e));
            let changed_at = Self::changed_at(cx).map_err(not_applied)?;
            let session = self
                .world
                .database_session(cx.rotation())
                .await
                .map_err(not_applied)?;
            let role = self.world.database_role().map_err(not_applied)?;
            cx.fence()?;
            match session.terminate_sessions(&role, changed_at, LIMIT).await {
                Ok(done) => {
                    self.world.sessions.put(session);
                    Ok(json!({"ended": done.ended.len(), "left": done.left.len()}))
                }
                Err(e) if e.is_indeterminate() => {
                    Err(ActError::Indeterminate(self.world.clean(&e.to_string())))
                }
                Err(e) => Err(not_applied(e.to_string())),
            }
        })
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let unknown = |e: String| ConfirmError::Unknown(self.world.clean(&e));
            let (clients, rest) = left(&self.world, cx).await.map_err(unknown)?;
            let standbys = rest.iter().filter(|b| b.kind == "walsender").count();
            let standbys = match standbys {
                0 => String::new(),
                n => format!(
                    "; {n} standbys stay connected, and need the new password when they connect again"
                ),
            };
            match clients.first() {
                None => Ok(Evidence::with(
                    format!(
                        "{} database sessions from before the change were still open and were ended; none is left{standbys}",
                        receipt["ended"]
                    ),
                    receipt.clone(),
                )),
                Some(one) => Err(ConfirmError::Refuted(format!(
                    "{} database sessions opened with the old password remain, for example {:?} (process {})",
                    clients.len(),
                    one.application,
                    one.pid
                ))),
            }
        })
    }
}

impl Compensate for DatabaseSessions {
    fn undo<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async {
            Ok(Evidence::new(
                "ended sessions stay ended; their owners connect again",
            ))
        })
    }
}
