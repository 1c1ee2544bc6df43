//! The trail's record of a rotation, made from the journal.

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{
    Body, Head, Record, Refused, RollbackEvent, Rotated, RotatedSecret, StepOutcome, StepTrail,
    system_journal,
};
use keyroll_journal::{Ending, Event, Journal, Record as JournalRecord, Rotation, Writer};

use crate::about::{About, Operator};
use crate::error::Refusal;
use crate::operations::Request;
use crate::steps::names;

impl From<&Operator> for keyroll_audit::Operator {
    fn from(operator: &Operator) -> Self {
        Self {
            login: Some(operator.login.clone()),
            sudo_user: operator.sudo_user.clone(),
            host: operator.host.clone(),
            given: operator.given.clone(),
        }
    }
}

fn ending(ending: Ending) -> keyroll_audit::Ending {
    match ending {
        Ending::Completed => keyroll_audit::Ending::Completed,
        Ending::Compensated => keyroll_audit::Ending::Compensated,
        Ending::Stuck => keyroll_audit::Ending::Stuck,
        Ending::Abandoned => keyroll_audit::Ending::Abandoned,
    }
}

/// The backup that a rotation's records tell of.
pub(crate) fn backup_of(records: &[JournalRecord]) -> Option<keyroll_audit::Backup> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::Applied { step, receipt, .. } if step.as_str() == names::BACKUP => {
            Some(keyroll_audit::Backup {
                directory: receipt["directory"].as_str()?.to_owned(),
                manifest_sha256: receipt["manifest_sha256"].as_str()?.to_owned(),
            })
        }
        _ => None,
    })
}

fn steps(records: &[JournalRecord]) -> (Vec<StepTrail>, Vec<RollbackEvent>) {
    let (mut steps, mut rollback): (Vec<StepTrail>, Vec<RollbackEvent>) = (vec![], vec![]);
    let mut set = |name: &str, outcome, at, evidence: String, facts| {
        let entry = StepTrail {
            name: name.to_owned(),
            outcome,
            at,
            evidence,
            facts,
        };
        match steps.iter_mut().find(|s| s.name == name) {
            Some(there) => *there = entry,
            None => steps.push(entry),
        }
    };
    for JournalRecord { at, event, .. } in records {
        let at = *at;
        let mut back = |step: Option<&str>, says: String, facts| {
            rollback.push(RollbackEvent {
                at,
                step: step.map(str::to_owned),
                says,
                facts,
            });
        };
        let none = serde_json::Value::Null;
        match event {
            Event::Confirmed { step, evidence } => {
                set(
                    step.as_str(),
                    StepOutcome::Confirmed,
                    at,
                    evidence.says.clone(),
                    evidence.facts.clone(),
                );
            }
            Event::Failed { step, reason, .. } => {
                set(step.as_str(), StepOutcome::Failed, at, reason.clone(), none);
            }
            Event::TurnedBack { reason } => back(None, format!("turned back: {reason}"), none),
            Event::Undone { step, evidence } => {
                back(
                    Some(step.as_str()),
                    evidence.says.clone(),
                    evidence.facts.clone(),
                );
                set(
                    step.as_str(),
                    StepOutcome::Undone,
                    at,
                    evidence.says.clone(),
                    evidence.facts.clone(),
                );
            }
            Event::UndoFailed { step, reason } => {
                back(Some(step.as_str()), reason.clone(), none.clone());
                set(
                    step.as_str(),
                    StepOutcome::UndoFailed,
                    at,
                    reason.clone(),
                    none,
                );
            }
            _ => {}
        }
    }
    (steps, rollback)
}

/// What the trail says of a rotation that ends like this, now.
pub(crate) fn rotated(
    rotation: &Rotation,
    about: &About,
    records: &[JournalRecord],
    how: Ending,
    why: Option<String>,
    now: Timestamp,
) -> Body {
    let (steps, rollback) = steps(records);
    Body::Rotation(Box::new(Rotated {
        rotation: rotation.id.to_string(),
        stack: about.profile.name.clone(),
        started: rotation.begun_at,
        ended: now,
        operator: (&about.operator).into(),
        reason: about.reason.as_str().into(),
        overrides: about.accepted.clone(),
        takes_back: about.takes_back.as_ref().map(ToString::to_string),
        secrets: about
            .secrets
            .iter()
            .map(|s| RotatedSecret {
                name: s.name.clone(),
                old: Some(s.old.clone()),
                new: Some(s.new.clone()),
            })
            .collect(),
        backup: backup_of(records),
        steps,
        rollback,
        ending: ending(how),
        why,
    }))
}

/// What the trail says of a rotation that preflight refused.
pub(crate) fn refused(
    stack: &str,
    operator: &Operator,
    request: &Request,
    refusals: &[Refusal],
) -> Body {
    Body::Refused(Refused {
        stack: stack.to_owned(),
        operator: operator.into(),
        secrets: request.names.clone(),
        reason: request.reason.as_str().into(),
        findings: refusals
            .iter()
            .map(|r| format!("{}: {}", r.code, r.what))
            .collect(),
    })
}

/// The last record of the trail about this rotation, if there is one.
pub(crate) fn find(
    journal: &Journal,
    rotation: &str,
    how: Ending,
) -> Result<Option<Record>, String> {
    let lines = journal.audit().map_err(|e| e.to_string())?;
    let records = lines
        .iter()
        .rev()
        .filter_map(|line| Record::parse(line).ok());
    Ok(records.into_iter().find(|record| match record.body() {
        Body::Rotation(r) => r.rotation == rotation && r.ending == ending(how),
        _ => false,
    }))
}

/// Appends a record, and tells the system journal its head. Gives the head, and whether the system journal has it.
pub(crate) fn append(
    writer: &Writer,
    body: Body,
    socket: &Path,
    now: Timestamp,
) -> Result<(Head, bool), String> {
    let mut head = Head::none();
    writer
        .append_audit(|last| {
            let previous = Head::after(last).map_err(|e| e.to_string())?;
            let record = Record::chain(&previous, body, now);
            head = record.head();
            Ok(record.line().to_owned())
        })
        .map_err(|e| e.to_string())?;
    let text = format!("keyroll trail head {head}");
    let fields = [
        ("MESSAGE", text.as_str()),
        ("SYSLOG_IDENTIFIER", "keyroll"),
        ("PRIORITY", "5"),
        ("KEYROLL_HEAD", &head.to_string()),
    ];
    let told = matches!(
        system_journal::send(socket, &fields),
        Ok(system_journal::Delivery::Sent)
    );
    Ok((head, told))
}
