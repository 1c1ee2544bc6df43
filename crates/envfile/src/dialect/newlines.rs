//! Universal line ends: Python and Node turn `\r\n` and a lone `\r` into `\n` before they look at anything.

use std::ops::Range;

use keyroll_secret::Secret;

/// A text with `\n` line ends only, and the way back to the original's offsets.
pub(super) struct Normalised {
    text: Secret,
    original: Vec<usize>,
}

impl Normalised {
    /// Leaves out a byte order mark.
    pub(super) fn of(source: &str) -> Self {
        let from = super::start(source);
        let mut text = String::with_capacity(source.len());
        let mut original = Vec::with_capacity(source.len() + 1);
        let mut chars = source[from..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let c = if c == '\r' {
                if matches!(chars.peek(), Some((_, '\n'))) {
                    chars.next();
                }
                '\n'
            } else {
                c
            };
            text.push(c);
            // A character of several bytes maps each of them to its own original byte.
            original.extend((0..c.len_utf8()).map(|i| from + at + i));
        }
        original.push(source.len());
        Self {
            text: Secret::new(text),
            original,
        }
    }

    pub(super) fn text(&self) -> &str {
        self.text.expose()
    }

    /// The original's bytes for a range of the normalised text.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        self.original[range.start]..self.original[range.end]
    }
}
