//! One text through the eyes of several parsers.

use std::collections::BTreeMap;

use crate::dialect::{Binding, Dialect, Readers, Reading, Refusal, read};

/// What one parser makes of the text.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) dialect: Dialect,
    pub(crate) bindings: Result<Vec<Binding>, Refusal>,
}

/// What every parser makes of `text`, the one that defines the file first.
pub(crate) fn views(readers: &Readers, text: &str) -> Vec<View> {
    readers
        .all()
        .map(|dialect| View {
            dialect,
            bindings: read(dialect, text),
        })
        .collect()
}

/// The definition that counts for each key: the last one, in every dialect here.
pub(crate) fn effective(bindings: &[Binding]) -> BTreeMap<&str, &Binding> {
    bindings.iter().map(|b| (b.key.as_str(), b)).collect()
}

/// The first parser for which an edit of `key` does anything but what was meant: `expected` gives the new reading for the
/// old one, and everything else must read as before.
pub(crate) fn first_surprise(
    before: &[View],
    after: &[View],
    key: &str,
    expected: impl Fn(&Reading) -> Option<Reading>,
) -> Option<Dialect> {
    before.iter().zip(after).find_map(|(before, after)| {
        let as_meant = match (&before.bindings, &after.bindings) {
            (Ok(before), Ok(after)) => {
                let (before, after) = (effective(before), effective(after));
                before.len() == after.len()
                    && before.iter().all(|(name, was)| {
                        let now = after.get(name).map(|now| &now.reading);
                        let should = if *name == key {
                            expected(&was.reading)
                        } else {
                            Some(was.reading.clone())
                        };
                        matches!((now, should), (Some(now), Some(should)) if now.same_as(&should))
                    })
            }
            // Refused before as well: nothing to compare, and the caller has been told.
            (Err(_), Err(_)) => true,
            _ => false,
        };
        (!as_meant).then_some(before.dialect)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyroll_secret::Secret;

    fn surprise(before: &str, after: &str) -> Option<Dialect> {
        let readers = Readers::only(Dialect::ComposeGo).and(Dialect::NodeDotenv);
        first_surprise(
            &views(&readers, before),
            &views(&readers, after),
            "P",
            |_| Some(Reading::Value(Secret::new("new"))),
        )
    }

    #[test]
    fn an_edit_that_does_what_was_meant_is_no_surprise() {
        assert_eq!(surprise("A=1\nP=old\n", "A=1\nP=new\n"), None);
    }

    #[test]
    fn a_change_anywhere_else_is_one() {
        for after in [
            "A=2\nP=new\n",
            "A=1\nP=new\nB=1\n",
            "P=new\n",
            "A=1\nP=old\n",
            "A=1\nP!=new\n",
        ] {
            assert_eq!(
                surprise("A=1\nP=old\n", after),
                Some(Dialect::ComposeGo),
                "{after}"
            );
        }
        assert_eq!(
            surprise("A=1\nP=old\n", "A=1 #\nP=new#\n"),
            Some(Dialect::ComposeGo)
        );
        assert_eq!(surprise("A=1\nP=old\n", "A=1\nP=new\nA: 1\n"), None);
    }
}
