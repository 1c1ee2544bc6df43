//! What a value must look like, before anybody is asked about it.

use keyroll_secret::Secret;
use thiserror::Error;

/// The form of a value that somebody else makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretForm {
    /// `sk_live_` or `sk_test_` and more.
    Paystack,
    /// `FLWSECK-…-X`, or `FLWSECK_TEST-…-X`.
    FlutterwaveV3,
    /// `sk_live_`, `rk_live_`, `sk_test_` or `rk_test_` and more.
    Stripe,
    /// `whsec_` and more.
    StripeWebhook,
    /// 8-4-4-4-12 hexadecimal digits (RFC 9562), as Proxmox makes token secrets.
    Uuid,
    /// An `https` URL with a path, as of an incoming webhook.
    Url,
    /// Whatever the operator and the provider agreed on, such as Flutterwave's secret hash.
    Any,
}

/// What a value works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real money.
    Live,
    /// The provider's test world.
    Test,
    /// The form does not say.
    Unsaid,
}

/// Why a value cannot be right. Says nothing of it but its length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the value of {length} characters {why}")]
pub struct FormError {
    length: usize,
    why: String,
}

impl SecretForm {
    /// Checks the form. Every form refuses what a clipboard or an editor adds: blanks, line ends, quotes.
    pub fn check(self, secret: &Secret) -> Result<Mode, FormError> {
        let text = secret.expose();
        let wrong = |why: &str| FormError {
            length: text.chars().count(),
            why: why.to_owned(),
        };
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(wrong(&format!(
                "has a character that no such value has ({})",
                odd.escape_unicode()
            )));
        }
        if text.starts_with(['"', '\'']) {
            return Err(wrong("begins with a quote"));
        }
        // Half a key, pasted.
        let rest = |prefix: &str, least: usize| {
            let rest = text.strip_prefix(prefix)?;
            let whole =
                rest.len() >= least && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            whole.then_some(())
        };
        let of = |live: &[&str], test: &[&str], least, must: &str| {
            if live.iter().any(|p| rest(p, least).is_some()) {
                Ok(Mode::Live)
            } else if test.iter().any(|p| rest(p, least).is_some()) {
                Ok(Mode::Test)
            } else {
                Err(wrong(must))
            }
        };
        match self {
            Self::Paystack => of(
                &["sk_live_"],
                &["sk_test_"],
                32,
                "is not `sk_live_` or `sk_test_` and 40 letters and digits",
            ),
            Self::Stripe => of(
                &["sk_live_", "rk_live_"],
                &["sk_test_", "rk_test_"],
                16,
                "is not `sk_live_`, `rk_live_`, `sk_test_` or `rk_test_` and letters and digits",
            ),
            Self::StripeWebhook => of(
                &["whsec_"],
                &[],
                16,
                "is not `whsec_` and letters and digits",
            )
            .map(|_| Mode::Unsaid),
            Self::FlutterwaveV3 => {
                let between = |prefix: &str| {
                    let middle = text.strip_prefix(prefix)?.strip_suffix("-X")?;
                    let whole = middle.len() >= 16
                        && middle
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
                    whole.then_some(())
                };
                if between("FLWSECK_TEST-").is_some() {
                    Ok(Mode::Test)
                } else if between("FLWSECK-").is_some() {
                    Ok(Mode::Live)
                } else {
                    Err(wrong("is not `FLWSECK-…-X` or `FLWSECK_TEST-…-X`"))
                }
            }
            Self::Uuid => {
                let parts: Vec<&str> = text.split('-').collect();
                let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
                let digits = parts
                    .iter()
                    .all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
                if lengths == [8, 4, 4, 4, 12] && digits {
                    Ok(Mode::Unsaid)
                } else {
                    Err(wrong("is not a UUID (8-4-4-4-12 hexadecimal digits)"))
                }
            }
            Self::Url => match reqwest::Url::parse(text) {
                Ok(url) if url.scheme() == "https" && url.path().len() > 1 => Ok(Mode::Unsaid),
                Ok(_) => Err(wrong("is not an https URL with a path")),
                // The parser's own words may repeat a part of it.
                Err(_) => Err(wrong("is not a URL")),
            },
            Self::Any if text.len() < 16 => Err(wrong(
                "is short enough to be guessed; at least 16 are needed",
            )),
            Self::Any => Ok(Mode::Unsaid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(form: SecretForm, text: &str) -> Result<Mode, String> {
        form.check(&Secret::new(text)).map_err(|e| e.to_string())
    }

    #[test]
    fn live_and_test_keys_are_told_apart() {
        let forty = "a1".repeat(20);
        for (form, text, mode) in [
            (SecretForm::Paystack, format!("sk_live_{forty}"), Mode::Live),
            (SecretForm::Paystack, format!("sk_test_{forty}"), Mode::Test),
            (SecretForm::Stripe, format!("rk_live_{forty}"), Mode::Live),
            (SecretForm::Stripe, format!("sk_test_{forty}"), Mode::Test),
            (
                SecretForm::FlutterwaveV3,
                format!("FLWSECK-{}-X", "0".repeat(32)),
                Mode::Live,
            ),
            (
                SecretForm::FlutterwaveV3,
                format!("FLWSECK_TEST-{}-X", "0".repeat(32)),
                Mode::Test,
            ),
            (
                SecretForm::StripeWebhook,
                format!("whsec_{forty}"),
                Mode::Unsaid,
            ),
            (
                SecretForm::Uuid,
                "01234567-89ab-cdef-0123-456789abcdef".into(),
                Mode::Unsaid,
            ),
            (
                SecretForm::Url,
                "https://hooks.example/services/T0/B0/x".into(),
                Mode::Unsaid,
            ),
            (SecretForm::Any, forty.clone(), Mode::Unsaid),
        ] {
            assert_eq!(of(form, &text), Ok(mode), "{form:?}");
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_repeating_it() {
        let forty = "hunter2".repeat(6);
        for (form, text) in [
            (SecretForm::Paystack, forty.clone()),
            (SecretForm::Paystack, "sk_live_hunter2".into()),
            (SecretForm::Paystack, format!("sk_live_{forty}\n")),
            (SecretForm::Paystack, format!("\"sk_live_{forty}\"")),
            (SecretForm::Paystack, format!("pk_live_{forty}")),
            (SecretForm::FlutterwaveV3, format!("FLWSECK-{forty}")),
            (SecretForm::FlutterwaveV3, format!("FLWPUBK-{forty}-X")),
            (SecretForm::Stripe, format!("whsec_{forty}")),
            (SecretForm::StripeWebhook, format!("sk_live_{forty}")),
            (SecretForm::Uuid, "01234567-89ab-cdef-0123-hunter2".into()),
            (SecretForm::Url, format!("http://hooks.example/{forty}")),
            (SecretForm::Url, "https://hunter2.example".into()),
            (SecretForm::Url, "hunter2:".into()),
            (SecretForm::Any, "hunter2".into()),
            (SecretForm::Any, String::new()),
            (SecretForm::Any, format!("{forty} {forty}")),
        ] {
            let refused = of(form, &text).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
