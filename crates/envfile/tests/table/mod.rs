//! What each dialect makes of small files. The readings were taken from the programs themselves: docker compose 2.26.1 and 2.40.3
//! (`config`, also with `format: raw`), python-dotenv 0.21.0 as compose v1 calls it, and Node's dotenv 16.6.1 and 18.0.10.

#![allow(dead_code)] // each test reads other columns

/// What a dialect reads for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// This value.
    Is(&'static str),
    /// A template that depends on the environment.
    Refers(&'static str),
    /// No value here.
    Bare,
}

/// The keys and values, the last of duplicates; none when the dialect refuses the file.
pub(crate) type Readings = Option<&'static [(&'static str, Expect)]>;

/// One small file.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) compose: Readings,
    pub(crate) python: Readings,
    pub(crate) node: Readings,
    pub(crate) raw: Readings,
}

mod first;
mod second;

/// All of them.
pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    first::CASES.iter().chain(second::CASES)
}
