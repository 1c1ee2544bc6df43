//! Checking a whole trail.

use std::fmt;
use std::io::{self, Write};

use thiserror::Error;

use crate::{Head, Record};

/// Where a trail is broken, and how. What comes before that place is sound.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Break {
    /// The number that the record at this place should have; `None` when only the last record was looked at.
    pub at: Option<u64>,
    /// What is wrong.
    pub what: Broken,
}

/// What is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Broken {
    /// The line is no record, for this reason.
    #[error("the line is no record ({0})")]
    NotARecord(String),
    /// The line's hash is not the hash of the line.
    #[error("the record was changed after it was written")]
    Changed,
    /// The record is whole, but of a format that this keyroll does not read.
    #[error("the record is of format {0}; use the newer keyroll that wrote it")]
    Newer(u32),
    /// The record has another number: one is missing, moved or there twice.
    #[error("the record here has number {found}: records were removed, put in or moved")]
    Number {
        /// The number in the record.
        found: u64,
    },
    /// The record follows another one than the one before it.
    #[error("the record does not follow the one before it: records were removed, put in or moved")]
    Follows,
    /// The trail ends before the head that is known from outside.
    #[error("the trail ends at {last}, but {expected} is known from outside: the tail was cut off")]
    CutOff {
        /// The last record there is.
        last: Head,
        /// The head that should be in it.
        expected: Head,
    },
    /// The record has another hash than the one that is known from outside.
    #[error("the record has the hash {found}, but {} is known from outside: the trail was written anew", expected.hash)]
    Rewritten {
        /// The hash of the record that is there.
        found: String,
        /// The head that should be there.
        expected: Head,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(1) => write!(f, "the trail is broken at its first record: {}", self.what),
            Some(at) => write!(
                f,
                "the trail is broken at record {at}: {}; what comes before is sound",
                self.what
            ),
            None => write!(f, "the trail's last record is broken: {}", self.what),
        }
    }
}

/// Checks a trail from its first record on and gives its head.
///
/// `lines` are the stored lines in order, each without its line break. `expected` is a head from outside, of now or of any
/// time before: the trail must still contain it. Stops at the first break. Pure: reads nothing but its arguments.
pub fn verify<L: AsRef<str>>(
    lines: impl IntoIterator<Item = L>,
    expected: Option<&Head>,
) -> Result<Head, Break> {
    let mut head = Head::none();
    let mut met = expected.is_none_or(|e| *e == head);
    for line in lines {
        let at = head.sequence + 1;
        let broken = |what| Break { at: Some(at), what };
        let record = Record::parse(line.as_ref()).map_err(broken)?;
        if record.sequence() != at {
            return Err(broken(Broken::Number {
                found: record.sequence(),
            }));
        }
        if record.previous() != head.hash {
            return Err(broken(Broken::Follows));
        }
        head = record.head();
        if let Some(expected) = expected.filter(|e| e.sequence == at) {
            if *expected != head {
                return Err(broken(Broken::Rewritten {
                    found: head.hash,
                    expected: expected.clone(),
                }));
            }
            met = true;
        }
    }
    match expected {
        Some(expected) if !met => Err(Break {
            at: Some(head.sequence + 1),
            what: Broken::CutOff {
                last: head,
                expected: expected.clone(),
            },
        }),
        _ => Ok(head),
    }
}

/// Writes a trail as JSON lines, each exactly as stored, so that the export can be checked like the trail itself.
pub fn export<L: AsRef<str>>(
    lines: impl IntoIterator<Item = L>,
    mut to: impl Write,
) -> io::Result<()> {
    for line in lines {
        to.write_all(line.as_ref().as_bytes())?;
        to.write_all(b"\n")?;
    }
    to.flush()
}
