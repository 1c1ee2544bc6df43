//! Counting and hashing what passes through.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Size and hash of a sequence of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex, 64 characters.
    pub sha256: String,
}

/// Passes bytes on, counts and hashes those that really went through.
pub(crate) struct Tally<T> {
    inner: T,
    bytes: u64,
    hash: Sha256,
}

impl<T> Tally<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> (T, Measured) {
        let measured = Measured {
            bytes: self.bytes,
            sha256: hex(&self.hash.finalize()),
        };
        (self.inner, measured)
    }

    fn took(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }
}

impl<T: Write> Write for Tally<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.took(&buffer[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Tally<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.took(&buffer[..n]);
        Ok(n)
    }
}

/// Reads to the end and measures.
pub(crate) fn measure(reader: impl Read) -> io::Result<Measured> {
    let mut tally = Tally::new(reader);
    io::copy(&mut tally, &mut io::sink())?;
    Ok(tally.finish().1)
}

pub(crate) fn measure_bytes(bytes: &[u8]) -> Measured {
    Measured {
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one byte at a time, then fails.
    struct Reluctant(usize);

    impl Write for Reluctant {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= 1;
            Ok(buffer.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_empty_sequence_has_the_published_hash() {
        let measured = measure(io::empty()).unwrap();
        assert_eq!(measured.bytes, 0);
        assert!(
            measured.sha256.starts_with("e3b0c44298fc1c14"),
            "{}",
            measured.sha256
        );
        assert_eq!(measured, measure_bytes(b""));
    }

    #[test]
    fn only_bytes_that_went_through_are_counted() {
        let mut tally = Tally::new(Reluctant(3));
        assert!(tally.write_all(b"abcdef").is_err());
        assert_eq!(tally.finish().1, measure_bytes(b"abc"));
    }
}
