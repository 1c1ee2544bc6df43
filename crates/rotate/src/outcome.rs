//! An ended rotation, told from its records.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_journal::{Ending, Event, Journal, RotationId, StepName};
use keyroll_saga::{State, StepState};

use crate::about::{About, Reason};
use crate::error::RotateError;
use crate::report::{Outcome, StepReport};
use crate::steps::{self, names};
use crate::trail;

pub(crate) fn of(
    journal: &Journal,
    id: &RotationId,
    ending: Ending,
) -> Result<Outcome, RotateError> {
    let rotation = journal.rotation(id)?;
    let about = About::of(&rotation)?;
    let records = journal.records(id)?;
    let mut since: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut told_steps = vec![];
    let (mut reason, mut summary) = (None, None);
    for record in &records {
        let mut told = |step: &StepName, outcome: &str, says: &str| {
            let began = since.get(step.as_str()).copied().unwrap_or(record.at);
            told_steps.push(StepReport {
                step: step.to_string(),
                outcome: outcome.into(),
                says: says.into(),
                at: record.at,
                seconds: record.at.duration_since(began).as_secs_f64(),
            });
        };
        match &record.event {
            Event::Intended {
                step, attempt: 1, ..
            } => {
                since.insert(step.to_string(), record.at);
            }
            Event::Applied { step, receipt, .. } if step.as_str() == names::SUMMARY => {
                summary = receipt["path"].as_str().map(PathBuf::from);
            }
            Event::Confirmed { step, evidence } => told(step, "confirmed", &evidence.says),
            Event::Failed { step, reason, .. } => told(step, "failed", reason),
            Event::Undone { step, evidence } => told(step, "undone", &evidence.says),
            Event::UndoFailed { step, reason } => told(step, "undo failed", reason),
            Event::Ended { reason: why, .. } => reason.clone_from(why),
            _ => {}
        }
    }
    let shape = steps::shape(&about);
    // Nothing can be said of records that do not fit: they were refused before anything was done.
    let state = State::replay(&shape, records.iter().map(|r| &r.event)).ok();
    let state = state.filter(State::pivot_may_have_landed);
    let confirmed = |n: &&StepName| {
        let state = state.as_ref();
        state.is_none_or(|s| matches!(s.step(n), StepState::Confirmed { .. }))
    };
    let after = [&shape.pivot].into_iter().chain(&shape.after);
    let left = after.filter(|n| !confirmed(n)).map(ToString::to_string);
    let end = records.last().map_or(rotation.begun_at, |r| r.at);
    Ok(Outcome {
        rotation: id.clone(),
        ending,
        reason,
        incident: about.reason == Reason::Incident,
        graced: about.graced(),
        finalizes: about.finalizes,
        made: about.made(),
        regenerated: about.regenerated(),
        backup: trail::backup_of(&records).map(|b| b.directory.into()),
        summary,
        past_no_return: state.is_some(),
        left: left.collect(),
        found: vec![],
        steps: told_steps,
        begun_at: rotation.begun_at,
        seconds: end.duration_since(rotation.begun_at).as_secs_f64(),
    })
}
