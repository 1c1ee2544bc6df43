//! The durable state of one stack: what was intended, what came of it, which values exist, and who may write.
//!
//! The problem: between "the password was changed" and "we know that it was" the machine can die. Whatever keyroll knows
//! only in memory is then lost, and with it, in most hand-written scripts, the only copy of the new password. So every
//! value is sealed and every intent committed *before* the act, in a store that survives power loss (`SQLite`, write-ahead
//! log, `synchronous=FULL`, <https://sqlite.org/wal.html>), and the type system holds the door: an act needs an
//! [`Intended`], and only a commit makes one.
//!
//! The second problem is two writers. A process that was suspended, or believed dead, may wake up in the middle of someone
//! else's rotation. A [`Lock`] is held for life, and every append carries the [`Epoch`] that its writer got when it took
//! over; an append under an older epoch is refused ([`JournalError::Fenced`]).

mod error;
mod lock;
mod record;
mod reserve;
mod restores;
mod rotation;
mod schema;
mod versions;
mod writer;

pub use error::JournalError;
pub use lock::Lock;
pub use lock::LockError;
pub use record::Backward;
pub use record::Direction;
pub use record::Ending;
pub use record::Epoch;
pub use record::Event;
pub use record::Evidence;
pub use record::Forward;
pub use record::Intended;
pub use record::Receipt;
pub use record::Record;
pub use record::RotationId;
pub use record::StepName;
pub use restores::OpenRestore;
pub use rotation::NewRotation;
pub use rotation::Rotation;
pub use schema::Journal;
pub use schema::RenewLog;
pub use versions::Kept;
pub use versions::NewVersion;
pub use versions::Stale;
pub use versions::Version;
pub use versions::VersionState;
pub use writer::Moment;
pub use writer::Writer;
