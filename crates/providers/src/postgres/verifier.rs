//! What PostgreSQL stores in place of a password.
//!
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (RFC 5803, base64), or `md5` and 32 hex digits over password
//! and role name. The server stores what looks like one of them verbatim, and takes anything else for a password.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use keyroll_secret::{Format, Secret};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// What `postgres_protocol` and every server before 16 use; 16 and later can be told otherwise (`scram_iterations`).
const DEFAULT_ITERATIONS: u32 = 4096;

/// A well-formed verifier: there is no way to make one of these that the server would take for a password.
///
/// It is not the password, but it can be attacked offline, so it is handled as a secret.
#[derive(Clone)]
pub struct Verifier {
    text: Secret,
    kind: VerifierKind,
}

/// The kinds of verifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifierKind {
    /// SCRAM-SHA-256 with this number of PBKDF2 iterations.
    Scram {
        /// At least 1.
        iterations: u32,
    },
    /// The old md5 kind, bound to the role's name.
    Md5,
}

/// Why a text is no verifier, or none can be made. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// PostgreSQL would take it for a password and hash it.
    #[error(
        "not a SCRAM-SHA-256 or md5 verifier ({0}); PostgreSQL would silently hash it as if it were the password"
    )]
    NotAVerifier(&'static str),
    /// Other iteration counts than 4096 are computed here for ASCII alone, which needs no SASLprep (RFC 4013).
    #[error(
        "a password that is not ASCII can only be given a SCRAM verifier of 4096 iterations, not {iterations}"
    )]
    NotAscii {
        /// The count asked for.
        iterations: u32,
    },
    /// PostgreSQL reads an empty password as "no password".
    #[error("an empty password has no verifier: PostgreSQL would clear the role's password")]
    Empty,
    /// The system's generator gave no salt.
    #[error("no salt: {0}")]
    NoSalt(String),
}

impl Default for VerifierKind {
    fn default() -> Self {
        Self::Scram {
            iterations: DEFAULT_ITERATIONS,
        }
    }
}

impl fmt::Display for VerifierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scram { iterations } => write!(f, "SCRAM-SHA-256 ({iterations} iterations)"),
            Self::Md5 => f.write_str("md5"),
        }
    }
}

impl Verifier {
    /// Computes a verifier of `kind` for `role` with `password`, with a fresh salt. CPU work of about a millisecond for each
    /// 4096 iterations.
    pub fn make(kind: VerifierKind, role: &str, password: &Secret) -> Result<Self, Malformed> {
        let plain = password.expose().as_bytes();
        if plain.is_empty() {
            return Err(Malformed::Empty);
        }
        let text = match kind {
            VerifierKind::Md5 => postgres_protocol::password::md5(plain, role),
            VerifierKind::Scram { iterations } if iterations == DEFAULT_ITERATIONS => {
                postgres_protocol::password::scram_sha_256(plain)
            }
            VerifierKind::Scram { iterations } => {
                if !plain.is_ascii() {
                    return Err(Malformed::NotAscii { iterations });
                }
                let salt = Format::default()
                    .generate()
                    .map_err(|e| Malformed::NoSalt(e.to_string()))?;
                scram(plain, &Sha256::digest(salt.expose())[..16], iterations)
            }
        };
        Self::parse(Secret::new(text))
    }

    /// Takes a text that a server stored, or that [`Verifier::secret`] gave.
    pub fn parse(text: Secret) -> Result<Self, Malformed> {
        let kind = kind_of(text.expose())?;
        Ok(Self { text, kind })
    }

    /// Whether PostgreSQL would store `text` verbatim.
    pub fn is_wellformed(text: &Secret) -> bool {
        kind_of(text.expose()).is_ok()
    }

    /// Its kind.
    pub fn kind(&self) -> VerifierKind {
        self.kind
    }

    /// The text as PostgreSQL stores it: for sealing, and for writing it back.
    pub fn secret(&self) -> &Secret {
        &self.text
    }

    /// Whether both are the same text.
    pub fn same_as(&self, other: &Self) -> bool {
        self.text.same_as(&other.text)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.kind)
    }
}

/// The same reading as the server's `get_password_type` and `parse_scram_secret` (src/backend/libpq), at least as strict.
fn kind_of(text: &str) -> Result<VerifierKind, Malformed> {
    let no = Malformed::NotAVerifier;
    if let Some(digits) = text.strip_prefix("md5") {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        return if digits.len() == 32 && digits.bytes().all(hex) {
            Ok(VerifierKind::Md5)
        } else {
            Err(no("md5 must be followed by 32 lower-case hex digits"))
        };
    }
    let rest = text
        .strip_prefix("SCRAM-SHA-256$")
        .ok_or(no("unknown prefix"))?;
    let mut fields = rest.split('$');
    let (Some(first), Some(second), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err(no("wrong number of fields"));
    };
    let (iterations, salt) = first.split_once(':').ok_or(no("no salt"))?;
    let (stored, server) = second.split_once(':').ok_or(no("no ServerKey"))?;
    let iterations = Some(iterations)
        .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| (1..=i32::MAX.unsigned_abs()).contains(n))
        .ok_or(no("the iteration count is no positive number"))?;
    if STANDARD.decode(salt).map_or(0, |s| s.len()) == 0 {
        return Err(no("the salt is not base64"));
    }
    for key in [stored, server] {
        if STANDARD.decode(key).map_or(0, |k| k.len()) != 32 {
            return Err(no("a key is not 32 bytes of base64"));
        }
    }
    Ok(VerifierKind::Scram { iterations })
}

/// RFC 5802, section 3, with SHA-256 (RFC 7677).
fn scram(password: &[u8], salt: &[u8], iterations: u32) -> String {
    let mac = |key: &[u8], data: &[&[u8]]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        for part in data {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    // Hi(): PBKDF2 with one block of output.
    let mut last = mac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut salted = last;
    for _ in 1..iterations {
        last = mac(password, &[&last]);
        salted.iter_mut().zip(last).for_each(|(a, b)| *a ^= b);
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scram_verifier_computed_here_equals_the_protocol_crates() {
        let password = "correct horse_battery-staple";
        let theirs = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let salt = theirs.split([':', '$']).nth(2).unwrap();
        let salt = STANDARD.decode(salt).unwrap();
        assert_eq!(scram(password.as_bytes(), &salt, 4096), theirs);
    }

    #[test]
    fn every_kind_that_is_made_is_wellformed_and_keeps_its_kind() {
        let password = Secret::new("pw-pw-pw");
        for kind in [
            VerifierKind::Md5,
            VerifierKind::default(),
            VerifierKind::Scram { iterations: 10_000 },
        ] {
            let verifier = Verifier::make(kind, "panel", &password).unwrap();
            assert_eq!(verifier.kind(), kind);
            assert!(Verifier::is_wellformed(verifier.secret()));
            assert!(!format!("{verifier:?}").contains(verifier.secret().expose()));
        }
    }

    #[test]
    fn what_the_server_would_hash_as_a_password_is_refused() {
        let good = postgres_protocol::password::scram_sha_256(b"x");
        let cases = [
            String::new(),
            "hunter2".into(),
            "md5".into(),
            format!("md5{}", "A".repeat(32)),
            format!("md5{}", "a".repeat(31)),
            good.replace("4096", "0"),
            good.replace("4096", "+4096"),
            good.replace("4096", "4096x"),
            good.replace("4096", "99999999999"),
            good.replace("SCRAM-SHA-256", "SCRAM-SHA-512"),
            good.trim_end_matches('=').to_owned(),
            format!("{good}$x"),
            format!("{good} "),
            good.rsplit_once(':').unwrap().0.to_owned(),
        ];
        for case in cases {
            assert!(
                !Verifier::is_wellformed(&Secret::new(case.clone())),
                "{case}"
            );
        }
    }

    #[test]
    fn a_password_that_needs_saslprep_is_refused_where_it_would_be_computed_wrongly() {
        let password = Secret::new("pässwört");
        let odd = VerifierKind::Scram { iterations: 5000 };
        assert_eq!(
            Verifier::make(odd, "r", &password).unwrap_err(),
            Malformed::NotAscii { iterations: 5000 }
        );
        assert!(Verifier::make(VerifierKind::default(), "r", &password).is_ok());
    }

    #[test]
    fn an_empty_password_has_no_verifier() {
        for kind in [VerifierKind::Md5, VerifierKind::default()] {
            assert_eq!(
                Verifier::make(kind, "r", &Secret::new("")).unwrap_err(),
                Malformed::Empty
            );
        }
    }

    proptest! {
        #[test]
        fn reading_any_text_never_panics(text in "(md5|SCRAM-SHA-256\\$)?[0-9a-f:$=+/A-Z]{0,80}") {
            let _ = Verifier::is_wellformed(&Secret::new(text));
        }
    }
}
