//! The parsers that read env files, and what each makes of one.

mod compose;
mod newlines;
mod node;
mod python;
mod raw;
mod template;

use std::fmt;
use std::ops::Range;

use keyroll_secret::Secret;

/// A parser that reads env files.
///
/// What each does was read in its source and compared with the real program on thousands of generated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Docker Compose v2 and v5: `.env`, `--env-file` and `env_file` (compose-go `dotenv/parser.go`, v2.0 to v2.13; the
    /// versions before it read a backslash before a quote differently).
    ComposeGo,
    /// Docker Compose v1 from 1.26: python-dotenv (0.21), opened as `utf-8-sig` with universal line ends.
    PythonDotenv,
    /// Node's `dotenv` package (`lib/main.js`, the same pattern from version 15 to 18), often pointed at the same file.
    NodeDotenv,
    /// `docker run --env-file` and compose's `format: raw`: no quotes, no comments after a value (docker/cli `kvfile`).
    Raw,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ComposeGo => "docker compose",
            Self::PythonDotenv => "docker-compose v1",
            Self::NodeDotenv => "Node dotenv",
            Self::Raw => "the raw format",
        })
    }
}

/// Which parsers read a file: one that defines it, and others that must agree about keyroll's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readers {
    primary: Dialect,
    others: Vec<Dialect>,
}

impl Readers {
    /// `primary` alone.
    pub fn only(primary: Dialect) -> Self {
        Self {
            primary,
            others: Vec::new(),
        }
    }

    /// Adds a parser that reads the same file.
    #[must_use]
    pub fn and(mut self, dialect: Dialect) -> Self {
        if self.all().all(|d| d != dialect) {
            self.others.push(dialect);
        }
        self
    }

    /// The one that defines the file, then the others.
    pub fn all(&self) -> impl Iterator<Item = Dialect> {
        std::iter::once(self.primary).chain(self.others.iter().copied())
    }
}

/// Compose v2, with compose v1 and Node's dotenv beside it. [`Dialect::Raw`] is not among them: it keeps quotes, so that
/// every quoted value would be read differently.
impl Default for Readers {
    fn default() -> Self {
        Self::only(Dialect::ComposeGo)
            .and(Dialect::PythonDotenv)
            .and(Dialect::NodeDotenv)
    }
}

/// What a parser takes for the value of a key.
#[derive(Debug, Clone)]
pub enum Reading {
    /// This text.
    Value(Secret),
    /// Text with references such as `$NAME` or `${NAME:-default}`, quotes and escapes already taken off. What comes of it
    /// depends on the environment of whoever reads the file (the shell's beats the file's), so it is not decided here.
    Interpolated(Secret),
    /// A bare `KEY`: the value comes from the reader's environment.
    Inherited,
}

impl Reading {
    /// Whether both are of one kind and hold the same text.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(a), Self::Value(b)) | (Self::Interpolated(a), Self::Interpolated(b)) => {
                a.same_as(b)
            }
            (Self::Inherited, Self::Inherited) => true,
            _ => false,
        }
    }

    /// The text or the template.
    pub(crate) fn text(&self) -> Option<&Secret> {
        match self {
            Self::Value(text) | Self::Interpolated(text) => Some(text),
            Self::Inherited => None,
        }
    }
}

/// What stands around a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// Nothing.
    Bare,
    /// `'`
    Single,
    /// `"`
    Double,
    /// `` ` ``, a quote for Node's dotenv alone.
    Backtick,
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "unquoted",
            Self::Single => "single-quoted",
            Self::Double => "double-quoted",
            Self::Backtick => "backtick-quoted",
        })
    }
}

/// One definition of a key, as one dialect sees it.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) key: String,
    /// Line of the key, from 1.
    pub(crate) line: usize,
    /// Where the value's bytes stand, quotes excluded; for a bare key, the empty range after it.
    pub(crate) source: Range<usize>,
    pub(crate) quote: Quote,
    pub(crate) reading: Reading,
}

/// A dialect refuses the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// From 1.
    pub(crate) line: usize,
    /// Without any part of a value.
    pub(crate) expected: String,
}

/// All definitions in `text`, in order, or why the dialect gives up.
pub(crate) fn read(dialect: Dialect, text: &str) -> Result<Vec<Binding>, Refusal> {
    match dialect {
        Dialect::ComposeGo => compose::read(text),
        Dialect::PythonDotenv => Ok(python::read(text)),
        Dialect::NodeDotenv => node::read(text),
        Dialect::Raw => raw::read(text),
    }
}

/// The byte order mark that some editors write; every dialect here skips it.
const BOM: char = '\u{feff}';

/// Where the first statement may begin.
fn start(text: &str) -> usize {
    if text.starts_with(BOM) {
        BOM.len_utf8()
    } else {
        0
    }
}

/// Line numbers for byte offsets.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of `offset`, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}
