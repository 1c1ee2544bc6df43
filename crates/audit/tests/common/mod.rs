//! Records as a stack of some months leaves them.
#![allow(dead_code)] // each test binary uses a part of it

use jiff::{SignedDuration, Timestamp};
use keyroll_audit::{
    Abandoned, Backup, Body, Ending, Finalized, Head, Operator, Record, Refused, Restored,
    Revealed, RollbackEvent, Rotated, RotatedSecret, StepOutcome, StepTrail,
};
use serde_json::json;

pub(crate) fn at(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-11-23T23:15:00Z".parse().unwrap();
    start + SignedDuration::from_mins(minutes)
}

pub(crate) fn operator() -> Operator {
    Operator {
        login: Some("root".into()),
        sudo_user: Some("ada".into()),
        host: "panel-1".into(),
        given: Some("Ada, ticket 4711".into()),
    }
}

pub(crate) fn rotation() -> Rotated {
    Rotated {
        rotation: "20261123T231500Z-9f3c01ab".into(),
        stack: "panel".into(),
        started: at(0),
        ended: at(2),
        operator: operator(),
        reason: "scheduled".into(),
        overrides: Vec::new(),
        validated: vec![
            "PAYSTACK_SECRET: Paystack takes the new value and refuses a made-up one".to_owned(),
        ],
        takes_back: None,
        finalizes: false,
        made: None,
        regenerated: None,
        secrets: vec![
            RotatedSecret {
                name: "JWT_SECRET".into(),
                old: Some("0011223344556677".into()),
                new: Some("8899aabbccddeeff".into()),
            },
            RotatedSecret {
                name: "ADMIN_PASSWORD".into(),
                old: None,
                new: Some("0123456789abcdef".into()),
            },
        ],
        backup: Some(Backup {
            directory: "/opt/panel-backups/20261123T231500Z-secret-rotation".into(),
            manifest_sha256: "ab".repeat(32),
        }),
        steps: vec![StepTrail {
            name: "env-file".into(),
            outcome: StepOutcome::Confirmed,
            at: at(1),
            evidence: "4 keys changed, every other byte kept; owner \"root\"\nand mode kept".into(),
            facts: json!({"keys": ["JWT_SECRET"], "mode": "0600", "share": 0.1}),
        }],
        rollback: Vec::new(),
        ending: Ending::Completed,
        why: None,
    }
}

pub(crate) fn compensated() -> Rotated {
    Rotated {
        ending: Ending::Compensated,
        why: Some("the api container did not become healthy".into()),
        overrides: vec!["--force-unhealthy".into()],
        rollback: vec![
            RollbackEvent {
                at: at(3),
                step: None,
                says: "turned back".into(),
                facts: json!(null),
            },
            RollbackEvent {
                at: at(4),
                step: Some("env-file".into()),
                says: "byte for byte".into(),
                facts: json!({"sha256": "…"}),
            },
        ],
        takes_back: Some("20261101T000000Z-00000000".into()),
        ..rotation()
    }
}

pub(crate) fn bodies() -> Vec<Body> {
    vec![
        Body::Rotation(Box::new(rotation())),
        Body::Refused(Refused {
            stack: "panel".into(),
            operator: operator(),
            secrets: vec!["JWT_SECRET".into()],
            reason: "schéduled — ünïcode".into(),
            findings: vec!["api: image re-tagged".into(), "worker: unhealthy".into()],
        }),
        Body::Rotation(Box::new(compensated())),
        Body::Abandoned(Abandoned {
            rotation: "20261123T231500Z-9f3c01ab".into(),
            operator: Operator {
                host: "panel-1".into(),
                ..Operator::default()
            },
            reason: "rebuilt".into(),
            secrets: vec![],
            in_force: vec![],
        }),
        Body::Reveal(Revealed {
            secret: "ADMIN_PASSWORD".into(),
            version: "current".into(),
            fingerprint: "0123456789abcdef".into(),
            operator: operator(),
            reason: String::new(),
        }),
        Body::Finalize(Finalized {
            rotation: "20261123T231500Z-9f3c01ab".into(),
            secrets: vec!["JWT_SECRET".into(), "JWT_REFRESH_SECRET".into()],
            operator: operator(),
            evidence: "tokens of the previous key get 401".into(),
        }),
        Body::Restore(Restored {
            rotation: "20261123T231500Z-9f3c01ab".into(),
            backup: rotation().backup.unwrap(),
            what: "database".into(),
            operator: operator(),
            begun: None,
            evidence: "42 tables".into(),
        }),
    ]
}

pub(crate) fn chain(bodies: impl IntoIterator<Item = Body>) -> Vec<Record> {
    let mut head = Head::none();
    let mut records: Vec<Record> = Vec::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let record = Record::chain(&head, body, at(i64::try_from(index).unwrap() * 60));
        head = record.head();
        records.push(record);
    }
    records
}

pub(crate) fn lines() -> Vec<String> {
    chain(bodies())
        .iter()
        .map(|r| r.line().to_owned())
        .collect()
}
