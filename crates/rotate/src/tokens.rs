//! Proxmox tokens that keyroll makes itself, each by a rotation of its own before the one that puts it in force.
//!
//! So a value that cannot be sealed before it exists never meets a rotation whose values all are: the first makes the token and ends, the second knows its value from the
//! beginning. What the second does not use, because it was refused or went back, the next one takes or deletes.

use keyroll_journal::{Ending, Journal};

use crate::error::{Code, Refusal, RotateError};
use crate::operations::{Control, Keyroll, Request};
use crate::preflight::{self, Making, NewToken};
use crate::report::{Outcome, PlanReport, Progress};
use crate::steps::token::MADE;
use crate::world::kept;

impl Keyroll {
    /// Makes the tokens that the request needs and nobody has given, and adds them to it. The answer is how the making of one ended, where it is not Completed.
    pub(crate) async fn make_tokens(
        &self,
        request: &mut Request,
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Option<Outcome>, RotateError> {
        // A name that is none is refused by the rotation itself, which records it.
        let Ok(mut names) = preflight::select(&self.profile, &request.names) else {
            return Ok(None);
        };
        if request.regenerate {
            let ended = self.regenerate(request, &names, progress, approve, control);
            return ended.await.map(Some);
        }
        names.retain(|name| {
            self.profile.secrets[name].make.is_some() && !request.values.contains_key(name)
        });
        for name in names {
            let (journal, lock) = self.open_alone()?;
            let identity = self.identity()?;
            let token = NewToken {
                profile: &self.profile,
                operator: &self.operator,
                name: &name,
                in_place: false,
            };
            let looked = token.look(&journal, &identity, progress).await;
            let making = match looked {
                Ok(making) => making,
                Err(refused) => {
                    return self
                        .recorded(journal, &lock, request, Err(refused))
                        .map(|_| None);
                }
            };
            let (id, value) = match making {
                Making::There { id, value } => (id, value),
                Making::Ready(ready) => {
                    let made = ready.about.makes.as_ref().map(|m| m.id.clone());
                    let made = made.unwrap_or_default();
                    let carried = self
                        .carry_out(journal, &lock, identity, *ready, progress, approve, control);
                    let outcome = carried.await?;
                    if outcome.ending != Ending::Completed {
                        return Ok(Some(outcome));
                    }
                    let journal = Journal::open(&self.profile.paths.state)?;
                    let value = kept(&journal, &self.identity()?, &outcome.rotation, MADE);
                    let value = value.map_err(RotateError::Failed)?;
                    let lost = || RotateError::Failed(format!("the value of {made} is not sealed"));
                    (made.clone(), value.ok_or_else(lost)?)
                }
            };
            request.values.insert(name.clone(), value);
            request.token_ids.insert(name, id);
        }
        Ok(None)
    }

    /// Gives the one token that the request names another value in place.
    async fn regenerate(
        &self,
        request: &Request,
        names: &[String],
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        let refuse = |what: &str, next: &str| Refusal::new(Code::Selection, what, next);
        let [name] = names else {
            let what = "--regenerate kills a token's old value at once, with no way back";
            return Err(refuse(what, "rotate that one secret by itself").into());
        };
        if self.profile.secrets[name].make.is_none() || request.values.contains_key(name) {
            let what = format!("--regenerate: {name} is not a token that keyroll makes itself");
            let next = "it takes secrets.*.make in the profile, and no value";
            return Err(refuse(&what, next).into());
        }
        let (journal, lock) = self.open_alone()?;
        let identity = self.identity()?;
        let token = NewToken {
            profile: &self.profile,
            operator: &self.operator,
            name,
            in_place: true,
        };
        let looked = match token.look(&journal, &identity, progress).await {
            Ok(Making::Ready(ready)) => Ok(*ready),
            Ok(Making::There { .. }) => Err(RotateError::Failed(
                "a token of another rotation was found".to_owned(),
            )),
            Err(refused) => Err(refused),
        };
        let (journal, ready) = self.recorded(journal, &lock, request, looked)?;
        self.carry_out(journal, &lock, identity, ready, progress, approve, control)
            .await
    }
}
