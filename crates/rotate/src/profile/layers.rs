//! Laying profiles over one another, and finding the line that a mistake is on.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::BUILT_IN;

/// A profile that cannot be used. Nothing was done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file could not be read.
    #[error("{path}: the profile cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A key is wrong.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line, or the flag.
        place: String,
        /// What is wrong and what was expected.
        what: String,
    },
    /// There is no built-in profile of this name.
    #[error(
        "no built-in profile {name:?} (there is: {known}); a file is given by its path, such as ./{name}.toml"
    )]
    Unknown {
        /// The name.
        name: String,
        /// Those that exist.
        known: String,
    },
}

enum Origin {
    BuiltIn(String),
    File(PathBuf),
    Flag(String),
}

/// One source of keys.
pub(super) struct Layer {
    origin: Origin,
    text: String,
    table: Table,
}

impl Layer {
    pub(super) fn built_in(name: &str) -> Result<Self, ProfileError> {
        let Some((_, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) else {
            let known: Vec<&str> = BUILT_IN.iter().map(|(n, _)| *n).collect();
            return Err(ProfileError::Unknown {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        Self::parse(Origin::BuiltIn(name.to_owned()), (*text).to_owned())
    }

    pub(super) fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path).map_err(|source| ProfileError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(Origin::File(path.to_owned()), text)
    }

    /// `dotted.key=value`; a value that is no TOML value is a string, so that paths and URLs need no quotes.
    pub(super) fn flag(text: &str) -> Result<Self, ProfileError> {
        let origin = || Origin::Flag(text.to_owned());
        let Some((key, value)) = text.split_once('=').filter(|(k, _)| !k.trim().is_empty()) else {
            return Err(ProfileError::Wrong {
                place: format!("--set {text}"),
                what: "expected dotted.key=value, such as http.base_url=https://panel.example"
                    .into(),
            });
        };
        let as_toml = format!("{key} = {value}");
        if toml::from_str::<Table>(&as_toml).is_ok() {
            return Self::parse(origin(), as_toml);
        }
        Self::parse(
            origin(),
            format!("{key} = {}", Value::String(value.to_owned())),
        )
    }

    fn parse(origin: Origin, text: String) -> Result<Self, ProfileError> {
        match toml::from_str(&text) {
            Ok(table) => Ok(Self {
                origin,
                text,
                table,
            }),
            Err(error) => {
                let line = error.span().map(|s| line_of(&text, s.start));
                Err(ProfileError::Wrong {
                    place: place(&origin, line),
                    what: error.message().to_owned(),
                })
            }
        }
    }

    /// The built-in profile that this one is laid over. The key is taken out: it is no part of a profile.
    pub(super) fn extends(&self) -> Result<Option<String>, ProfileError> {
        match self.table.get("extends") {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.clone())),
            Some(_) => Err(ProfileError::Wrong {
                place: place(&self.origin, self.line(&["extends"])),
                what: "extends: expected the name of a built-in profile".into(),
            }),
        }
    }

    /// The line of the key, if this layer has it.
    fn line(&self, keys: &[&str]) -> Option<usize> {
        let table = DeTable::parse(&self.text).ok()?;
        find(table.get_ref(), keys).map(|offset| line_of(&self.text, offset))
    }
}

fn find(table: &DeTable<'_>, keys: &[&str]) -> Option<usize> {
    let (first, rest) = keys.split_first()?;
    let (key, value) = table.iter().find(|(k, _)| k.get_ref() == first)?;
    if rest.is_empty() {
        Some(key.span().start)
    } else {
        find_in(value, rest)
    }
}

fn find_in(value: &Spanned<DeValue<'_>>, keys: &[&str]) -> Option<usize> {
    match value.get_ref() {
        DeValue::Table(table) => find(table, keys),
        DeValue::Array(array) => {
            let element = array.get(keys.first()?.parse::<usize>().ok()?)?;
            if keys.len() == 1 {
                Some(element.span().start)
            } else {
                find_in(element, &keys[1..])
            }
        }
        _ => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

fn place(origin: &Origin, line: Option<usize>) -> String {
    let name = match origin {
        Origin::BuiltIn(name) => format!("built-in profile {name}"),
        Origin::File(path) => path.display().to_string(),
        Origin::Flag(text) => return format!("--set {text}"),
    };
    match line {
        Some(line) => format!("{name}:{line}"),
        None => name,
    }
}

/// All layers, the weakest first.
#[derive(Default)]
pub(super) struct Layers(Vec<Layer>);

impl Layers {
    pub(super) fn push(&mut self, layer: Layer) {
        self.0.push(layer);
    }

    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ProfileError> {
        let mut merged = Table::new();
        for layer in &self.0 {
            let mut table = layer.table.clone();
            table.remove("extends");
            merge(&mut merged, table);
        }
        serde_path_to_error::deserialize(Value::Table(merged)).map_err(|error| {
            let message = error.inner().message().to_owned();
            let mut key = error.path().to_string();
            // serde names the key that it did not expect in its message only.
            if let Some(unknown) = message
                .strip_prefix("unknown field `")
                .and_then(|m| m.split('`').next())
                && !key.ends_with(unknown)
            {
                key = if key == "." {
                    unknown.to_owned()
                } else {
                    format!("{key}.{unknown}")
                };
            }
            self.complain(&key, &message)
        })
    }

    /// An error about `key`, placed on the strongest layer that has it, or has what it would be in.
    pub(super) fn complain(&self, key: &str, what: &str) -> ProfileError {
        let dotted = key.replace('[', ".").replace(']', "");
        let keys: Vec<&str> = dotted.split('.').filter(|k| !k.is_empty()).collect();
        for depth in (1..=keys.len()).rev() {
            for layer in self.0.iter().rev() {
                if let Some(line) = layer.line(&keys[..depth]) {
                    return ProfileError::Wrong {
                        place: place(&layer.origin, Some(line)),
                        what: format!("{key}: {what}"),
                    };
                }
            }
        }
        let origin = self
            .0
            .iter()
            .rev()
            .map(|l| &l.origin)
            .find(|o| !matches!(o, Origin::Flag(_)));
        ProfileError::Wrong {
            place: origin.map_or_else(|| "profile".into(), |o| place(o, None)),
            what: if key == "." {
                what.to_owned()
            } else {
                format!("{key}: {what}")
            },
        }
    }
}

/// Tables are laid over one another key by key; anything else is replaced whole.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            // `{ env = "A" }` over `{ value = "b" }` must not become both.
            (Some(Value::Table(below)), Value::Table(above)) if !is_source(&above) => {
                merge(below, above);
            }
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn is_source(table: &Table) -> bool {
    table.len() == 1 && (table.contains_key("env") || table.contains_key("value"))
}
