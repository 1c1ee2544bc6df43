//! What a container has in its environment against what it should have.

use std::collections::BTreeMap;
use std::fmt;

use keyroll_secret::Secret;

use super::container::Container;

/// A variable that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The variable.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
}

/// How a variable differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The container does not have it.
    Missing,
    /// The container has another value.
    OtherValue,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DifferenceKind::Missing => write!(f, "{} is missing", self.key),
            DifferenceKind::OtherValue => write!(f, "{} has another value", self.key),
        }
    }
}

/// How the container's environment differs from the service's resolved one. Variables that only the container has are no
/// difference: they come from its image.
pub fn compare_env(container: &Container, expected: &BTreeMap<String, Secret>) -> Vec<Difference> {
    expected
        .iter()
        .filter_map(|(key, value)| {
            let kind = match container.env.get(key) {
                None => DifferenceKind::Missing,
                Some(found) if found.same_as(value) => return None,
                Some(_) => DifferenceKind::OtherValue,
            };
            Some(Difference {
                key: key.clone(),
                kind,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::container::tests::sample;
    use super::*;

    #[test]
    fn stale_and_missing_variables_are_named_and_the_images_own_are_not() {
        let mut container = sample("api");
        container.env = [("SAME", "1"), ("STALE", "old"), ("PATH", "/bin")]
            .map(|(k, v)| (k.to_owned(), Secret::new(v)))
            .into();
        let expected = [("SAME", "1"), ("STALE", "new"), ("LOST", "x")]
            .map(|(k, v)| (k.to_owned(), Secret::new(v)))
            .into();
        let found = compare_env(&container, &expected);
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["LOST is missing", "STALE has another value"]);
    }
}
