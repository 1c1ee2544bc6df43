//! The trail's record of a rotation, made from the journal.

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{
    Abandoned, Body, Head, Record, Refused, RollbackEvent, Rotated, RotatedSecret, StepOutcome,
    StepTrail, system_journal,
};
use keyroll_journal::{
    Ending, Event, Journal, JournalError, Record as JournalRecord, Rotation, Writer,
};

use crate::about::{About, Operator};
use crate::error::{Code, Refusal, RotateError};
use crate::operations::Request;
use crate::report::Progress;
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

/// The trail does not verify, and nothing is begun on top of it.
pub(crate) fn damaged(broken: String) -> RotateError {
    let next = "see `keyroll audit verify`; keep a copy of the state directory";
    Refusal::new(Code::State, broken, next).into()
}

/// Says that the trail is damaged, and gives what the report says of it.
pub(crate) fn going_on(progress: &dyn Progress, broken: &str) -> String {
    let text = format!("{broken}; keep a copy of the state directory, see `keyroll audit verify`");
    progress.doing(&format!("{text}; going on all the same"));
    text
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

/// What the trail says of a rotation that ended like this, then.
pub(crate) fn rotated(
    rotation: &Rotation,
    about: &About,
    records: &[JournalRecord],
    how: Ending,
    why: Option<String>,
    ended: Timestamp,
) -> Body {
    let (steps, rollback) = steps(records);
    Body::Rotation(Box::new(Rotated {
        rotation: rotation.id.to_string(),
        stack: about.profile.name.clone(),
        started: rotation.begun_at,
        ended,
        operator: (&about.operator).into(),
        reason: about.reason.as_str().into(),
        overrides: about
            .accepted
            .iter()
            .chain(&about.waived)
            .cloned()
            .collect(),
        validated: about.validated.clone(),
        takes_back: about.takes_back.as_ref().map(ToString::to_string),
        finalizes: about.finalizes,
        made: about.made(),
        regenerated: about.regenerated(),
        secrets: secrets(about),
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

/// What the trail says of a rotation that an operator declared to be over. `in_force` names the secrets whose new value the
/// env file held then.
pub(crate) fn abandoned(
    rotation: &Rotation,
    about: &About,
    by: keyroll_audit::Operator,
    why: String,
    in_force: Vec<String>,
) -> Body {
    Body::Abandoned(Abandoned {
        rotation: rotation.id.to_string(),
        operator: by,
        reason: why,
        secrets: secrets(about),
        in_force,
    })
}

fn secrets(about: &About) -> Vec<RotatedSecret> {
    let own = about.secrets.iter().map(|s| RotatedSecret {
        name: s.name.clone(),
        old: Some(s.old.clone()),
        new: Some(s.new.clone()),
    });
    own.collect()
}

/// The rotation and the ending that a record tells of, and when that was.
fn told(body: &Body) -> Option<(&str, Told)> {
    match body {
        Body::Rotation(r) => Some((&r.rotation, Told(r.ending, Some(r.ended)))),
        Body::Abandoned(a) => Some((&a.rotation, Told(keyroll_audit::Ending::Abandoned, None))),
        _ => None,
    }
}

/// The trail's last word about a rotation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told(keyroll_audit::Ending, Option<Timestamp>);

impl Told {
    /// Whether it is about this ending. A rotation ends once, but it can be stuck several times: those differ by their time.
    pub(crate) fn is(self, how: Ending, ended: Timestamp) -> bool {
        self.0 == ending(how) && (how != Ending::Stuck || self.1 == Some(ended))
    }
}

/// The trail's last record about this rotation, if it has one.
fn last_of(journal: &Journal, rotation: &str) -> Result<Option<Record>, JournalError> {
    let lines = journal.audit()?;
    // Reading a record costs far more than looking for the name in it.
    let naming = lines.iter().rev().filter(|line| line.contains(rotation));
    let mut records = naming.filter_map(|line| Record::parse(line).ok());
    Ok(records.find(|record| told(record.body()).is_some_and(|(id, _)| id == rotation)))
}

/// The trail's last word about this rotation.
pub(crate) fn last_word(journal: &Journal, rotation: &str) -> Result<Option<Told>, JournalError> {
    let last = last_of(journal, rotation)?;
    Ok(last.and_then(|record| Some(told(record.body())?.1)))
}

/// The last record of the trail about how this rotation ended, if that is how. An older one does not count: what was told
/// since took it back.
pub(crate) fn find(
    journal: &Journal,
    rotation: &str,
    how: Ending,
) -> Result<Option<Record>, String> {
    let last = last_of(journal, rotation).map_err(|e| e.to_string())?;
    Ok(last.filter(|record| told(record.body()).is_some_and(|(_, t)| t.0 == ending(how))))
}

/// Appends a record, and tells the system journal its head. Gives the head, and whether the system journal has it.
pub(crate) fn append(
    writer: &Writer,
    body: Body,
    socket: &Path,
    now: Timestamp,
) -> Result<(Head, bool), String> {
    chain(body, socket, now, |make| writer.append_audit(make))
}

/// The same for a part of a restore, which is closed in the same commit.
pub(crate) fn append_restore(
    writer: &Writer,
    part: &str,
    body: Body,
    socket: &Path,
    now: Timestamp,
) -> Result<(Head, bool), String> {
    chain(body, socket, now, |make| writer.record_restore(part, make))
}

type Make<'a> = Box<dyn FnOnce(Option<&str>) -> Result<String, String> + 'a>;

fn chain(
    body: Body,
    socket: &Path,
    now: Timestamp,
    commit: impl FnOnce(Make<'_>) -> Result<(), JournalError>,
) -> Result<(Head, bool), String> {
    let mut head = Head::none();
    commit(Box::new(|last| {
        let previous = Head::after(last).map_err(|e| e.to_string())?;
        let record = Record::chain(&previous, body, now);
        head = record.head();
        Ok(record.line().to_owned())
    }))
    .map_err(|e| e.to_string())?;
    let told = tell(socket, &head);
    Ok((head, told))
}

/// Tells the system journal the head once more. Whoever appended the record may have been killed before it could.
pub(crate) fn tell_again(record: &Record, socket: &Path) -> bool {
    tell(socket, &record.head())
}

/// Tells the system journal a head, and gives whether it has it. Once more does no harm.
fn tell(socket: &Path, head: &Head) -> bool {
    let text = format!("keyroll trail head {head}");
    let fields = [
        ("MESSAGE", text.as_str()),
        ("SYSLOG_IDENTIFIER", "keyroll"),
        ("PRIORITY", "5"),
        ("KEYROLL_HEAD", &head.to_string()),
    ];
    matches!(
        system_journal::send(socket, &fields),
        Ok(system_journal::Delivery::Sent)
    )
}
