//! What is committed before a restore changes anything.
//!
//! A killed restore can leave the services stopped, or another database in force, and a stack that looks like any other. So
//! each part of a restore is written down before its first effect, under the epoch like everything else, and crossed out in the
//! commit of its record in the trail. Whoever comes next finds it there: `status` names it, a rotation is refused, and the same
//! command looks at the world and goes on.

use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_audit::{Backup, Begun};
use keyroll_journal::{OpenRestore, RotationId};
use keyroll_runtimes::compose::Container;
use serde::{Deserialize, Serialize};

use super::{DatabaseRestored, Origin, RestoreWhat};
use crate::about::Operator;
use crate::error::{Code, Refusal, RotateError};
use crate::report::UnfinishedRestore;

/// The journal's names of the two parts. Renaming one is a change of the stored format.
pub(super) const FILES: &str = "files";
pub(super) const DATABASE: &str = "database";

/// What another process needs to finish a part, and to tell of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) by: Operator,
    pub(super) backup: Backup,
    /// Where what the files replace was saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) saved: Vec<PathBuf>,
    /// The exchange of databases, for that part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<Swap>,
}

/// An exchange of two databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Swap {
    pub(super) live: String,
    pub(super) side: String,
    pub(super) kept: String,
    /// What is stopped for it, and must run afterwards.
    pub(super) consumers: Vec<Consumer>,
    /// What the database beside came to. It is known before anything is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restored: Option<DatabaseRestored>,
}

/// A container that uses the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Consumer {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) service: String,
}

impl From<&Container> for Consumer {
    fn from(container: &Container) -> Self {
        Self {
            id: container.id.clone(),
            name: container.name.clone(),
            service: container.service.clone(),
        }
    }
}

impl Consumer {
    /// The same container, or the one that took its place since.
    pub(super) fn today(&self, containers: &[Container]) -> Self {
        let same = containers.iter().find(|c| c.id == self.id);
        let found = same.or_else(|| containers.iter().find(|c| c.service == self.service));
        found.map_or_else(|| self.clone(), Self::from)
    }
}

/// One part of a restore, at work.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) rotation: RotationId,
    begun_at: Timestamp,
    /// Another run began it, and was interrupted.
    pub(super) again: bool,
    pub(super) intent: Intent,
}

impl Part {
    pub(super) fn begin(name: &'static str, from: &Origin, intent: Intent) -> Self {
        Self {
            name,
            rotation: from.rotation.clone(),
            begun_at: Timestamp::now(),
            again: false,
            intent,
        }
    }

    pub(super) fn go_on(name: &'static str, open: &OpenRestore) -> Result<Self, RotateError> {
        let intent = serde_json::from_value(open.details.clone()).map_err(|e| {
            let what =
                format!("what the journal says of the unfinished restore is unreadable: {e}");
            Refusal::new(Code::State, what, "restore the state directory from a copy")
        })?;
        Ok(Self {
            name,
            rotation: open.rotation.clone(),
            begun_at: open.begun_at,
            again: true,
            intent,
        })
    }

    /// As the journal stores it.
    pub(super) fn open(&self) -> OpenRestore {
        self.open_with(&self.intent)
    }

    /// The same, with more known.
    pub(super) fn open_with(&self, intent: &Intent) -> OpenRestore {
        OpenRestore {
            part: self.name.to_owned(),
            rotation: self.rotation.clone(),
            begun_at: self.begun_at,
            details: serde_json::to_value(intent).expect("plain data"),
        }
    }

    /// What the trail says of the run that was interrupted.
    pub(super) fn begun(&self) -> Option<Begun> {
        self.again.then(|| Begun {
            at: self.begun_at,
            operator: (&self.intent.by).into(),
        })
    }
}

/// The command that goes on with these.
pub(crate) fn command(open: &[OpenRestore]) -> String {
    let rotation = open.first().map_or("", |part| part.rotation.as_str());
    let parts = open.iter().fold(String::new(), |all, o| {
        all + " --restore-" + o.part.as_str()
    });
    format!("keyroll rollback {rotation}{parts}")
}

/// Why nothing else is begun while these are open.
pub(crate) fn refusal(open: &[OpenRestore]) -> Option<Refusal> {
    let first = open.first()?;
    let parts: Vec<&str> = open.iter().map(|o| o.part.as_str()).collect();
    Some(Refusal::new(
        Code::Unfinished,
        format!(
            "bringing back the {} from the backup of rotation {} is not finished",
            parts.join(" and the "),
            first.rotation
        ),
        format!(
            "run `{}`, which looks how far it came and goes on",
            command(open)
        ),
    ))
}

/// The same, for whoever asks how things stand.
pub(crate) fn unfinished(open: &[OpenRestore]) -> Result<Option<UnfinishedRestore>, RotateError> {
    let (Some(first), Some(refusal)) = (open.first(), refusal(open)) else {
        return Ok(None);
    };
    let mut may_be_stopped = vec![];
    if let Some(database) = open.iter().find(|o| o.part == DATABASE) {
        let swap = Part::go_on(DATABASE, database)?.intent.swap;
        may_be_stopped = swap
            .into_iter()
            .flat_map(|s| s.consumers)
            .map(|c| c.service)
            .collect();
    }
    Ok(Some(UnfinishedRestore {
        rotation: first.rotation.clone(),
        parts: open.iter().map(|o| o.part.clone()).collect(),
        begun_at: first.begun_at,
        may_be_stopped,
        next: refusal.next,
    }))
}

/// Whether this restore may begin beside what is open: it must go on with all of it. Files alone may come from another backup
/// instead, since the first one can be the reason why it cannot be finished.
pub(super) fn admit(
    open: &[OpenRestore],
    rotation: &RotationId,
    what: RestoreWhat,
) -> Result<(), RotateError> {
    let goes_on = |part: &OpenRestore| match part.part.as_str() {
        FILES => what.files,
        DATABASE => what.database && part.rotation == *rotation,
        _ => false,
    };
    match refusal(open) {
        Some(refusal) if !open.iter().all(goes_on) => Err(refusal.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(part: &str, rotation: &str) -> OpenRestore {
        OpenRestore {
            part: part.into(),
            rotation: RotationId::from_text(rotation),
            begun_at: Timestamp::UNIX_EPOCH,
            details: serde_json::Value::Null,
        }
    }

    #[test]
    fn what_is_open_must_be_gone_on_with_and_only_files_may_come_from_elsewhere() {
        let (one, two) = (RotationId::from_text("one"), RotationId::from_text("two"));
        let what = |files, database| RestoreWhat { files, database };
        let files = [open(FILES, "one")];
        let both = [open(FILES, "one"), open(DATABASE, "one")];
        for (open, rotation, what, expected) in [
            (&[][..], &one, what(true, false), true),
            (&files[..], &one, what(true, false), true),
            (&files[..], &one, what(false, true), false),
            (&files[..], &two, what(true, false), true),
            (&both[..], &one, what(true, true), true),
            (&both[..], &one, what(false, true), false),
            (&both[..], &two, what(true, true), false),
        ] {
            assert_eq!(
                admit(open, rotation, what).is_ok(),
                expected,
                "{open:?} {rotation} {what:?}"
            );
        }
        assert_eq!(
            command(&both),
            "keyroll rollback one --restore-files --restore-database"
        );
    }
}
