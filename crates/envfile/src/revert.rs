//! Taking keyroll's values out of a file that somebody else has edited since.

use keyroll_secret::Secret;

use crate::dialect::Reading;
use crate::file::EnvFile;

/// What came of taking one key back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverted {
    /// It has its old value again.
    Restored,
    /// It had its old value already.
    AlreadyOld,
    /// It has neither the old nor the written value, or is defined twice now: somebody else's, left alone. A value that still
    /// embeds the new secret can be taken back by [`EnvFile::replace_embedded`] with new and old exchanged.
    Foreign,
    /// It is no longer in the file, and is not added.
    Gone,
    /// It stands in such a way now that its old value would not be read as it was (other quotes, for example). Left alone.
    CannotCarry,
}

impl EnvFile {
    /// Puts `keys` of this file, which is what somebody made of `written`, back to their values in `before`; everything
    /// else stays as it is now. The answer has every key, in the order given.
    ///
    /// While this file equals `written` byte for byte, do not call this: write the bytes of `before` instead.
    pub fn revert(
        &mut self,
        before: &Self,
        written: &Self,
        keys: &[&str],
    ) -> Vec<(String, Reverted)> {
        keys.iter()
            .map(|key| ((*key).to_owned(), self.revert_key(before, written, key)))
            .collect()
    }

    fn revert_key(&mut self, before: &Self, written: &Self, key: &str) -> Reverted {
        if self.get(key).is_none() {
            return Reverted::Gone;
        }
        let (Ok(old), Ok(now)) = (before.target(key), self.target(key)) else {
            return Reverted::Foreign;
        };
        if now.reading.same_as(&old.reading) {
            return Reverted::AlreadyOld;
        }
        if !written.get(key).is_some_and(|w| w.same_as(&now.reading)) {
            return Reverted::Foreign;
        }
        let Some(text) = old.reading.text() else {
            return Reverted::Foreign;
        };
        // In the same quotes the old bytes can return as they were; in others only the plain text may fit.
        let source = if old.quote == now.quote {
            Secret::new(before.source(&old))
        } else {
            text.clone()
        };
        let expected = |was: &Reading| match was {
            Reading::Value(_) => Some(Reading::Value(text.clone())),
            Reading::Interpolated(_) => Some(Reading::Interpolated(text.clone())),
            Reading::Inherited => None,
        };
        match self.edit(&now, &source, expected) {
            Ok(_) => Reverted::Restored,
            Err(_) => Reverted::CannotCarry,
        }
    }
}
