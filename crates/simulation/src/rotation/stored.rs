//! What a rotation stores in the journal here, and how it is closed.

use jiff::Timestamp;
use keyroll_journal::{
    Ending, Journal, JournalError, Kept, NewRotation, NewVersion, RotationId, VersionState, Writer,
};
use keyroll_secret::Sealed;

pub(super) const SECRETS: [&str; 4] = [
    "JWT_SECRET",
    "JWT_REFRESH_SECRET",
    "POSTGRES_PASSWORD",
    "ADMIN_PASSWORD",
];

pub(super) fn rotation_id() -> RotationId {
    RotationId::from_text("r")
}

/// What a version of a secret is sealed as here: sealing is not what is tried.
pub(super) fn sealed(secret: &str, which: &str) -> Sealed {
    Sealed::from_stored(format!("{secret}={which}").into_bytes())
}

/// Everything that is sealed before the first effect.
pub(super) fn new_rotation() -> NewRotation {
    let version = |secret: &str, state, which: &str| NewVersion {
        secret: secret.into(),
        state,
        fingerprint: which.into(),
        sealed: sealed(secret, which),
    };
    NewRotation {
        id: rotation_id(),
        about: serde_json::Value::Null,
        versions: SECRETS
            .iter()
            .flat_map(|s| {
                [
                    version(s, VersionState::Current, "old"),
                    version(s, VersionState::Pending, "new"),
                ]
            })
            .collect(),
        kept: vec![Kept {
            name: "env-file/before".into(),
            sealed: sealed("env", "old"),
        }],
    }
}

/// The one after it, to a third set.
pub(super) fn another_rotation(id: &RotationId) -> NewRotation {
    let pending = |secret: &&str| NewVersion {
        secret: (*secret).into(),
        state: VersionState::Pending,
        fingerprint: "newer".into(),
        sealed: sealed(secret, "newer"),
    };
    NewRotation {
        id: id.clone(),
        about: serde_json::Value::Null,
        versions: SECRETS.iter().map(pending).collect(),
        kept: vec![],
    }
}

/// What is left to do when a rotation has ended: pending versions retire, and the trail is told, once.
pub(super) fn close(writer: &Writer, ending: Ending, now: Timestamp) -> Result<(), JournalError> {
    let id = rotation_id();
    let versions = writer.versions_of_rotation(&id)?;
    let pending = versions.iter().any(|v| v.state == VersionState::Pending);
    if ending == Ending::Compensated && pending {
        writer.discard_pending(&id, now)?;
    }
    if told(writer)? == Some(ending) {
        return Ok(());
    }
    append_trail(writer, &id, ending)
}

/// The trail's last word about the rotation.
pub(super) fn told(journal: &Journal) -> Result<Option<Ending>, JournalError> {
    let all = [Ending::Completed, Ending::Compensated, Ending::Stuck];
    let last = journal.last_audit()?;
    Ok(last.and_then(|last| all.into_iter().find(|e| last.ends_with(&e.to_string()))))
}

/// Appends to the trail, numbered, so that a gap or a repetition shows.
pub(super) fn append_trail(
    writer: &Writer,
    id: &RotationId,
    ending: Ending,
) -> Result<(), JournalError> {
    writer.append_audit(|last| {
        let number = last.map_or(Ok(0), |line| {
            let number = line.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            number.ok_or_else(|| format!("{line:?} has no number"))
        })?;
        Ok(format!("{} {id} {ending}", number + 1))
    })
}
