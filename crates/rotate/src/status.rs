//! What the journal knows of a stack: versions, ages, and a rotation that is not finished.

use jiff::Timestamp;
use keyroll_journal::{Ending, Journal, Rotation, VersionState};
use keyroll_saga::{State, StepState};

use crate::about::About;
use crate::error::RotateError;
use crate::profile::Profile;
use crate::report::{SecretStatus, StatusReport, UnfinishedReport};
use crate::steps;

/// Reads the journal, if there is one, and makes nothing.
pub(crate) fn of(profile: &Profile) -> Result<StatusReport, RotateError> {
    let mut report = StatusReport {
        stack: profile.name.clone(),
        secrets: vec![],
        unfinished: None,
        stale_by_choice: vec![],
    };
    let journal = if Journal::exists(&profile.paths.state) {
        Some(Journal::open(&profile.paths.state)?)
    } else {
        None
    };
    for name in profile.secrets.keys() {
        report.secrets.push(secret_status(journal.as_ref(), name)?);
    }
    if let Some(journal) = &journal {
        report.stale_by_choice = journal.stale()?.into_iter().map(|s| s.service).collect();
        if let Some(rotation) = journal.unfinished()? {
            report.unfinished = Some(unfinished_report(journal, &rotation)?);
        }
    }
    Ok(report)
}

fn secret_status(journal: Option<&Journal>, name: &str) -> Result<SecretStatus, RotateError> {
    let versions = journal
        .map(|j| j.versions_of(name))
        .transpose()?
        .unwrap_or_default();
    let current = versions.iter().find(|v| v.state == VersionState::Current);
    // A value that keyroll only met has never been rotated by it: it was stored as current by the rotation that replaced it.
    let rotated = current.filter(|v| v.changed_at != v.made_at);
    let now = Timestamp::now();
    // The value that was met first, and one more for each rotation that ended Completed.
    let mut completed = 0;
    for rotation in journal
        .map(Journal::rotations)
        .transpose()?
        .unwrap_or_default()
    {
        let about = About::of(&rotation)?;
        let rotated = about.secrets.iter().any(|s| s.name == name);
        completed += usize::from(rotated && rotation.ending == Some(Ending::Completed));
    }
    Ok(SecretStatus {
        name: name.to_owned(),
        version: completed + usize::from(current.is_some()),
        fingerprint: current.map(|v| v.fingerprint.clone()),
        rotated_at: rotated.map(|v| v.changed_at),
        age_days: rotated.map(|v| now.duration_since(v.changed_at).as_hours() / 24),
        rotation: rotated.map(|v| v.rotation.clone()),
    })
}

fn unfinished_report(
    journal: &Journal,
    rotation: &Rotation,
) -> Result<UnfinishedReport, RotateError> {
    let records = journal.records(&rotation.id)?;
    let about = About::of(rotation)?;
    let shape = steps::shape(&about);
    let state = State::replay(&shape, records.iter().map(|r| &r.event))
        .map_err(|e| RotateError::Failed(e.to_string()))?;
    let (phase, next) = match state.phase() {
        keyroll_saga::Phase::Forward => (
            "forward",
            "`keyroll resume` goes on; it takes everything back if a step fails",
        ),
        keyroll_saga::Phase::Backward { .. } => {
            ("backward", "`keyroll resume` goes on taking it back")
        }
        keyroll_saga::Phase::Ended { .. } => (
            "stuck",
            "mend what the last record names, then `keyroll resume`",
        ),
    };
    let name = |s: &StepState| match s {
        StepState::Waiting => "waiting".to_owned(),
        StepState::Intended { .. } => "intended, may have landed".to_owned(),
        StepState::Applied { .. } => "applied".to_owned(),
        StepState::Confirmed { .. } => "confirmed".to_owned(),
        StepState::Failed { reason, .. } => format!("failed: {reason}"),
        StepState::Undoing { .. } => "undo intended".to_owned(),
        StepState::Undone { .. } => "undone".to_owned(),
        StepState::UndoFailed { reason } => format!("not undone: {reason}"),
    };
    Ok(UnfinishedReport {
        rotation: rotation.id.clone(),
        begun_at: rotation.begun_at,
        phase: phase.into(),
        steps: shape
            .names()
            .map(|n| (n.to_string(), name(state.step(n))))
            .collect(),
        next: next.into(),
    })
}
