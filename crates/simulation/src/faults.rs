//! What goes wrong, and at which operation: the policy that a [`Disk`](crate::Disk) asks before every change.

use crate::{Process, Random};

/// What a process is about to do to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opening a file by name, or an anonymous one, whether or not that makes it.
    Open,
    /// Writing bytes.
    Write,
    /// Setting the length.
    Truncate,
    /// Making a file's content durable.
    Sync,
    /// Making names durable.
    SyncDirectory,
    /// Removing a name.
    Delete,
}

/// One operation, as the policy is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// Counts from 0 over all processes of the machine, and on over restarts.
    pub number: u64,
    /// Who.
    pub process: Process,
    /// What.
    pub kind: Kind,
    /// The name that the file was opened by; empty for an anonymous file and for the directory.
    pub file: &'a str,
    /// Where a write begins; 0 otherwise.
    pub offset: u64,
    /// How many bytes are written, or the new length; 0 otherwise.
    pub length: u64,
}

/// The error that a process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Proceed,
    /// It is not done, and the process is told so.
    Fail(Failure),
    /// It is done, and the process is told that it is not: the answer got lost, not the deed.
    FailAfter(Failure),
    /// For a sync: the process is told of the failure once, and what it had written since the last sync stays readable
    /// but will never be durable; a second sync succeeds and helps nothing. Linux does this
    /// (<https://wiki.postgresql.org/wiki/Fsync_Errors>). For any other operation the same as [`Verdict::Fail`].
    FailAndForget(Failure),
    /// The machine stops before it is done; see [`Disk::stopped`](crate::Disk::stopped).
    StopBefore,
    /// The machine stops when it is done, before the process is told.
    StopAfter,
}

/// A policy. It may count, draw from a [`Random`], or look at the operation; it must not look at anything outside.
///
/// `Sync`, so that threads can share a disk that serves as an image.
pub type Faults = Box<dyn FnMut(&Operation<'_>) -> Verdict + Send + Sync>;

/// One operation meets its fate, all others proceed.
pub fn at(number: u64, verdict: Verdict) -> Faults {
    Box::new(move |operation| {
        if operation.number == number {
            verdict
        } else {
            Verdict::Proceed
        }
    })
}

/// The disk is full from one operation on: writes fail, also within a file, as on file systems that never write in
/// place; everything else proceeds.
pub fn full_from(number: u64) -> Faults {
    Box::new(move |operation| match operation.kind {
        Kind::Write if operation.number >= number => Verdict::Fail(Failure::Full),
        _ => Verdict::Proceed,
    })
}

/// One operation in `one_in` fails, in any of the ways of failing that leave the machine running. Syncs of the directory do not:
/// `SQLite` passes over their errors, and the journal syncs the directory once more by itself, where its files are real ones.
pub fn now_and_then(mut random: Random, one_in: u64) -> Faults {
    Box::new(move |operation| {
        if operation.kind == Kind::SyncDirectory || !random.odds(1, one_in) {
            return Verdict::Proceed;
        }
        let failure = if random.odds(1, 2) {
            Failure::Io
        } else {
            Failure::Full
        };
        match random.below(3) {
            0 => Verdict::Fail(failure),
            1 => Verdict::FailAfter(failure),
            _ => Verdict::FailAndForget(failure),
        }
    })
}
