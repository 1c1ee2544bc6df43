//! The tamper-evident trail: who rotated what, why, and what was seen.
//!
//! The problem: an auditor asks in March what happened in November, and the only witness is a database that root can edit. A
//! trail cannot keep root from editing it. It can make sure that an edit shows. So each record carries the hash of the one
//! before it, and its own hash over all of its bytes: to change one record is to change every later one, and the last of them,
//! the [`Head`], is also written where the trail's keeper cannot reach back, into the summary that the operator takes
//! along and the system journal.
//!
//! # The format
//!
//! A record is one line of JSON without line breaks, kept and exported exactly as it was written:
//!
//! ```text
//! {"format":1,"sequence":2,"previous":"<64 hex>","at":"2026-11-23T23:15:00Z","keyroll":"0.1.0","body":{…},"hash":"<64 hex>"}
//! ```
//!
//! `hash` is the SHA-256 of the line's bytes up to, and without, `,"hash":` (the last 75 bytes are cut off). `previous` is the
//! `hash` of the record before, 64 zeros for the first. `sequence` counts from 1. That is all: there is no second encoding to
//! get wrong, and nothing that an older keyroll does not understand is left out of the hash. `docs/guides/audit.md` has a
//! Python script of 20 lines that checks a trail without keyroll; a test runs it.
//!
//! # What it finds, and what not
//!
//! [`verify`] finds a record that was changed, removed, put in or moved, and, with a head from outside, a tail that was cut off
//! and a trail that was written anew as a whole. Without one it cannot find the last two: keep the heads.
//!
//! This crate stores nothing: the journal keeps the lines. Records name secrets and hold keyed fingerprints, never values.

mod body;
mod chain;
mod record;
mod show;
pub mod system_journal;

pub use body::Abandoned;
pub use body::Backup;
pub use body::Begun;
pub use body::Body;
pub use body::Ending;
pub use body::Finalized;
pub use body::Operator;
pub use body::Refused;
pub use body::Restored;
pub use body::Revealed;
pub use body::RollbackEvent;
pub use body::Rotated;
pub use body::RotatedSecret;
pub use body::StepOutcome;
pub use body::StepTrail;
pub use chain::Break;
pub use chain::Broken;
pub use chain::export;
pub use chain::verify;
pub use record::Head;
pub use record::HeadError;
pub use record::Record;
pub use show::Shown;
pub use show::ShownStep;
pub use show::show;
