//! Signing an event as a provider does, so that an application's webhook endpoint can be probed.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use keyroll_secret::Secret;
use sha2::{Sha256, Sha512};

/// How a provider signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `x-paystack-signature`: hex HMAC-SHA512 of the raw body, keyed with the API secret key itself
    /// (<https://paystack.com/docs/payments/webhooks/>).
    Paystack,
    /// `verif-hash`: the secret hash of the dashboard, as it is (<https://developer.flutterwave.com/v3.0/docs/webhooks>).
    FlutterwaveV3,
    /// `flutterwave-signature`: base64 HMAC-SHA256 of the raw body (<https://developer.flutterwave.com/docs/webhooks>).
    FlutterwaveV4,
    /// `Stripe-Signature: t=…,v1=…`: hex HMAC-SHA256 of `t.body`; receivers take it for 300 s
    /// (<https://docs.stripe.com/webhooks/signature>).
    Stripe,
}

/// A signature, as a header.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The header's name.
    pub header: &'static str,
    /// Its value. In one scheme it is the secret itself.
    pub value: Secret,
}

impl Scheme {
    /// Signs a raw body at a time in seconds since 1970, which one of the schemes signs too.
    pub fn sign(self, secret: &Secret, body: &[u8], at: u64) -> Signed {
        let (header, value) = match self {
            Self::Paystack => ("x-paystack-signature", {
                let mut mac = Hmac::<Sha512>::new_from_slice(secret.expose().as_bytes())
                    .expect("HMAC takes keys of any length");
                mac.update(body);
                hex(&mac.finalize().into_bytes())
            }),
            Self::FlutterwaveV3 => ("verif-hash", secret.expose().to_owned()),
            Self::FlutterwaveV4 => (
                "flutterwave-signature",
                STANDARD.encode(sha256(secret, &[body])),
            ),
            Self::Stripe => ("stripe-signature", {
                let stamp = format!("{at}.");
                let v1 = hex(&sha256(secret, &[stamp.as_bytes(), body]));
                format!("t={at},v1={v1}")
            }),
        };
        Signed {
            header,
            value: Secret::new(value),
        }
    }
}

fn sha256(secret: &Secret, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's `hmac`, which none of this comes from.
    #[test]
    fn events_are_signed_as_another_implementation_signs_them() {
        let key = Secret::new("sk_live_0123456789abcdef0123456789abcdef01234567");
        let body = br#"{"event":"charge.success","data":{"id":302961}}"#;
        for (scheme, header, value) in [
            (
                Scheme::Paystack,
                "x-paystack-signature",
                "0e7cec8f22bcdcee830458f8d6689f4164c6d87394ba2900ff36b68f48aa54044923b90ea64188e99123958bf8ebacbea777e898fc24e73dd8c99197fc04414d",
            ),
            (Scheme::FlutterwaveV3, "verif-hash", key.expose()),
            (
                Scheme::FlutterwaveV4,
                "flutterwave-signature",
                "R22QgfZMTHmCJ719I72kUbGzBL2tmW0nr16Cno9W1tA=",
            ),
            (
                Scheme::Stripe,
                "stripe-signature",
                "t=1700000000,v1=5fbc8f85604b7b00b4bf4647aa812eec0b31668db2dba9d1852feb78ddae9d2e",
            ),
        ] {
            let signed = scheme.sign(&key, body, 1_700_000_000);
            assert_eq!(signed.header, header);
            assert_eq!(signed.value.expose(), value, "{scheme:?}");
            assert!(!format!("{signed:?}").contains(value), "{signed:?}");
        }
    }
}
