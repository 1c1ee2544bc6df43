//! The end of grace windows: the previous values leave the application's settings, when somebody says that their time is over.
//!
//! Nothing else closes a window. Its length is what a provider is given at least; whether the provider has cut over is seen in its
//! dashboard, by a person. So this is an operation of its own, with the same journal, proof and way back as a rotation.

use keyroll_journal::RotationId;

use crate::error::{Code, Refusal, RotateError};
use crate::operations::{Control, Keyroll, Request};
use crate::preflight;
use crate::report::{Outcome, PlanReport, Progress};

impl Keyroll {
    /// Ends the grace windows of these secrets and groups, of all secrets where none is named. Refused where none is open.
    ///
    /// If an event that is signed with a previous value is still accepted afterwards, or one that is signed with the present value is not,
    /// the previous values are put back.
    pub async fn finalize(
        &self,
        names: &[String],
        progress: &dyn Progress,
        approve: &(dyn Fn(&PlanReport) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        let (journal, lock) = self.open_alone()?;
        let identity = self.identity()?;
        let graced = |name: &String| {
            let spec = &self.profile.secrets[name];
            spec.previous.is_some() || spec.make.is_some()
        };
        let names: Vec<String> = if names.is_empty() {
            self.profile
                .secrets
                .keys()
                .filter(|n| graced(n))
                .cloned()
                .collect()
        } else {
            preflight::select(&self.profile, names)?
        };
        if let Some(other) = names.iter().find(|name| !graced(name)) {
            let what = format!(
                "{other} has no grace window: the profile names no setting of its previous value"
            );
            return Err(Refusal::new(
                Code::Grace,
                what,
                "name those that have one, or none for all",
            )
            .into());
        }
        let request = Request {
            names,
            ..Request::default()
        };
        let windows = preflight::Windows {
            profile: &self.profile,
            operator: &self.operator,
            names: &request.names,
        };
        let ready = windows.look(&journal, &identity, progress).await;
        let (journal, ready) = self.recorded(journal, &lock, &request, ready)?;
        self.carry_out(journal, &lock, identity, ready, progress, approve, control)
            .await
    }
}

/// Whether this rotation only ended grace windows: there is nothing to take back then.
pub(crate) fn nothing_to_take_back(rotation: &RotationId) -> RotateError {
    let what = format!("{rotation} replaced no value: it ended grace windows, or made a token");
    Refusal::new(
        Code::Expired,
        what,
        "take the rotation back that put the new value in force",
    )
    .into()
}
