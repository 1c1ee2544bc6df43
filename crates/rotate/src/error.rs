//! Why keyroll did not do what it was asked to.

use keyroll_journal::{JournalError, LockError, RotationId};
use thiserror::Error;

/// What a refusal is about. Each has a page of its name in `docs/errors/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Another keyroll is at work on the stack.
    Locked,
    /// An unfinished rotation exists.
    Unfinished,
    /// A name is neither a secret nor a group, or a rotation does not exist.
    Selection,
    /// keyroll's own files cannot be used.
    State,
    /// The env file cannot be read, or read safely.
    EnvFile,
    /// The running containers do not belong to the project that the profile describes.
    Project,
    /// What runs is not what the files say.
    Drift,
    /// The stack is not well before the rotation.
    Sick,
    /// A check could never fail, so it proves nothing.
    Vacuous,
    /// The database cannot be logged in to with the value that should be in force.
    Database,
    /// The admin cannot log in with the value that should be in force, or the pages do not open.
    Panel,
    /// A consumer of a secret was found that keyroll cannot give the new value to.
    Consumer,
    /// A key that encrypts what is kept, which another value would make unreadable.
    AtRest,
    /// A new value is missing, or cannot be right.
    Value,
    /// The maker of a new value could not be asked about it.
    Provider,
    /// The application's settings do not hold what the profile says.
    Settings,
    /// A grace window is open.
    Grace,
    /// There is no room for the backup.
    Space,
    /// The time to take a rotation back is over, or taking it back would bring leaked values into force.
    Expired,
    /// A backup cannot be opened, or is not the one that was made.
    Backup,
}

impl Code {
    /// The code's name, which is also its page's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Unfinished => "unfinished",
            Self::Selection => "selection",
            Self::State => "state",
            Self::EnvFile => "env-file",
            Self::Project => "project",
            Self::Drift => "drift",
            Self::Sick => "sick",
            Self::Vacuous => "vacuous",
            Self::Database => "database",
            Self::Panel => "panel",
            Self::Consumer => "consumer",
            Self::AtRest => "at-rest",
            Self::Value => "value",
            Self::Provider => "provider",
            Self::Settings => "settings",
            Self::Grace => "grace",
            Self::Space => "space",
            Self::Expired => "expired",
            Self::Backup => "backup",
        }
    }

    /// All codes, so that the pages can be checked for completeness.
    pub const ALL: [Self; 20] = [
        Self::Locked,
        Self::Unfinished,
        Self::Selection,
        Self::State,
        Self::EnvFile,
        Self::Project,
        Self::Drift,
        Self::Sick,
        Self::Vacuous,
        Self::Database,
        Self::Panel,
        Self::Consumer,
        Self::AtRest,
        Self::Value,
        Self::Provider,
        Self::Settings,
        Self::Grace,
        Self::Space,
        Self::Expired,
        Self::Backup,
    ];

    /// Whether `--reason incident --force-unhealthy` goes on all the same. What is ambiguous, foreign or unfinished is never
    /// forced: there keyroll would have to guess. Nor is a check that cannot fail: the proof at the end needs it too.
    pub fn can_be_forced(self) -> bool {
        matches!(self, Self::Sick | Self::Panel)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One reason not to start. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is about.
    pub code: Code,
    /// What was found, where.
    pub what: String,
    /// What to do about it.
    pub next: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            next: next.into(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}; {}", self.code, self.what, self.next)
    }
}

/// Why an operation did not come to an outcome.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Refused before anything was changed. All reasons that could be found, not the first alone.
    #[error("refused, nothing was changed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// The operator said no when asked.
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    /// A rotation is unfinished: the engine stopped without an ending, or could not start again.
    #[error(
        "rotation {rotation} is unfinished: {reason}; mend that if it needs mending, then run `keyroll resume`"
    )]
    Interrupted {
        /// The rotation.
        rotation: RotationId,
        /// Why.
        reason: String,
    },
    /// Something keyroll itself needs failed.
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for RotateError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(vec![refusal])
    }
}

impl From<LockError> for Refusal {
    fn from(error: LockError) -> Self {
        Self::new(
            Code::Locked,
            error.to_string(),
            "run `keyroll status` to see what it does",
        )
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unfinished(id) => unfinished(&id),
            JournalError::Unrestored(_) => {
                Self::new(Code::Unfinished, error.to_string(), "run `keyroll status`")
            }
            JournalError::NoSuchRotation(_) => {
                Self::new(Code::Selection, error.to_string(), "check the name")
            }
            other => Self::new(
                Code::State,
                other.to_string(),
                "mend the state directory first",
            ),
        }
    }
}

pub(crate) fn unfinished(id: &str) -> Refusal {
    Refusal::new(
        Code::Unfinished,
        format!("rotation {id} is not finished"),
        "run `keyroll resume`, which finishes it or takes it back",
    )
}

/// What stands in the way of going on with a rotation that is known to be unfinished. Something *was* changed, by the run
/// before, so neither "refused" nor "failed" would be true.
pub(crate) fn still_unfinished(rotation: &RotationId, error: RotateError) -> RotateError {
    let reason = match error {
        RotateError::Refused(all) => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            all.join("; ")
        }
        RotateError::Failed(reason) => reason,
        other => return other,
    };
    RotateError::Interrupted {
        rotation: rotation.clone(),
        // True of the call that failed, and not of the rotation.
        reason: reason.replace("; nothing was changed", ""),
    }
}

impl From<JournalError> for RotateError {
    fn from(error: JournalError) -> Self {
        Refusal::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for code in Code::ALL {
            assert!(
                pages.join(format!("{code}.md")).exists(),
                "docs/errors/{code}.md is missing"
            );
        }
        let count = std::fs::read_dir(pages).unwrap().count();
        assert_eq!(
            count,
            Code::ALL.len() + 1,
            "a page for each code, and README.md"
        );
    }

    #[test]
    fn the_list_of_codes_says_which_can_be_forced_as_the_code_does() {
        let list = include_str!("../../../docs/errors/README.md");
        for code in Code::ALL {
            let row = list.lines().find(|l| l.starts_with(&format!("| [{code}]")));
            let says = row.and_then(|r| r.trim_end_matches([' ', '|']).rsplit("| ").next());
            // `rollback` asks for the force itself: what it looks at is no finding of preflight.
            let expected = match (code, code.can_be_forced()) {
                (Code::Expired, _) => "in one case",
                (_, true) => "yes",
                (_, false) => "no",
            };
            assert_eq!(says, Some(expected), "{code}");
        }
    }

    #[test]
    fn what_stops_a_resume_is_told_as_an_unfinished_rotation_with_its_reason() {
        let id = RotationId::from_text("r-1");
        let refused = Refusal::new(Code::State, "the identity is missing", "restore it").into();
        let failed = RotateError::Failed("docker is down; nothing was changed".into());
        for (error, reason) in [
            (refused, "the identity is missing"),
            (failed, "docker is down"),
        ] {
            let told = still_unfinished(&id, error);
            assert!(matches!(told, RotateError::Interrupted { .. }), "{told:?}");
            let text = told.to_string();
            for word in [reason, "r-1", "keyroll resume"] {
                assert!(text.contains(word), "{text}");
            }
            assert!(!text.contains("nothing was changed"), "{text}");
        }
        let no = still_unfinished(&id, RotateError::NotConfirmed);
        assert!(matches!(no, RotateError::NotConfirmed));
    }
}
