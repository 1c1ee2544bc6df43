//! Keyed fingerprints: how records name a value without holding it.
//!
//! A plain hash of a low-entropy password can be guessed offline by anyone who reads the trail. With a key that never
//! leaves keyroll's own directory it cannot (HMAC, RFC 2104).

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Secret;

/// The key of all fingerprints of one host. 32 bytes.
#[derive(Clone)]
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

/// The first 8 bytes of HMAC-SHA-256 over the value, in lower-case hex. Equal values have equal fingerprints under one key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl FingerprintKey {
    /// Uses these bytes as the key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The fingerprint of `secret` under this key.
    pub fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        use std::fmt::Write as _;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        mac.update(secret.expose().as_bytes());
        let digest = mac.finalize().into_bytes();
        let mut hex = String::with_capacity(16);
        for byte in &digest[..8] {
            let _ = write!(hex, "{byte:02x}");
        }
        Fingerprint(hex)
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

impl Fingerprint {
    /// The hex text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_agree_under_one_key_and_differ_under_another() {
        let (a, b) = (
            FingerprintKey::from_bytes([1; 32]),
            FingerprintKey::from_bytes([2; 32]),
        );
        let secret = Secret::new("value");
        assert_eq!(a.fingerprint(&secret), a.fingerprint(&secret.clone()));
        assert_ne!(a.fingerprint(&secret), b.fingerprint(&secret));
        assert_eq!(a.fingerprint(&secret).as_str().len(), 16);
    }
}
