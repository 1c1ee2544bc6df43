//! Where the parsers that read a file disagree.

use std::collections::BTreeSet;
use std::fmt;

use crate::dialect::{Binding, Dialect, Reading};
use crate::view::{View, effective};

/// A key that two parsers read differently, or syntax that makes one refuse the whole file. Holds no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambiguity {
    /// The line to look at, from 1.
    pub line: usize,
    /// The key; none when the file as a whole is meant.
    pub key: Option<String>,
    /// What is wrong.
    pub why: Why,
}

/// The kind of an [`Ambiguity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A parser refuses the whole file.
    Refused {
        /// The parser.
        dialect: Dialect,
        /// What it expects on that line.
        expected: String,
    },
    /// The key is defined more than once; the lines, from 1.
    Duplicate(Vec<usize>),
    /// What each parser takes for the key's value.
    ReadDifferently(Vec<(Dialect, Seen)>),
}

/// What a parser makes of a key, told without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The same as the parser that defines the file.
    Same,
    /// Another text.
    Other,
    /// Text with references to other variables.
    Interpolated,
    /// No value from this file.
    Nothing,
}

impl Ambiguity {
    /// Whether it must stop a rotation that writes `keys`: one of them is meant, or the file as a whole.
    pub fn blocks(&self, keys: &[&str]) -> bool {
        self.key.as_deref().is_none_or(|key| keys.contains(&key))
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.why {
            Why::Refused { dialect, expected } => {
                write!(f, "{dialect} refuses the whole file; expected {expected}")
            }
            Why::Duplicate(lines) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                let key = self.key.as_deref().unwrap_or_default();
                write!(f, "{key} is defined on lines {}", lines.join(", "))
            }
            Why::ReadDifferently(readings) => {
                let key = self.key.as_deref().unwrap_or_default();
                write!(f, "parsers read {key} differently (")?;
                for (i, (dialect, seen)) in readings.iter().enumerate() {
                    let seen = match seen {
                        Seen::Same if i == 0 => "a value",
                        Seen::Same => "the same",
                        Seen::Other => "another value",
                        Seen::Interpolated => "references to other variables",
                        Seen::Nothing => "no value",
                    };
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{dialect}: {seen}")?;
                }
                f.write_str(")")
            }
        }
    }
}

/// Compares `views`, of which the first is the one that defines the file.
pub(crate) fn compare(views: &[View]) -> Vec<Ambiguity> {
    let mut found = Vec::new();
    let mut readable = Vec::new();
    for view in views {
        match &view.bindings {
            Ok(bindings) => readable.push((view.dialect, effective(bindings))),
            Err(refusal) => found.push(Ambiguity {
                line: refusal.line,
                key: None,
                why: Why::Refused {
                    dialect: view.dialect,
                    expected: refusal.expected.clone(),
                },
            }),
        }
    }
    let keys: BTreeSet<&str> = readable
        .iter()
        .flat_map(|(_, map)| map.keys().copied())
        .collect();
    for key in keys {
        let of = |at: usize| readable[at].1.get(key).copied();
        let first = of(0);
        if (1..readable.len()).any(|at| !agree(first, of(at))) {
            let line = (0..readable.len()).find_map(of).map_or(1, |b| b.line);
            let readings = (0..readable.len())
                .map(|at| (readable[at].0, seen(first, of(at))))
                .collect();
            found.push(Ambiguity {
                line,
                key: Some(key.to_owned()),
                why: Why::ReadDifferently(readings),
            });
        }
    }
    if let Some(Ok(bindings)) = views.first().map(|view| &view.bindings) {
        found.extend(duplicates(bindings));
    }
    found.sort_by_key(|ambiguity| ambiguity.line);
    found
}

fn duplicates(bindings: &[Binding]) -> impl Iterator<Item = Ambiguity> {
    let keys: BTreeSet<&str> = bindings.iter().map(|b| b.key.as_str()).collect();
    keys.into_iter().filter_map(|key| {
        let lines: Vec<usize> = bindings
            .iter()
            .filter(|b| b.key == key)
            .map(|b| b.line)
            .collect();
        (lines.len() > 1).then(|| Ambiguity {
            line: *lines.last().expect("more than one"),
            key: Some(key.to_owned()),
            why: Why::Duplicate(lines),
        })
    })
}

/// No value from this file, whether the key is absent or bare, is one and the same.
fn value(binding: Option<&Binding>) -> Option<&Reading> {
    binding
        .map(|b| &b.reading)
        .filter(|reading| !matches!(reading, Reading::Inherited))
}

fn agree(a: Option<&Binding>, b: Option<&Binding>) -> bool {
    match (value(a), value(b)) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same_as(b),
        _ => false,
    }
}

fn seen(first: Option<&Binding>, this: Option<&Binding>) -> Seen {
    match value(this) {
        None => Seen::Nothing,
        Some(Reading::Interpolated(_)) => Seen::Interpolated,
        Some(_) if agree(first, this) => Seen::Same,
        Some(_) => Seen::Other,
    }
}
