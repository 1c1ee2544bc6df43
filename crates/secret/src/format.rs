//! What a new value must look like, and making one from the operating system's generator.

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::Secret;

/// The characters a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `A-Z a-z 0-9 _ -`: the same in every env file dialect and in URLs, 6 bits a character.
    UrlSafe,
    /// `A-Z a-z 0-9`, just under 6 bits a character.
    Alphanumeric,
    /// `0-9 a-f`, 4 bits a character.
    Hex,
}

/// The form of a secret's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    alphabet: Alphabet,
    length: usize,
}

/// A format that would make a weak value, or a value that does not fit its format.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer than 128 bits of randomness.
    #[error("{length} characters of this alphabet give {bits} bits; at least 128 are needed")]
    TooWeak {
        /// Characters asked for.
        length: usize,
        /// Bits that they carry.
        bits: usize,
    },
    /// The operating system's generator gave an error.
    #[error("the operating system's random generator failed: {0}")]
    Generator(String),
}

impl Alphabet {
    fn characters(self) -> &'static [u8] {
        match self {
            Self::UrlSafe => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-",
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Hex => b"0123456789abcdef",
        }
    }

    /// Whole bits of `length` characters, rounded down.
    fn bits(self, length: usize) -> usize {
        match self {
            Self::UrlSafe => length * 6,
            Self::Alphanumeric => length * 5954 / 1000,
            Self::Hex => length * 4,
        }
    }
}

impl Format {
    /// A format of `length` characters; refused under 128 bits.
    pub fn new(alphabet: Alphabet, length: usize) -> Result<Self, FormatError> {
        let bits = alphabet.bits(length);
        if bits < 128 {
            return Err(FormatError::TooWeak { length, bits });
        }
        Ok(Self { alphabet, length })
    }

    /// The shortest format of this alphabet with at least 256 bits.
    pub fn strong(alphabet: Alphabet) -> Self {
        let length = (1..=256)
            .find(|n| alphabet.bits(*n) >= 256)
            .expect("256 characters of two kinds carry 256 bits");
        Self { alphabet, length }
    }

    /// Makes a value. Reads the operating system's generator (getrandom(2)); blocks only before it is seeded at boot.
    pub fn generate(&self) -> Result<Secret, FormatError> {
        let characters = self.alphabet.characters();
        // Rejection keeps every character equally likely: a plain modulo would favour the first ones.
        let limit = 256 - 256 % characters.len();
        let mut text = String::with_capacity(self.length);
        let mut buffer = Zeroizing::new([0_u8; 64]);
        while text.len() < self.length {
            OsRng
                .try_fill_bytes(&mut *buffer)
                .map_err(|e| FormatError::Generator(e.to_string()))?;
            for byte in buffer
                .iter()
                .map(|b| usize::from(*b))
                .filter(|b| *b < limit)
            {
                if text.len() < self.length {
                    text.push(char::from(characters[byte % characters.len()]));
                }
            }
        }
        Ok(Secret::new(text))
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::strong(Alphabet::UrlSafe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_43_url_safe_characters() {
        let value = Format::default().generate().unwrap();
        assert_eq!(value.expose().len(), 43);
        assert!(
            value
                .expose()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        );
    }

    #[test]
    fn two_values_are_never_the_same() {
        let format = Format::default();
        assert!(
            !format
                .generate()
                .unwrap()
                .same_as(&format.generate().unwrap())
        );
    }

    #[test]
    fn every_character_of_the_alphabet_is_reached() {
        let format = Format::new(Alphabet::UrlSafe, 20_000).unwrap();
        let value = format.generate().unwrap();
        for character in Alphabet::UrlSafe.characters() {
            assert!(value.expose().as_bytes().contains(character));
        }
    }

    #[test]
    fn a_weak_format_is_refused() {
        assert!(matches!(
            Format::new(Alphabet::Hex, 31),
            Err(FormatError::TooWeak { bits: 124, .. })
        ));
        assert!(Format::new(Alphabet::Hex, 32).is_ok());
    }
}
