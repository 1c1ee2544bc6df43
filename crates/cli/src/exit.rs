//! Exit codes: each ending has its own. `args::EXIT_CODES` is their documentation.

use keyroll_rotate::{Ending, Outcome, RotateError};

/// Done.
pub(crate) const DONE: u8 = 0;
/// Failed for another reason, or a check found a fault.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Refused, nothing was changed.
pub(crate) const REFUSED: u8 = 3;
/// Rolled back.
pub(crate) const ROLLED_BACK: u8 = 4;
/// Stuck.
pub(crate) const STUCK: u8 = 5;
/// Rolled back after an incident.
pub(crate) const ROLLED_BACK_AFTER_INCIDENT: u8 = 6;
/// Interrupted without an ending.
pub(crate) const INTERRUPTED: u8 = 7;
/// Abandoned.
pub(crate) const ABANDONED: u8 = 8;

/// The code of an outcome.
pub(crate) fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome.ending {
        // Completed, and something besides is at fault: a trail that is damaged or could not be written.
        Ending::Completed if !outcome.found.is_empty() => FAILED,
        Ending::Completed => DONE,
        Ending::Compensated if outcome.incident => ROLLED_BACK_AFTER_INCIDENT,
        Ending::Compensated => ROLLED_BACK,
        Ending::Stuck => STUCK,
        Ending::Abandoned => ABANDONED,
    }
}

/// The code of an error.
pub(crate) fn of_error(error: &RotateError) -> u8 {
    match error {
        RotateError::Refused(_) | RotateError::NotConfirmed => REFUSED,
        RotateError::Interrupted { .. } => INTERRUPTED,
        _ => FAILED,
    }
}
