//! JSON web tokens, HS256 only, and the little that must be told about time and identifiers.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use rand::TryRngCore as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How long an access token is good for: 15 minutes, in seconds.
pub(crate) const ACCESS_SECONDS: u64 = 15 * 60;
/// How long a refresh token and its session are good for: 7 days, in seconds.
pub(crate) const REFRESH_SECONDS: u64 = 7 * 24 * 60 * 60;

/// What an access token says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) sub: String,
    pub(crate) sid: String,
    pub(crate) email: String,
    pub(crate) role: String,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
}

/// What a refresh token says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Refresh {
    pub(crate) sub: String,
    pub(crate) sid: String,
    pub(crate) jti: String,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Expiry {
    exp: u64,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// A random version 4 UUID.
pub(crate) fn uuid() -> Result<String, String> {
    let mut b = [0_u8; 16];
    rand::rngs::OsRng
        .try_fill_bytes(&mut b)
        .map_err(|e| format!("no random bytes: {e}"))?;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = hex(&b);
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// The lowercase hex SHA-256 of `text`: how the session table keeps refresh tokens.
pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}"); // writing to a String cannot fail
        out
    })
}

/// Signs `claims` with `key`.
pub(crate) fn sign(claims: &impl Serialize, key: &str) -> Result<String, String> {
    let claims = serde_json::to_vec(claims).map_err(|e| format!("claims: {e}"))?;
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = mac(&signed, key)?.finalize().into_bytes();
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The claims of `token`, when `key` signed it and it has not expired.
pub(crate) fn verify<C: DeserializeOwned>(token: &str, key: &str) -> Option<C> {
    let (signed, signature) = token.rsplit_once('.')?;
    let header: Header = part(signed.split_once('.')?.0)?;
    if header.alg != "HS256" {
        return None;
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(signed, key).ok()?.verify_slice(&signature).ok()?;
    unchecked::<Expiry>(token).filter(|claims| claims.exp > now())?;
    unchecked(token)
}

/// The claims of `token`, whoever signed it. Only the faults want this.
pub(crate) fn unchecked<C: DeserializeOwned>(token: &str) -> Option<C> {
    part(token.split('.').nth(1)?)
}

fn part<T: DeserializeOwned>(segment: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

fn mac(signed: &str, key: &str) -> Result<Hmac<Sha256>, String> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| "unusable signing key")?;
    mac.update(signed.as_bytes());
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: u64) -> Refresh {
        Refresh {
            sub: "1".to_owned(),
            sid: "2".to_owned(),
            jti: "3".to_owned(),
            iat: 0,
            exp,
        }
    }

    #[test]
    fn a_token_is_accepted_with_its_own_key_until_it_expires() {
        let good = sign(&claims(now() + 60), "one").unwrap();
        assert!(verify::<Refresh>(&good, "one").is_some());
        assert!(verify::<Refresh>(&good, "two").is_none());
        let late = sign(&claims(now() - 1), "one").unwrap();
        assert!(verify::<Refresh>(&late, "one").is_none());
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims(now() + 60)).unwrap());
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        assert!(verify::<Refresh>(&format!("{header}.{body}."), "").is_none());
    }

    #[test]
    fn identifiers_are_version_4() {
        let id = uuid().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert_ne!(id, uuid().unwrap());
    }
}
