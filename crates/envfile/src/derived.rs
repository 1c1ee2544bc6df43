//! Values made from a secret: found by value, and rewritten with it.

use keyroll_secret::Secret;

use crate::dialect::{Binding, Dialect, Reading};
use crate::embed::{Held, How, put, search};
use crate::file::{Change, EnvFile};

/// What is known about the keys of a file before the search.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// Keys that are never touched: the rotated one itself, and secrets of their own that may have the same value.
    pub own: &'a [&'a str],
    /// Keys that are known to be made from this secret: here even a common value is taken for a copy.
    pub derived: &'a [&'a str],
}

/// A key whose value holds the old secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The key.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// In which ways, in the order of the value.
    pub how: Vec<How>,
}

/// A key that may hold the old secret, and was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubtful {
    /// The key.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// Why it was left alone.
    pub doubt: Doubt,
}

/// Why a key was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// The value holds the secret in a way that is not understood.
    NotUnderstood,
    /// The value equals the secret and the name is a secret's, but the value is so common that this may be another secret. The
    /// profile can say which: see [`Scope`].
    Common,
    /// The key is defined more than once.
    Duplicate,
    /// This parser reads the key differently, or would not read the new value as it should.
    CannotCarry(Dialect),
}

/// What came of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Embedded {
    /// Understood; rewritten by [`EnvFile::replace_embedded`].
    pub derived: Vec<Derived>,
    /// Unknown: a rotation refuses, with the names.
    pub unknown: Vec<Doubtful>,
    /// Keys whose whole value is the same common text, under a name that is no secret's (`POSTGRES_USER` beside a password
    /// `postgres`). Left alone; worth a line of output.
    pub coincidences: Vec<String>,
}

impl EnvFile {
    /// Finds the keys whose values hold `old`, changing nothing.
    pub fn find_embedded(&self, old: &Secret, scope: &Scope<'_>) -> Embedded {
        self.clone().each_embedded(old, scope, |file, target| {
            // A stand-in shows whether the place can be written at all; it has the characters of a generated value.
            file.rewrite(target, old, &Secret::new("stand-in"), scope)
        })
    }

    /// Puts `new` in the place of `old` wherever a value holds it in a way that is understood: as the whole value, in a URL,
    /// in a connection string; percent-encoded in URLs. Quotes, comments and everything around stay.
    ///
    /// `old` is taken for *distinctive* with 24 characters or more, with 12 if it has letters and digits, with 8 if it has
    /// three of lower case, upper case, digits and others. The rules:
    ///
    /// - the password of a URL, a password parameter: at any strength, as the place says what it is. Whether a URL of
    ///   something else happens to have the same weak password cannot be seen here: [`How::Url`] has the scheme, and
    ///   [`Scope::own`] keeps a key out;
    /// - the whole value: if `old` is distinctive or the key is in [`Scope::derived`]; otherwise it is
    ///   [`Doubt::Common`] under a secret's name, and a coincidence under any other;
    /// - anywhere else: [`Doubt::NotUnderstood`] if `old` is distinctive, or if it has 8 characters, stands as a word of its
    ///   own, and the key is named like a secret; otherwise nothing. Under 8 characters no substring counts.
    ///
    /// Readers may read such a key differently (a `#` in a URL), as long as each of them sees its own former text with the new
    /// secret in it, and nothing else changed.
    ///
    /// Encodings other than percent-encoding (base64, hashes) are not looked for, nor are comments.
    pub fn replace_embedded(&mut self, old: &Secret, new: &Secret, scope: &Scope<'_>) -> Embedded {
        self.each_embedded(old, scope, |file, target| {
            file.rewrite(target, old, new, scope)
        })
    }

    fn each_embedded(
        &mut self,
        old: &Secret,
        scope: &Scope<'_>,
        mut act: impl FnMut(&mut Self, &Binding) -> Result<Change, Doubt>,
    ) -> Embedded {
        let mut found = Embedded::default();
        let mut seen = Vec::new();
        for binding in self.bindings().to_vec() {
            let Some(held) = hold(&binding.key, &binding.reading, old, scope) else {
                continue;
            };
            let (key, line) = (binding.key.clone(), binding.line);
            if scope.own.contains(&key.as_str()) || seen.contains(&key) {
                continue;
            }
            let doubt = match held {
                Held::No => continue,
                Held::Coincidence => {
                    found.coincidences.push(key);
                    continue;
                }
                Held::Common => Doubt::Common,
                Held::Somehow => Doubt::NotUnderstood,
                Held::In(places) => {
                    let how = places.into_iter().map(|p| p.how).collect();
                    // An edit moves what follows it, so the target is looked up again.
                    let outcome = match self.target(&key) {
                        Ok(target) => act(self, &target),
                        Err(_) => Err(Doubt::Duplicate),
                    };
                    match outcome {
                        Ok(Change { .. }) => {
                            found.derived.push(Derived { key, line, how });
                            continue;
                        }
                        Err(doubt) => doubt,
                    }
                }
            };
            seen.push(key.clone());
            found.unknown.push(Doubtful { key, line, doubt });
        }
        found
    }

    fn rewrite(
        &mut self,
        target: &Binding,
        old: &Secret,
        new: &Secret,
        scope: &Scope<'_>,
    ) -> Result<Change, Doubt> {
        let source = Secret::new(self.source(target));
        let derived = scope.derived.contains(&target.key.as_str());
        let Held::In(places) = search(&target.key, source.expose(), old, derived) else {
            return Err(Doubt::NotUnderstood);
        };
        let source = put(source.expose(), &places, new).ok_or(Doubt::NotUnderstood)?;
        let key = target.key.clone();
        self.edit(target, &source, |was| {
            let Some(Held::In(places)) = hold(&key, was, old, scope) else {
                return None;
            };
            match was {
                Reading::Value(text) => put(text.expose(), &places, new).map(Reading::Value),
                // A dollar sign in the new value would be a reference there.
                Reading::Interpolated(text) if !new.expose().contains('$') => {
                    put(text.expose(), &places, new).map(Reading::Interpolated)
                }
                _ => None,
            }
        })
        .map_err(Doubt::CannotCarry)
    }
}

fn hold(key: &str, reading: &Reading, old: &Secret, scope: &Scope<'_>) -> Option<Held> {
    let text = reading.text()?;
    let derived = scope.derived.contains(&key);
    match (search(key, text.expose(), old, derived), reading) {
        // In a template a dollar sign is no part of a value, so a match that contains one is not the secret.
        (Held::In(_), Reading::Interpolated(_)) if old.expose().contains('$') => {
            Some(Held::Somehow)
        }
        (held, _) => Some(held),
    }
}
