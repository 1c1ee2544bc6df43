//! From a profile to an outcome: the library behind the `keyroll` command.
//!
//! The problem: rotating a secret by hand is a dozen commands whose order matters, whose failures leave a stack half old and
//! half new, and whose success is rarely shown. This crate turns a [`Profile`] (what the stack is) and a [`Request`] (what to
//! rotate) into a plan of steps, has the engine carry it out, and answers with an [`Outcome`].
//!
//! It prints nothing, reads no environment variable and never exits: that is the command's part.

mod abandon;
mod about;
mod backup;
mod blocking;
mod checks;
mod database;
mod ending;
mod error;
mod finalize;
mod gateway;
mod history;
mod in_force;
mod operations;
mod outcome;
mod panel;
mod picture;
mod preflight;
pub mod profile;
mod reach;
mod recovery;
mod relay;
mod report;
mod restore;
mod resume;
mod reveal;
mod settings;
mod stack;
mod status;
mod steps;
mod trail;
mod vendor;
mod webhooks;
mod world;

pub use abandon::AbandonPlan;
pub use about::Fate;
pub use about::Operator;
pub use about::Reason;
pub use error::Code;
pub use error::Refusal;
pub use error::RotateError;
pub use in_force::Holds;
pub use in_force::View;
pub use keyroll_audit::Head;
pub use keyroll_audit::Record;
pub use keyroll_audit::show as show_record;
pub use keyroll_journal::Direction;
pub use keyroll_journal::Ending;
pub use keyroll_journal::Event;
pub use keyroll_journal::Moment;
pub use keyroll_journal::RotationId;
pub use keyroll_journal::StepName;
pub use keyroll_saga::Stop;
pub use keyroll_saga::exam;
pub use keyroll_secret::Secret;
pub use operations::Control;
pub use operations::Keyroll;
pub use operations::Request;
pub use profile::BUILT_IN;
pub use profile::Profile;
pub use profile::ProfileError;
pub use profile::SecretKind;
pub use profile::Source;
pub use report::Happened;
pub use report::Next;
pub use report::Outcome;
pub use report::PlanReport;
pub use report::PlannedSecret;
pub use report::PlannedService;
pub use report::Progress;
pub use report::Quiet;
pub use report::SecretShown;
pub use report::SecretStatus;
pub use report::ShowReport;
pub use report::StatusReport;
pub use report::StepNow;
pub use report::StepReport;
pub use report::UnfinishedReport;
pub use report::UnfinishedRestore;
pub use report::VerifyReport;
pub use report::Window;
pub use restore::DatabasePlan;
pub use restore::DatabaseRestored;
pub use restore::FileChange;
pub use restore::FilesRestored;
pub use restore::RestorePlan;
pub use restore::RestoreReport;
pub use restore::RestoreWhat;
pub use reveal::Shown;
pub use reveal::Which;
