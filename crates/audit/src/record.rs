//! One line of the trail, and the head that the next one follows.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{Body, Break, Broken};

const FORMAT: u32 = 1;
/// Between the hashed bytes and the hash.
const MARK: &str = ",\"hash\":\"";
/// After the hash.
const END: &str = "\"}";
/// Characters of a SHA-256 in hex.
const HASH: usize = 64;

/// A record, and the exact line that it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    line: String,
    fields: Fields,
    hash: String,
}

/// All but the hash, in the order of the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Fields {
    format: u32,
    sequence: u64,
    previous: String,
    at: Timestamp,
    keyroll: String,
    body: Body,
}

/// The last record's number and hash: what the next one follows, and what vouches for all before it.
///
/// As text `12:9f86d0…`, for the summary, the system journal and `keyroll audit verify --head`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The record's number; 0 when there is none.
    pub sequence: u64,
    /// Its hash, 64 lower-case hex digits; zeros when there is none.
    pub hash: String,
}

/// Text that is no head.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no head of a trail: a number, a colon and 64 hex digits, as the summary and the system journal show it"
)]
pub struct HeadError {
    /// The text.
    pub text: String,
}

impl Record {
    /// The record that follows `previous`, with this crate's version as keyroll's.
    pub fn chain(previous: &Head, body: Body, at: Timestamp) -> Self {
        let fields = Fields {
            format: FORMAT,
            sequence: previous.sequence + 1,
            previous: previous.hash.clone(),
            at,
            keyroll: env!("CARGO_PKG_VERSION").to_owned(),
            body,
        };
        let mut line = serde_json::to_string(&fields)
            .expect("records have only text, numbers and JSON values");
        // The closing brace makes room for the hash.
        line.pop();
        let hash = hex(line.as_bytes());
        line.push_str(MARK);
        line.push_str(&hash);
        line.push_str(END);
        Self { line, fields, hash }
    }

    /// Reads a stored line and checks its own hash; its place in the chain is for [`crate::verify`] to check.
    pub fn parse(line: &str) -> Result<Self, Broken> {
        let (hashed, hash) =
            split(line).ok_or_else(|| Broken::NotARecord("it does not end in a hash".into()))?;
        if hex(hashed.as_bytes()) != hash {
            return Err(Broken::Changed);
        }
        let fields: Fields =
            serde_json::from_str(line).map_err(|e| Broken::NotARecord(e.to_string()))?;
        if fields.format != FORMAT {
            return Err(Broken::Newer(fields.format));
        }
        Ok(Self {
            line: line.to_owned(),
            fields,
            hash: hash.to_owned(),
        })
    }

    /// The line, to be stored and exported as it is: without a line break, and never to be written anew from its fields.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Its number, from 1.
    pub fn sequence(&self) -> u64 {
        self.fields.sequence
    }

    /// The hash of the record before.
    pub fn previous(&self) -> &str {
        &self.fields.previous
    }

    /// When it was written, by the host's clock.
    pub fn at(&self) -> Timestamp {
        self.fields.at
    }

    /// The version of keyroll that wrote it.
    pub fn keyroll(&self) -> &str {
        &self.fields.keyroll
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.fields.body
    }

    /// Its number and hash.
    pub fn head(&self) -> Head {
        Head {
            sequence: self.fields.sequence,
            hash: self.hash.clone(),
        }
    }
}

impl Head {
    /// The head of an empty trail.
    pub fn none() -> Self {
        Self {
            sequence: 0,
            hash: "0".repeat(HASH),
        }
    }

    /// The head of a trail whose last stored line is `last`.
    ///
    /// Fails when that line was changed: what is chained to it would only bury the break. Verify the trail before a rotation, so
    /// that this is found while nothing has happened yet.
    pub fn after(last: Option<&str>) -> Result<Self, Break> {
        let Some(line) = last else {
            return Ok(Self::none());
        };
        Record::parse(line)
            .map(|record| record.head())
            .map_err(|what| Break { at: None, what })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let parse = || {
            let (sequence, hash) = text.trim().split_once(':')?;
            let hash = hash.to_ascii_lowercase();
            let fits = hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_hexdigit());
            let digits = !sequence.is_empty() && sequence.bytes().all(|b| b.is_ascii_digit());
            (fits && digits).then_some(Self {
                sequence: sequence.parse().ok()?,
                hash,
            })
        };
        parse().ok_or_else(|| HeadError {
            text: text.to_owned(),
        })
    }
}

/// The hashed part of a line, and the hash.
fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_suffix(END)?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH)?)?;
    Some((rest.strip_suffix(MARK)?, hash))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(HASH), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
