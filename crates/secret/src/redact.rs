//! Taking known values out of text that others wrote: a child's standard error, a server's answer, a log line.

use crate::{Secret, percent_encode};

/// Replaces every known value, raw or percent-encoded, by the name of its secret.
///
/// Values under six characters are not replaced: they would turn ordinary words into noise.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Vec<(Secret, String)>,
}

impl Redactor {
    /// A redactor that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns `secret` under `name`.
    pub fn learn(&mut self, name: &str, secret: &Secret) {
        let raw = secret.expose();
        if raw.len() < 6 {
            return;
        }
        let label = format!("[{name}]");
        let encoded = percent_encode(raw);
        if encoded != raw {
            self.known.push((Secret::new(encoded), label.clone()));
        }
        self.known.push((secret.clone(), label));
        // Longest first, so that a value which contains another one is replaced whole.
        self.known
            .sort_by_key(|(value, _)| std::cmp::Reverse(value.expose().len()));
    }

    /// `text` without any known value.
    pub fn clean(&self, text: &str) -> String {
        self.known
            .iter()
            .fold(text.to_owned(), |text, (value, label)| {
                if text.contains(value.expose()) {
                    text.replace(value.expose(), label)
                } else {
                    text
                }
            })
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} values)", self.known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_percent_encoded_forms_are_replaced_by_the_name() {
        let mut redactor = Redactor::new();
        redactor.learn("DB", &Secret::new("p@ssword"));
        assert_eq!(
            redactor.clean("url u:p%40ssword@h and p@ssword"),
            "url u:[DB]@h and [DB]"
        );
    }

    #[test]
    fn a_value_inside_a_longer_one_does_not_leave_the_rest_behind() {
        let mut redactor = Redactor::new();
        redactor.learn("SHORT", &Secret::new("abcdef"));
        redactor.learn("LONG", &Secret::new("abcdefghij"));
        assert_eq!(redactor.clean("abcdefghij"), "[LONG]");
    }
}
