//! Step: the application's own sessions are revoked, every one, and exactly those can be reopened.

use std::sync::Arc;

use keyroll_journal::{Backward, Evidence, Forward, Intended, Kept, Receipt, StepName};
use keyroll_providers::postgres::{Revoked, ServerTime, Session};
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::about::Reason;
use crate::database;
use crate::steps::names;
use crate::world::World;

const MARK: &str = "sessions/mark";

/// Written down before the revocation: the time that marks keyroll's own rows, and the ids for columns without room for it.
#[derive(Serialize, Deserialize)]
struct Mark {
    at_micros: i64,
    open: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct AppSessions {
    pub(crate) world: Arc<World>,
}

impl AppSessions {
    fn table(&self) -> keyroll_providers::postgres::SessionTable {
        let spec = self.world.about.profile.sessions.as_ref();
        database::session_table(spec.expect("the step is planned only with a session table"))
    }

    fn mark(&self, cx: &StepCx) -> Result<Option<Mark>, String> {
        let Some(sealed) = cx
            .writer()
            .kept(cx.rotation(), MARK)
            .map_err(|e| e.to_string())?
        else {
            return Ok(None);
        };
        let text = self
            .world
            .identity
            .open(&sealed)
            .map_err(|e| e.to_string())?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| e.to_string())
    }

    async fn session(&self, cx: &StepCx) -> Result<Session, String> {
        self.world.database_session(cx.rotation()).await
    }

    async fn revoke(&self, cx: &StepCx) -> Result<Receipt, ActError> {
        let not_applied = |e: String| ActError::NotApplied(self.world.clean(&e));
        let mut session = self.session(cx).await.map_err(not_applied)?;
        let table = self.table();
        if self.mark(cx).map_err(not_applied)?.is_none() {
            let at = session
                .server_time()
                .await
                .map_err(|e| not_applied(e.to_string()))?;
            let open = session
                .open_sessions(&table)
                .await
                .map_err(|e| not_applied(e.to_string()))?;
            let text = json!(Mark {
                at_micros: at.micros(),
                open
            })
            .to_string();
            let sealed = self
                .world
                .identity
                .seal(text.as_bytes())
                .map_err(|e| not_applied(e.to_string()))?;
            cx.writer().keep(
                cx.rotation(),
                &[Kept {
                    name: MARK.into(),
                    sealed,
                }],
                cx.now(),
            )?;
        }
        let mark = self
            .mark(cx)
            .map_err(not_applied)?
            .ok_or_else(|| not_applied("the mark was not kept".into()))?;
        cx.fence()?;
        match session
            .revoke_sessions(&table, ServerTime::from_micros(mark.at_micros))
            .await
        {
            Ok(revoked) => {
                self.world.sessions.put(session);
                Ok(json!({"ids": revoked.ids, "at_micros": revoked.at.micros()}))
            }
            Err(e) if e.is_indeterminate() => {
                Err(ActError::Indeterminate(self.world.clean(&e.to_string())))
            }
            Err(e) => Err(not_applied(e.to_string())),
        }
    }

    async fn reopen(&self, cx: &StepCx) -> Result<Evidence, UndoError> {
        let failed = |e: String| UndoError(self.world.clean(&e));
        if self.world.about.reason == Reason::Incident {
            return Ok(Evidence::new(
                "after an incident revoked sessions stay revoked",
            ));
        }
        let Some(mark) = self.mark(cx).map_err(failed)? else {
            return Ok(Evidence::new("no session was revoked"));
        };
        let mut session = self.session(cx).await.map_err(failed)?;
        cx.fence().map_err(|e| failed(e.to_string()))?;
        // Every row that carries the mark, also one that was opened between the first listing and the revocation; a column
        // that is only true or false keeps no mark, so there the ids written down decide.
        let at = ServerTime::from_micros(mark.at_micros);
        let mut ids = session
            .sessions_revoked_at(&self.table(), at)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let now_open = session
            .open_sessions(&self.table())
            .await
            .map_err(|e| failed(e.to_string()))?;
        // The revocation is one statement: where one that was listed is still open and none carries the mark, it never
        // landed, and what else is closed by now was closed by its owner.
        if ids.is_empty() && mark.open.iter().any(|id| now_open.contains(id)) {
            return Ok(Evidence::new("no session was revoked"));
        }
        ids.extend(mark.open);
        ids.sort();
        ids.dedup();
        let revoked = Revoked { ids, at };
        let reopened = session
            .reopen_sessions(&self.table(), &revoked)
            .await
            .map_err(|e| failed(e.to_string()))?;
        Ok(Evidence::with(
            format!(
                "{} revoked sessions are open again, {} are not",
                reopened.open.len(),
                reopened.left.len()
            ),
            json!({"open": reopened.open, "left": reopened.left}),
        ))
    }
}

impl Step for AppSessions {
    fn name(&self) -> StepName {
        names::APP_SESSIONS.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        // The mark makes the act the same however often it runs, so looking first would prove nothing more.
        Box::pin(async { Observed::Overlap })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(self.revoke(cx))
    }

    fn confirm<'a>(
        &'a self,
        cx: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let unknown = |e: String| ConfirmError::Unknown(self.world.clean(&e));
            let session = self.session(cx).await.map_err(unknown)?;
            let open = session
                .open_sessions(&self.table())
                .await
                .map_err(|e| unknown(e.to_string()))?;
            self.world.sessions.put(session);
            let revoked: Vec<&str> = receipt["ids"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str())
                .collect();
            if let Some(still) = revoked.iter().find(|id| open.iter().any(|o| o == *id)) {
                return Err(ConfirmError::Refuted(format!(
                    "session {still} is still open"
                )));
            }
            Ok(Evidence::with(
                format!("{} open sessions were revoked", revoked.len()),
                receipt.clone(),
            ))
        })
    }
}

impl Compensate for AppSessions {
    fn undo<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(self.reopen(cx))
    }
}
