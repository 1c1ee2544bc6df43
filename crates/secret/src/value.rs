//! The value itself.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// RFC 3986 section 2.3: everything but the unreserved characters is encoded, which is right in every part of a URL.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Encodes `text` for use as the user name or password of a URL (RFC 3986, section 2.1, upper-case hex).
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A secret value: UTF-8 text, wiped from memory when dropped.
///
/// There is no `Display` and no `Serialize`; `Debug` prints the type's name alone. The only way to the text is
/// [`Secret::expose`], a word that is easy to search for in a review.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text`; the caller's own copies, if any, are the caller's to wipe.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text. Do not store it in anything that outlives the call it is passed to.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text as it stands inside a URL's user or password part (RFC 3986 percent-encoding).
    #[must_use]
    pub fn percent_encoded(&self) -> Self {
        Self::new(percent_encode(&self.0))
    }

    /// Whether both hold the same text, in time that depends on the lengths alone.
    pub fn same_as(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0_u8, |acc, (x, y)| acc | (x ^ y)) == 0
    }

    /// True when there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_type_and_never_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(..)");
    }

    #[test]
    fn a_password_with_url_characters_is_encoded_as_rfc_3986_says() {
        assert_eq!(
            Secret::new("p@$$w0rd/:#~-_.").percent_encoded().expose(),
            "p%40%24%24w0rd%2F%3A%23~-_."
        );
    }

    #[test]
    fn equality_looks_at_every_byte_and_the_length() {
        assert!(Secret::new("abc").same_as(&Secret::new("abc")));
        assert!(!Secret::new("abc").same_as(&Secret::new("abd")));
        assert!(!Secret::new("abc").same_as(&Secret::new("abcd")));
    }
}
