//! The file itself: read, compare, set a value.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use keyroll_secret::Secret;

use crate::ambiguity::{Ambiguity, compare};
use crate::dialect::{Binding, Dialect, Readers, Reading};
use crate::error::EnvFileError;
use crate::view::{View, effective, first_surprise, views};

/// An env file in memory: its bytes, and what each of its [`Readers`] makes of them.
///
/// Every edit replaces the bytes of values and nothing else, and is checked by reading the result with every parser: the
/// edited key must read as meant, all others as before. An edit that fails leaves the file as it was. The text is wiped
/// on drop; `Debug` shows keys only. Nothing here touches a disk.
#[derive(Clone)]
pub struct EnvFile {
    pub(crate) text: Secret,
    pub(crate) readers: Readers,
    pub(crate) views: Vec<View>,
}

/// An edit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
}

impl EnvFile {
    /// Reads `bytes` as the default [`Readers`] do.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvFileError> {
        Self::parse_for(bytes, Readers::default())
    }

    /// Reads `bytes`; fails only when the first of `readers` refuses the file (the others' refusals are
    /// [`EnvFile::ambiguities`]), or when it is not UTF-8 without NUL.
    pub fn parse_for(bytes: &[u8], readers: Readers) -> Result<Self, EnvFileError> {
        let line_of = |at: usize| bytes[..at].split(|b| *b == b'\n').count();
        let text = std::str::from_utf8(bytes).map_err(|e| EnvFileError::NotText {
            line: line_of(e.valid_up_to()),
        })?;
        if let Some(at) = text.find('\0') {
            return Err(EnvFileError::NotText { line: line_of(at) });
        }
        let views = views(&readers, text);
        if let Err(refusal) = &views[0].bindings {
            return Err(EnvFileError::Syntax {
                line: refusal.line,
                dialect: views[0].dialect,
                expected: refusal.expected.clone(),
            });
        }
        Ok(Self {
            text: Secret::new(text),
            readers,
            views,
        })
    }

    /// The whole file; after [`EnvFile::parse`] exactly what was given. Secret: for the disk alone.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.expose().as_bytes()
    }

    /// The keys in the order of the file, a duplicate as often as it stands there.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.bindings().iter().map(|b| b.key.as_str())
    }

    /// How the parser that defines the file reads `key`; none when it is not there.
    pub fn get(&self, key: &str) -> Option<&Reading> {
        self.last(key).map(|b| &b.reading)
    }

    /// How `dialect` reads `key`; none when it is not there, or when `dialect` refuses the file. One that is not among the
    /// file's readers may be asked as well.
    pub fn get_as(&self, key: &str, dialect: Dialect) -> Option<Reading> {
        let bindings = crate::dialect::read(dialect, self.text.expose()).ok()?;
        effective(&bindings).get(key).map(|b| b.reading.clone())
    }

    /// Everything on which the file's readers disagree, by line. A rotation refuses those that
    /// [block](Ambiguity::blocks) its own keys and warns of the rest.
    pub fn ambiguities(&self) -> Vec<Ambiguity> {
        compare(&self.views)
    }

    /// Gives `key` a new value, in place: `export`, separator, spaces, quotes, comment and line end stay.
    ///
    /// Refused when the key is missing, bare, defined twice, made of references or read differently by two readers, and when
    /// a reader would not read exactly `value` there. Values of `[A-Za-z0-9_-]` can always be carried.
    pub fn set(&mut self, key: &str, value: &Secret) -> Result<Change, EnvFileError> {
        if value.is_empty() {
            return Err(EnvFileError::EmptyValue {
                key: key.to_owned(),
            });
        }
        let target = self.target(key)?;
        if matches!(target.reading, Reading::Interpolated(_)) {
            return Err(EnvFileError::Interpolated {
                key: key.to_owned(),
                line: target.line,
            });
        }
        if let Some(ambiguity) = self.ambiguities().into_iter().find(|a| a.blocks(&[key])) {
            return Err(EnvFileError::Ambiguous(ambiguity));
        }
        let new = Reading::Value(value.clone());
        self.edit(&target, value, |_| Some(new.clone()))
            .map_err(|dialect| EnvFileError::CannotCarry {
                key: key.to_owned(),
                line: target.line,
                dialect,
                quote: target.quote,
            })
    }

    /// The keys that at least one reader reads otherwise in `other`, also those that only one file has. An edit of quotes,
    /// comments or order is no change here; [`EnvFile::differs_only_in`] sees it.
    pub fn changed_keys(&self, other: &Self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (mine, theirs) in self.views.iter().zip(&other.views) {
            let empty = Vec::new();
            let mine = effective(mine.bindings.as_ref().unwrap_or(&empty));
            let theirs = effective(theirs.bindings.as_ref().unwrap_or(&empty));
            for key in mine.keys().chain(theirs.keys()) {
                let same = match (mine.get(key), theirs.get(key)) {
                    (Some(a), Some(b)) => a.reading.same_as(&b.reading),
                    _ => false,
                };
                if !same {
                    changed.insert((*key).to_owned());
                }
            }
        }
        changed
    }

    /// Whether both files are byte for byte the same but for the values of `keys`.
    pub fn differs_only_in(&self, other: &Self, keys: &[&str]) -> bool {
        let without = |file: &Self| {
            let mut pieces = Vec::new();
            let mut at = 0;
            for b in file
                .bindings()
                .iter()
                .filter(|b| keys.contains(&b.key.as_str()))
            {
                pieces.push(Secret::new(&file.text.expose()[at..b.source.start]));
                at = b.source.end;
            }
            pieces.push(Secret::new(&file.text.expose()[at..]));
            pieces
        };
        let (mine, theirs) = (without(self), without(other));
        mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(a, b)| a.same_as(b))
    }

    pub(crate) fn bindings(&self) -> &[Binding] {
        self.views[0].bindings.as_deref().unwrap_or_default()
    }

    fn last(&self, key: &str) -> Option<&Binding> {
        self.bindings().iter().rfind(|b| b.key == key)
    }

    /// The only definition of `key`, with a value of its own.
    pub(crate) fn target(&self, key: &str) -> Result<Binding, EnvFileError> {
        let found: Vec<&Binding> = self.bindings().iter().filter(|b| b.key == key).collect();
        let key = key.to_owned();
        match found.as_slice() {
            [] => Err(EnvFileError::MissingKey { key }),
            [one] if matches!(one.reading, Reading::Inherited) => Err(EnvFileError::NoValue {
                key,
                line: one.line,
            }),
            [one] => Ok((*one).clone()),
            many => Err(EnvFileError::DuplicateKey {
                key,
                lines: many.iter().map(|b| b.line).collect(),
            }),
        }
    }

    /// The bytes of a value as they stand in the file, without the quotes.
    pub(crate) fn source(&self, binding: &Binding) -> &str {
        &self.text.expose()[binding.source.clone()]
    }

    /// Puts `source` where the bytes of `target`'s value are, if every reader then reads what `expected` makes of its former
    /// reading, and everything else as before. Otherwise nothing changes, and the first reader that would not is returned.
    pub(crate) fn edit(
        &mut self,
        target: &Binding,
        source: &Secret,
        expected: impl Fn(&Reading) -> Option<Reading>,
    ) -> Result<Change, Dialect> {
        // No environment can hold a NUL, and the file could not be parsed again.
        if source.expose().contains('\0') {
            return Err(self.views[0].dialect);
        }
        let text = self.spliced(target.source.clone(), source.expose());
        let after = views(&self.readers, text.expose());
        if let Some(dialect) = first_surprise(&self.views, &after, &target.key, expected) {
            return Err(dialect);
        }
        self.text = text;
        self.views = after;
        Ok(Change {
            key: target.key.clone(),
            line: target.line,
        })
    }

    fn spliced(&self, range: Range<usize>, with: &str) -> Secret {
        let text = self.text.expose();
        // The full size at once, so that growing leaves no copies behind.
        let mut new = String::with_capacity(text.len() - range.len() + with.len());
        new.push_str(&text[..range.start]);
        new.push_str(with);
        new.push_str(&text[range.end..]);
        Secret::new(new)
    }
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile")
            .field("keys", &self.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
