//! Showing a value: the last resort of somebody who has to put a place into order by hand.
//!
//! Whoever is root on this host can open what is sealed anyway. What this adds is that it is recorded: the trail has its line
//! before the value leaves, so there is no way to see one through keyroll that the trail does not know of.

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{Body, Revealed, system_journal};
use keyroll_journal::{Journal, RotationId, Version, VersionState};
use keyroll_secret::Secret;

use crate::about::{About, SecretFact};
use crate::error::{Code, Refusal, RotateError};
use crate::operations::Keyroll;
use crate::report::Progress;
use crate::trail::{self, going_on};

/// Which version of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What a rotation rotates to.
    Pending,
    /// What is in force, by the journal's view: the old value while a rotation is unfinished.
    Current,
    /// What was in force before that.
    Previous,
}

impl Which {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// A value that was shown, and what the trail says of it.
#[derive(Debug)]
pub struct Shown {
    /// The value.
    pub value: Secret,
    /// Its keyed fingerprint.
    pub fingerprint: String,
    /// The trail's head behind the record.
    pub head: String,
    /// What is wrong besides, such as a damaged trail.
    pub found: Vec<String>,
}

impl Keyroll {
    /// Opens a sealed value and records that, in this order: a value is given only when the trail has the record.
    ///
    /// With a rotation, the versions are as they were while it ran: `Pending` is what it rotated to, `Current` what it replaced.
    /// Refused while another keyroll works on the stack.
    pub fn reveal(
        &self,
        secret: &str,
        which: Which,
        rotation: Option<&RotationId>,
        because: &str,
        progress: &dyn Progress,
    ) -> Result<Shown, RotateError> {
        let profile = self.profile();
        if !profile.secrets.contains_key(secret) {
            let names: Vec<&str> = profile.secrets.keys().map(String::as_str).collect();
            let what = format!("{secret} is no secret of the profile {}", profile.name);
            let next = format!("it has {}", names.join(", "));
            return Err(Refusal::new(Code::Selection, what, next).into());
        }
        if !Journal::exists(&profile.paths.state) {
            return Err(absent(secret, which, "there has been no rotation here"));
        }
        let (journal, lock, damage) = self.open_with_any_trail()?;
        let damage = damage.map(|broken| going_on(progress, &broken));
        let identity = self.identity()?;
        let version = find(&journal, secret, which, rotation)?;
        let version = version.ok_or_else(|| {
            let why =
                "the state database has no such version; see `keyroll status` and `keyroll show`";
            absent(secret, which, why)
        })?;
        let Some(sealed) = &version.sealed else {
            let why = format!(
                "it was retired at {} and is no longer kept (limits.keep_days)",
                version.changed_at
            );
            return Err(absent(secret, which, &why));
        };
        let value = identity
            .open_secret(sealed)
            .map_err(|e| RotateError::Failed(e.to_string()))?;
        let writer = journal.take_over(&lock)?;
        let body = Body::Reveal(Revealed {
            secret: secret.to_owned(),
            version: rotation.map_or_else(
                || which.as_str().to_owned(),
                |id| format!("{} of {id}", which.as_str()),
            ),
            fingerprint: version.fingerprint.clone(),
            operator: (&self.operator).into(),
            reason: because.to_owned(),
        });
        let socket = Path::new(system_journal::SOCKET);
        let (head, _) = trail::append(&writer, body, socket, Timestamp::now()).map_err(|e| {
            RotateError::Failed(format!("{e}: it is not in the trail, so it is not shown"))
        })?;
        Ok(Shown {
            value,
            fingerprint: version.fingerprint,
            head: head.to_string(),
            found: damage.into_iter().collect(),
        })
    }
}

fn absent(secret: &str, which: Which, why: &str) -> RotateError {
    let what = format!("{secret} has no {} version", which.as_str());
    Refusal::new(Code::Selection, what, why).into()
}

fn find(
    journal: &Journal,
    secret: &str,
    which: Which,
    rotation: Option<&RotationId>,
) -> Result<Option<Version>, RotateError> {
    let all = journal.versions_of(secret)?;
    let in_state = |state| all.iter().rev().find(|v| v.state == state);
    let found = match (rotation, which) {
        (None, Which::Pending) => in_state(VersionState::Pending),
        (None, Which::Current) => in_state(VersionState::Current),
        (None, Which::Previous) => match in_state(VersionState::Previous) {
            Some(previous) => Some(previous),
            None => match in_state(VersionState::Current) {
                Some(current) => replaced(journal, current, &all)?,
                None => None,
            },
        },
        (Some(id), _) => {
            let about = About::of(&journal.rotation(id)?)?;
            let fact = about.secrets.iter().find(|s| s.name == secret);
            let value = |fact: &SecretFact| match which {
                Which::Pending => Some(fact.new.clone()),
                Which::Current => Some(fact.old.clone()),
                Which::Previous => None,
            };
            fact.and_then(value).and_then(|print| sealed(&all, &print))
        }
    };
    Ok(found.cloned())
}

/// The version that the rotation to this one replaced. Not simply the last retired one: a value that never came into force is
/// retired too.
fn replaced<'a>(
    journal: &Journal,
    current: &Version,
    all: &'a [Version],
) -> Result<Option<&'a Version>, RotateError> {
    let about = About::of(&journal.rotation(&current.rotation)?)?;
    let fact = about
        .secrets
        .iter()
        .find(|s| s.name == current.secret && s.new == current.fingerprint);
    Ok(fact.and_then(|fact| sealed(all, &fact.old)))
}

/// The latest version of this fingerprint, one that is still sealed if there is one.
fn sealed<'a>(all: &'a [Version], fingerprint: &str) -> Option<&'a Version> {
    let same = || all.iter().rev().filter(|v| v.fingerprint == fingerprint);
    same()
        .find(|v| v.sealed.is_some())
        .or_else(|| same().next())
}
