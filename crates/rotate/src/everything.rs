//! Rotating everything at once, as after an incident.
//!
//! Whoever was on the host may have read all of it. What is rotated is what the stack uses, and not what the profile could rotate: a
//! payment provider without a key in the settings is nobody's harm. What most harm can be done with is named first, in the plan and
//! where values are asked for.

use crate::error::RotateError;
use crate::operations::{Keyroll, Request};
use crate::preflight;
use crate::profile::SecretKind;
use crate::report::Progress;

/// What a rotation of everything is of.
#[derive(Debug, Clone)]
pub struct Everything {
    /// The secrets that the stack uses, the worst first.
    pub names: Vec<String>,
    /// Those that need a value from their providers, which was not given.
    pub needs_value: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// What somebody can do with a value that has leaked, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// Whole machines are in reach.
    Machines,
    /// All data is.
    Data,
    /// Anybody's account is.
    Accounts,
    /// Money, or what was never paid for.
    Money,
    /// What nobody but this profile knows.
    Unknown,
    /// Words in another's name.
    Words,
}

impl Harm {
    fn of(kind: SecretKind) -> Self {
        match kind {
            SecretKind::ProxmoxToken => Self::Machines,
            SecretKind::PostgresPassword => Self::Data,
            SecretKind::AdminPassword
            | SecretKind::AccessTokenKey
            | SecretKind::RefreshTokenKey => Self::Accounts,
            SecretKind::PaystackKey
            | SecretKind::FlutterwaveKey
            | SecretKind::FlutterwaveWebhookHash
            | SecretKind::FlutterwaveClientSecret
            | SecretKind::FlutterwaveWebhookSecret
            | SecretKind::StripeKey
            | SecretKind::StripeWebhookSecret => Self::Money,
            SecretKind::Environment => Self::Unknown,
            SecretKind::SlackUrl | SecretKind::DiscordUrl | SecretKind::TelegramToken => {
                Self::Words
            }
        }
    }
}

impl Keyroll {
    /// Every secret of the profile, the worst first.
    pub fn all_by_harm(&self) -> Vec<String> {
        let secrets = &self.profile.secrets;
        let mut names: Vec<String> = secrets.keys().cloned().collect();
        names.sort_by_key(|name| Harm::of(secrets[name].kind));
        names
    }

    /// What a rotation of everything would be of. Looks as [`Keyroll::plan`] does, and refuses what it refuses.
    pub async fn everything(
        &self,
        request: &Request,
        progress: &dyn Progress,
    ) -> Result<Everything, RotateError> {
        let left_out: Vec<String> = request.left_out.iter().cloned().collect();
        let left_out = preflight::select(&self.profile, &left_out)?;
        let mut names = self.all_by_harm();
        names.retain(|name| !left_out.contains(name));
        let request = Request {
            names,
            leave_out_unused: true,
            no_login: true,
            ..request.clone()
        };
        let plan = self.plan(&request, progress).await?;
        let names: Vec<String> = plan.secrets.into_iter().map(|s| s.name).collect();
        let needs = |name: &&String| {
            let spec = &self.profile.secrets[*name];
            let made = spec.make.is_some() || request.values.contains_key(*name);
            spec.kind.comes_from_outside() && !made
        };
        Ok(Everything {
            needs_value: names.iter().filter(needs).cloned().collect(),
            names,
            notes: plan.notes,
        })
    }
}
