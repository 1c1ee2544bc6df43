//! Why an env file cannot be read or edited. The caller knows the path and puts it in front.

use thiserror::Error;

use crate::{Ambiguity, Dialect, Quote};

/// Why an env file cannot be read or edited. Nothing was changed, in memory or on disk. No part of a value is shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnvFileError {
    /// The file is not text.
    #[error(
        "line {line}: expected UTF-8 text without NUL bytes; convert the file, then start again"
    )]
    NotText {
        /// From 1.
        line: usize,
    },
    /// The parser that defines the file refuses it as a whole.
    #[error("line {line}: {dialect} refuses the whole file; expected {expected}")]
    Syntax {
        /// From 1.
        line: usize,
        /// The parser.
        dialect: Dialect,
        /// What would be right there.
        expected: String,
    },
    /// The key is not in the file. keyroll never adds one.
    #[error("{key} is not in the file; add it with the value in force, then start again")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// The key is defined more than once: the last one counts for the parsers here, but not for everybody.
    #[error(
        "{key} is defined on lines {}; remove all but one, then start again",
        list(lines)
    )]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where, from 1.
        lines: Vec<usize>,
    },
    /// A bare `KEY`: the value comes from the environment of whoever reads the file.
    #[error(
        "line {line}: {key} stands without a value, which comes from elsewhere; write the value in force into the file, then start again"
    )]
    NoValue {
        /// The key.
        key: String,
        /// From 1.
        line: usize,
    },
    /// The value is made of references.
    #[error(
        "line {line}: the value of {key} refers to other variables; write the value in force into the file, then start again"
    )]
    Interpolated {
        /// The key.
        key: String,
        /// From 1.
        line: usize,
    },
    /// Two parsers read the key differently, or one of them refuses the file.
    #[error(
        "{0}; make it mean the same to all of them (letters, digits, `_` and `-`, unquoted, always do), then start again"
    )]
    Ambiguous(Ambiguity),
    /// The new value is empty, which is never a secret.
    #[error("the new value of {key} is empty; generate one, then start again")]
    EmptyValue {
        /// The key.
        key: String,
    },
    /// The value cannot stand there so that every parser reads it and everything else as intended.
    #[error(
        "line {line}: {dialect} would not read the new value of {key} as it is ({quote}); use a value of letters, digits, `_` and `-`"
    )]
    CannotCarry {
        /// The key.
        key: String,
        /// From 1.
        line: usize,
        /// The first parser that would read it otherwise.
        dialect: Dialect,
        /// How the value is quoted in the file.
        quote: Quote,
    },
}

fn list(lines: &[usize]) -> String {
    lines
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
