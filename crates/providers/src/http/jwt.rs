//! Reading and re-signing JSON Web Tokens (RFC 7519), to prove which key a panel checks them with.
//!
//! That an old token is refused after a rotation proves little: it may have expired, or its session was revoked. The proof
//! takes a token of a session that is alive, keeps header and claims to the byte, and signs them with the old key: refused;
//! and with the new key: accepted. The key is the secret's text as it stands, as Node's `jsonwebtoken` takes it;
//! [`signed_with`] shows beforehand whether that is how the panel does it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use keyroll_secret::Secret;
use serde_json::Value;
use sha2::{Sha256, Sha384, Sha512};
use thiserror::Error;

/// A token, taken apart and not checked. `Debug` shows the algorithm alone.
#[derive(Clone)]
pub struct Decoded {
    header: Value,
    claims: Value,
}

/// Why a text could not be used as a token. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Not three parts.
    #[error(
        "not a signed JSON Web Token: it has {0} parts between dots instead of 3; the token may be opaque"
    )]
    NotThreeParts(usize),
    /// A part is not base64url of a JSON object.
    #[error("not a JSON Web Token: its {0} is not base64url of a JSON object")]
    NotAnObject(&'static str),
    /// The signature is not base64url.
    #[error("not a JSON Web Token: its signature is not base64url")]
    Signature,
    /// Signed with something other than a shared key.
    #[error(
        "the token is signed with {0:?}; keyroll re-signs HS256, HS384 and HS512, whose key is a shared secret"
    )]
    Algorithm(String),
}

impl Decoded {
    /// The header.
    pub fn header(&self) -> &Value {
        &self.header
    }

    /// The claims.
    pub fn claims(&self) -> &Value {
        &self.claims
    }

    /// `alg`, or nothing.
    pub fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    /// `exp`, in seconds since the Unix epoch.
    pub fn expires(&self) -> Option<i64> {
        let exp = &self.claims["exp"];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "RFC 7519 allows fractions; whole seconds do"
        )]
        exp.as_i64().or_else(|| exp.as_f64().map(|e| e as i64))
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded({:?})", self.algorithm())
    }
}

/// Takes a token apart. Checks no signature and no time.
pub fn decode(token: &Secret) -> Result<Decoded, JwtError> {
    let parts = split(token)?;
    let object = |part: &str, name| {
        URL_SAFE_NO_PAD
            .decode(part)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .filter(Value::is_object)
            .ok_or(JwtError::NotAnObject(name))
    };
    Ok(Decoded {
        header: object(parts.header, "header")?,
        claims: object(parts.claims, "claims")?,
    })
}

/// The same header and claims, to the byte, signed with `key` by the header's algorithm.
pub fn resign(token: &Secret, key: &Secret) -> Result<Secret, JwtError> {
    let algorithm = decode(token)?.algorithm().to_owned();
    let signed = split(token)?.signed;
    let signature = sign(&algorithm, key, signed)?;
    Ok(Secret::new(format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(signature)
    )))
}

/// Whether the token's signature was made with `key`.
pub fn signed_with(token: &Secret, key: &Secret) -> Result<bool, JwtError> {
    let found = URL_SAFE_NO_PAD
        .decode(split(token)?.signature)
        .map_err(|_| JwtError::Signature)?;
    let algorithm = decode(token)?.algorithm().to_owned();
    let right = sign(&algorithm, key, split(token)?.signed)?;
    Ok(found.len() == right.len()
        && found.iter().zip(right).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0)
}

struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims with their dot: what is signed.
    signed: &'a str,
}

fn split(token: &Secret) -> Result<Parts<'_>, JwtError> {
    let text = token.expose();
    let count = text.split('.').count();
    let parts = || {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Parts {
            header,
            claims,
            signature,
            signed,
        })
    };
    if count != 3 {
        return Err(JwtError::NotThreeParts(count));
    }
    parts().ok_or(JwtError::NotThreeParts(count))
}

fn sign(algorithm: &str, key: &Secret, text: &str) -> Result<Vec<u8>, JwtError> {
    macro_rules! hmac {
        ($hash:ty) => {{
            let mut mac = <Hmac<$hash>>::new_from_slice(key.expose().as_bytes())
                .expect("HMAC takes keys of any length");
            mac.update(text.as_bytes());
            Ok(mac.finalize().into_bytes().to_vec())
        }};
    }
    match algorithm {
        "HS256" => hmac!(Sha256),
        "HS384" => hmac!(Sha384),
        "HS512" => hmac!(Sha512),
        other => Err(JwtError::Algorithm(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The well-known example of jwt.io, key `your-256-bit-secret`.
    const EXAMPLE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";

    fn token(header: &str, claims: &str) -> Secret {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        Secret::new(format!("{}.{}.AAAA", encode(header), encode(claims)))
    }

    #[test]
    fn a_known_token_is_signed_with_its_key_and_no_other() {
        let example = Secret::new(EXAMPLE);
        let key = Secret::new("your-256-bit-secret");
        assert!(signed_with(&example, &key).unwrap());
        assert!(!signed_with(&example, &Secret::new("another")).unwrap());
        assert!(resign(&example, &key).unwrap().same_as(&example));
        assert_eq!(decode(&example).unwrap().claims()["name"], "John Doe");
    }

    #[test]
    fn another_key_changes_the_signature_and_nothing_else() {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = format!("{{\"kid\": \"1\",  \"alg\":\"{algorithm}\"}}");
            let original = token(&header, "{\"exp\":1700000000.5, \"sub\":\"a\"}");
            let key = Secret::new("new-key");
            let signed = resign(&original, &key).unwrap();
            let before = |t: &Secret| t.expose().rsplit_once('.').unwrap().0.to_owned();
            assert_eq!(before(&original), before(&signed));
            assert!(signed_with(&signed, &key).unwrap());
            assert!(!signed_with(&original, &key).unwrap());
            assert_eq!(decode(&signed).unwrap().expires(), Some(1_700_000_000));
        }
    }

    #[test]
    fn a_token_without_a_shared_key_or_of_no_known_form_is_named_for_what_it_is() {
        let key = Secret::new("k");
        for algorithm in ["RS256", "none", ""] {
            let error = resign(&token(&format!("{{\"alg\":\"{algorithm}\"}}"), "{}"), &key);
            assert_eq!(error.unwrap_err(), JwtError::Algorithm(algorithm.into()));
        }
        assert_eq!(
            decode(&Secret::new("opaque")).unwrap_err(),
            JwtError::NotThreeParts(1)
        );
        assert_eq!(
            decode(&Secret::new("a.b.c.d.e")).unwrap_err(),
            JwtError::NotThreeParts(5)
        );
        assert_eq!(
            decode(&token("[]", "{}")).unwrap_err(),
            JwtError::NotAnObject("header")
        );
        assert_eq!(
            decode(&token("{}", "x")).unwrap_err(),
            JwtError::NotAnObject("claims")
        );
    }

    #[test]
    fn a_decoded_token_does_not_print_its_claims() {
        let shown = format!("{:?}", decode(&Secret::new(EXAMPLE)).unwrap());
        assert_eq!(shown, "Decoded(\"HS256\")");
    }
}
