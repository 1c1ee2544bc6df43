//! A record as plain data, for whoever prints it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{Body, Operator, Record, Rotated, RotatedSecret};

/// A record as a person reads it: a headline, facts with their names, and the steps as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// One line.
    pub headline: String,
    /// Name and value, in the order of reading; one name may come several times.
    pub facts: Vec<(&'static str, String)>,
    /// The steps of a rotation, and after them what happened on the way back.
    pub steps: Vec<ShownStep>,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownStep {
    /// When.
    pub at: Timestamp,
    /// The step's name; empty for the decision to turn back.
    pub name: String,
    /// What became of it.
    pub outcome: String,
    /// What was seen.
    pub evidence: String,
}

/// Makes a record readable. Complete: everything the record says is in the result, but the machine-readable facts of steps.
pub fn show(record: &Record) -> Shown {
    let mut shown = Shown {
        headline: String::new(),
        facts: Vec::new(),
        steps: Vec::new(),
    };
    let mut fact = |name, value: String| shown.facts.push((name, value));
    let number = record.sequence();
    shown.headline = match record.body() {
        Body::Rotation(rotation) => {
            rotation_facts(rotation, &mut fact);
            shown.steps = steps(rotation);
            if let Some(made) = &rotation.made {
                fact("made", made.clone());
            }
            if let Some(token) = &rotation.regenerated {
                fact("regenerated", token.clone());
            }
            let mut names: Vec<&str> = rotation.secrets.iter().map(|s| s.name.as_str()).collect();
            names.dedup();
            format!(
                "{number}  {}  {} of {} on {}",
                rotation.ending,
                match (rotation.finalizes, &rotation.made) {
                    (true, _) => "end of the grace window",
                    (_, Some(_)) => "making",
                    _ => "rotation",
                },
                rotation
                    .made
                    .clone()
                    .or_else(|| rotation.regenerated.clone())
                    .unwrap_or_else(|| names.join(", ")),
                rotation.stack
            )
        }
        Body::Refused(refused) => {
            by(&refused.operator, &refused.reason, &mut fact);
            refused
                .findings
                .iter()
                .for_each(|f| fact("finding", f.clone()));
            format!(
                "{number}  refused: rotation of {} on {}",
                refused.secrets.join(", "),
                refused.stack
            )
        }
        Body::Abandoned(abandoned) => {
            by(&abandoned.operator, &abandoned.reason, &mut fact);
            abandoned.secrets.iter().for_each(|s| secret(s, &mut fact));
            for name in &abandoned.in_force {
                fact("new in env file", name.clone());
            }
            format!("{number}  abandoned: rotation {}", abandoned.rotation)
        }
        Body::Reveal(revealed) => {
            by(&revealed.operator, &revealed.reason, &mut fact);
            fact("fingerprint", revealed.fingerprint.clone());
            format!(
                "{number}  revealed: {} ({})",
                revealed.secret, revealed.version
            )
        }
        Body::Finalize(finalized) => {
            fact("operator", finalized.operator.line());
            fact("rotation", finalized.rotation.clone());
            fact("evidence", finalized.evidence.clone());
            format!("{number}  finalized: {}", finalized.secrets.join(", "))
        }
        Body::Restore(restored) => {
            fact("operator", restored.operator.line());
            if let Some(begun) = &restored.begun {
                let by = begun.operator.line();
                fact("begun", format!("{} by {by}, interrupted", begun.at));
            }
            fact("rotation", restored.rotation.clone());
            fact("backup", restored.backup.directory.clone());
            fact("manifest", restored.backup.manifest_sha256.clone());
            fact("evidence", restored.evidence.clone());
            format!("{number}  restored: {}", restored.what)
        }
        Body::Unknown(value) => {
            fact("body", value.to_string());
            let kind = value
                .get("kind")
                .and_then(Value::as_str)
                .unwrap_or("unknown");
            format!("{number}  {kind}, as another version of keyroll wrote it")
        }
    };
    fact("written", record.at().to_string());
    fact("keyroll", record.keyroll().to_owned());
    fact("previous", record.previous().to_owned());
    fact("head", record.head().to_string());
    shown
}

fn by(operator: &Operator, reason: &str, fact: &mut impl FnMut(&'static str, String)) {
    fact("operator", operator.line());
    fact("reason", reason.to_owned());
}

fn secret(secret: &RotatedSecret, fact: &mut impl FnMut(&'static str, String)) {
    let print = |fingerprint: &Option<String>| fingerprint.clone().unwrap_or_else(|| "none".into());
    let (old, new) = (print(&secret.old), print(&secret.new));
    fact("secret", format!("{}  {old} -> {new}", secret.name));
}

fn rotation_facts(rotation: &Rotated, fact: &mut impl FnMut(&'static str, String)) {
    fact("rotation", rotation.rotation.clone());
    if let Some(former) = &rotation.takes_back {
        fact("takes back", former.clone());
    }
    by(&rotation.operator, &rotation.reason, fact);
    rotation
        .overrides
        .iter()
        .for_each(|o| fact("override", o.clone()));
    rotation
        .validated
        .iter()
        .for_each(|v| fact("validated", v.clone()));
    fact("started", rotation.started.to_string());
    fact("ended", rotation.ended.to_string());
    if let Some(why) = &rotation.why {
        fact("why", why.clone());
    }
    rotation.secrets.iter().for_each(|s| secret(s, fact));
    match &rotation.backup {
        Some(backup) => {
            fact("backup", backup.directory.clone());
            fact("manifest", backup.manifest_sha256.clone());
        }
        None => fact("backup", "none".into()),
    }
}

fn steps(rotation: &Rotated) -> Vec<ShownStep> {
    let forward = rotation.steps.iter().map(|step| ShownStep {
        at: step.at,
        name: step.name.clone(),
        outcome: step.outcome.to_string(),
        evidence: step.evidence.clone(),
    });
    let back = rotation.rollback.iter().map(|event| ShownStep {
        at: event.at,
        name: event.step.clone().unwrap_or_default(),
        outcome: "rollback".into(),
        evidence: event.says.clone(),
    });
    forward.chain(back).collect()
}
