//! What is known of a stack: versions, ages, each rotation, and one that is not finished.

use jiff::{SignedDuration, Timestamp};
use keyroll_journal::{
    Direction, Ending, Event, Journal, Record, Rotation, RotationId, StepName, VersionState,
};
use keyroll_saga::{Phase, StepState};

use crate::about::About;
use crate::error::{Code, Refusal, RotateError};
use crate::history::History;
use crate::operations::Keyroll;
use crate::profile::Profile;
use crate::report::{
    Happened, Next, SecretShown, SecretStatus, ShowReport, StatusReport, StepNow, UnfinishedReport,
    Window,
};
use crate::{cadence, in_force, recovery, restore, trail};

/// The phase of a rotation that ended on neither set.
const STUCK: &str = "stuck";

pub(crate) fn secret_status(
    journal: Option<&Journal>,
    profile: &Profile,
    name: &str,
    now: Timestamp,
) -> Result<SecretStatus, RotateError> {
    let spec = &profile.secrets[name];
    let versions = journal
        .map(|j| j.versions_of(name))
        .transpose()?
        .unwrap_or_default();
    let current = versions.iter().find(|v| v.state == VersionState::Current);
    let previous = versions.iter().find(|v| v.state == VersionState::Previous);
    // A value that keyroll only met has never been rotated by it: it was stored as current by the rotation that replaced it.
    let rotated = current.filter(|v| v.changed_at != v.made_at);
    // The value that was met first, and one more for each rotation that ended Completed.
    let mut completed = 0;
    for rotation in journal
        .map(Journal::rotations)
        .transpose()?
        .unwrap_or_default()
    {
        let about = About::of(&rotation)?;
        let rotated = !about.finalizes && about.secrets.iter().any(|s| s.name == name);
        completed += usize::from(rotated && rotation.ending == Some(Ending::Completed));
    }
    let rotated_at = rotated.map(|v| v.changed_at);
    Ok(SecretStatus {
        cadence: cadence::of(spec, &profile.schedule, rotated_at, now),
        name: name.to_owned(),
        version: completed + usize::from(current.is_some()),
        fingerprint: current.map(|v| v.fingerprint.clone()),
        rotated_at,
        age_days: rotated.map(|v| now.duration_since(v.changed_at).as_hours() / 24),
        rotation: rotated.map(|v| v.rotation.clone()),
        window: previous.map(|v| {
            let until = v.changed_at + SignedDuration::from_hours(i64::from(spec.grace_hours));
            Window {
                opened_at: v.changed_at,
                until,
                over: now >= until,
                previous: v.fingerprint.clone(),
                closes: format!("keyroll finalize {name}"),
            }
        }),
    })
}

/// Where an unfinished rotation stands, by its records.
pub(crate) fn unfinished_report(rotation: &Rotation, history: &History) -> UnfinishedReport {
    let History { about, state, .. } = history;
    let resume = |does: &str| Next {
        command: "keyroll resume".into(),
        does: does.into(),
    };
    let (phase, next) = match state.phase() {
        Phase::Forward => (
            "forward",
            vec![resume("goes on; it takes everything back if a step fails")],
        ),
        Phase::Backward { .. } => ("backward", vec![resume("goes on taking it back")]),
        Phase::Ended { .. } if state.pivot_may_have_landed() => (
            STUCK,
            vec![resume(
                "once what failed is mended: the new set is in force and proven, and the rest is done then",
            )],
        ),
        Phase::Ended { .. } => (STUCK, ways_out(about, &rotation.id)),
    };
    let reason = match history.records.last().map(|r| &r.event) {
        Some(Event::Ended { reason, .. }) => reason.clone(),
        _ => None,
    };
    UnfinishedReport {
        rotation: rotation.id.clone(),
        begun_at: rotation.begun_at,
        phase: phase.into(),
        reason,
        steps: steps_now(history),
        in_force: vec![],
        next,
    }
}

/// What an operator can do about a rotation that is between two sets.
fn ways_out(about: &About, id: &RotationId) -> Vec<Next> {
    let name = about.secrets.first().map_or("SECRET", |s| s.name.as_str());
    let next = |command: String, does: &str| Next {
        command,
        does: does.into(),
    };
    vec![
        next(
            "keyroll resume".into(),
            "once what failed is mended: it looks again, and tries again what it had given up",
        ),
        next(
            format!("keyroll reveal {name} --version current --to-file FILE"),
            "for putting a place into order by hand: `current` is the old value, `pending` the new one; recorded",
        ),
        next(
            format!("keyroll abandon {id} --because \"…\""),
            "if it cannot be mended: it is over then, every value stays sealed, and the next rotation can begin",
        ),
    ]
}

/// Where each step stands, in the plan's order.
fn steps_now(history: &History) -> Vec<StepNow> {
    let History {
        records,
        shape,
        state,
        ..
    } = history;
    let says = |s: &StepState| match s {
        StepState::Waiting => "waiting".to_owned(),
        StepState::Intended { .. } => "intended, may have landed".to_owned(),
        StepState::Applied { .. } => "applied".to_owned(),
        StepState::Confirmed { .. } => "confirmed".to_owned(),
        StepState::Failed { reason, .. } => format!("failed: {reason}"),
        StepState::Undoing { .. } => "undo intended".to_owned(),
        StepState::Undone { .. } => "undone".to_owned(),
        StepState::UndoFailed { reason } => format!("not undone: {reason}"),
    };
    let tries = |name: &StepName, way: Direction| {
        let intents = records.iter().filter(|r| {
            matches!(&r.event, Event::Intended { step, direction, .. } if step == name && *direction == way)
        });
        intents.count()
    };
    let now = |name: &StepName| StepNow {
        step: name.to_string(),
        state: says(state.step(name)),
        tries: tries(name, Direction::Forward),
        undo_tries: tries(name, Direction::Backward),
    };
    shape.names().map(now).collect()
}

impl Keyroll {
    /// What the journal knows, and what is in force where if a rotation is stuck. Looks, and changes nothing.
    pub async fn status(&self) -> Result<StatusReport, RotateError> {
        let profile = self.profile();
        let journal = self.journal()?;
        let mut report = StatusReport {
            stack: profile.name.clone(),
            secrets: vec![],
            unfinished: None,
            unfinished_restore: None,
            stale_by_choice: vec![],
        };
        for name in profile.secrets.keys() {
            let status = secret_status(journal.as_ref(), profile, name, Timestamp::now())?;
            report.secrets.push(status);
        }
        if let Some(journal) = &journal {
            report.stale_by_choice = journal.stale()?.into_iter().map(|s| s.service).collect();
            if let Some(rotation) = journal.unfinished()? {
                let history = History::of(journal, &rotation)?;
                report.unfinished = Some(self.unfinished(journal, &rotation, &history).await);
            }
            report.unfinished_restore = restore::unfinished(&journal.restores()?)?;
        }
        Ok(report)
    }

    /// All that is known of a rotation: the one that is named, else the unfinished one, else the last. Changes nothing.
    pub async fn show(&self, rotation: Option<&RotationId>) -> Result<ShowReport, RotateError> {
        let none = || {
            let what = "there has been no rotation here".to_owned();
            RotateError::from(Refusal::new(Code::Selection, what, "see `keyroll plan`"))
        };
        let journal = self.journal()?.ok_or_else(none)?;
        let open = journal.unfinished()?;
        let found = match rotation {
            Some(id) => Some(journal.rotation(id)?),
            None => match &open {
                Some(unfinished) => Some(unfinished.clone()),
                None => journal.last_rotation()?,
            },
        };
        let rotation = found.ok_or_else(none)?;
        let history = History::of(&journal, &rotation)?;
        let unfinished = match open {
            Some(open) if open.id == rotation.id => {
                Some(self.unfinished(&journal, &rotation, &history).await)
            }
            _ => None,
        };
        let steps = steps_now(&history);
        let History {
            about,
            records,
            state,
            ..
        } = history;
        Ok(ShowReport {
            stack: about.profile.name.clone(),
            begun_at: rotation.begun_at,
            operator: about.operator.to_string(),
            why: about.reason.as_str().into(),
            takes_back: about.takes_back.clone(),
            ending: state.phase().ending(),
            secrets: secrets(&journal, &rotation.id, &about)?,
            steps,
            events: records.iter().filter_map(happened).collect(),
            backup: trail::backup_of(&records).map(|b| b.directory.into()),
            unfinished,
            rotation: rotation.id,
        })
    }

    /// The journal, if there is one; none is made.
    pub(crate) fn journal(&self) -> Result<Option<Journal>, RotateError> {
        let state = &self.profile().paths.state;
        if !Journal::exists(state) {
            return Ok(None);
        }
        Ok(Some(Journal::open(state)?))
    }

    async fn unfinished(
        &self,
        journal: &Journal,
        rotation: &Rotation,
        history: &History,
    ) -> UnfinishedReport {
        let mut report = unfinished_report(rotation, history);
        // Only then does somebody have to know: everything else goes on by itself.
        if report.phase == STUCK {
            let about = &history.about;
            let identity = self.identity().map_err(|e| e.to_string());
            report.in_force = match &identity {
                Ok(identity) => {
                    let world = recovery::read_back(journal, identity, &rotation.id, about).await;
                    let world = world.as_ref().map_err(String::as_str);
                    in_force::everywhere(about, identity, world, journal, &rotation.id).await
                }
                Err(why) => in_force::nowhere(about, why),
            };
        }
        report
    }
}

/// What is sealed of each secret of a rotation.
pub(crate) fn secrets(
    journal: &Journal,
    id: &RotationId,
    about: &About,
) -> Result<Vec<SecretShown>, RotateError> {
    let mut all = vec![];
    for fact in &about.secrets {
        let versions = journal.versions_of(&fact.name)?;
        let sealed = |fingerprint: &str, own: bool| {
            versions.iter().any(|v| {
                v.fingerprint == fingerprint && v.sealed.is_some() && (!own || v.rotation == *id)
            })
        };
        all.push(SecretShown {
            name: fact.name.clone(),
            old: fact.old.clone(),
            new: fact.new.clone(),
            old_sealed: sealed(&fact.old, false),
            new_sealed: sealed(&fact.new, true),
        });
    }
    Ok(all)
}

/// What is worth telling of a record besides the steps' way forward.
fn happened(record: &Record) -> Option<Happened> {
    let what = match &record.event {
        Event::Failed {
            step,
            reason,
            may_have_landed,
        } => {
            let landed = if *may_have_landed {
                " (it may have taken effect)"
            } else {
                ""
            };
            format!("{step} failed{landed}: {reason}")
        }
        Event::TurnedBack { reason } => format!("turned back: {reason}"),
        Event::Undone { step, evidence } => format!("{step} undone: {}", evidence.says),
        Event::UndoFailed { step, reason } => format!("{step} not undone: {reason}"),
        Event::Resumed { by } => format!("resumed by {by}"),
        Event::Ended { ending, reason } => match reason {
            Some(reason) => format!("ended {ending}: {reason}"),
            None => format!("ended {ending}"),
        },
        _ => return None,
    };
    Some(Happened {
        at: record.at,
        what,
    })
}
