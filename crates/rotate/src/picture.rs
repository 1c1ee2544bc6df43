//! What compose wants of each service, apart from the rotated values.
//!
//! A service that is recreated changes by the rotation itself, so its configuration hash cannot show that somebody else
//! changed it too: in the compose file, in a file that it includes, in a second env file. So at preflight a fingerprint is
//! taken of everything that compose resolves for a service, with the values that rotate taken out, and compared before
//! anything is deployed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keyroll_runtimes::compose::{MountedFrom, Resolved, Service, form_of};
use keyroll_secret::{FingerprintKey, Secret};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::world::{Pair, Set};

/// Every value that the files may hold of the rotated secrets, with its secret's name.
pub(crate) fn both_sets(pairs: &BTreeMap<String, Pair>) -> Vec<(&str, &Secret)> {
    let held = |set| {
        pairs
            .iter()
            .map(move |(name, pair)| (name.as_str(), pair.held(set)))
    };
    held(Set::Old).chain(held(Set::New)).collect()
}

/// A keyed fingerprint for each service, with the names of these secrets in the place of their values.
pub(crate) fn pictures(
    resolved: &Resolved,
    held: &[(&str, &Secret)],
    key: &FingerprintKey,
) -> BTreeMap<String, String> {
    let of = |service: &Service| key.fingerprint(&text(service, held)).to_string();
    resolved
        .services
        .iter()
        .map(|(name, service)| (name.clone(), of(service)))
        .collect()
}

fn text(service: &Service, held: &[(&str, &Secret)]) -> Secret {
    let mut all = Zeroizing::new(String::with_capacity(4096));
    let mut line = |place: &str, value: &str| {
        let _ = writeln!(*all, "{place}={:?}", *masked(value, held));
    };
    line("image", service.image.as_deref().unwrap_or_default());
    line("replicas", &service.replicas.to_string());
    for (key, value) in &service.environment {
        line(&format!("environment.{key}"), value.expose());
    }
    for (place, value) in &service.texts {
        line(place, value.expose());
    }
    for (name, condition) in &service.depends_on {
        line(&format!("depends_on.{name}"), condition);
    }
    for name in service.volumes.iter().chain(&service.networks) {
        line("uses", name);
    }
    for mounted in &service.mounted {
        let source = match &mounted.source {
            MountedFrom::File(path) => path.display().to_string(),
            MountedFrom::Environment(variable) => format!("${variable}"),
            MountedFrom::Content(content) => content.expose().to_owned(),
            MountedFrom::External => String::new(),
        };
        line(&format!("mounted.{}", mounted.name), &source);
    }
    Secret::new(all.as_str())
}

/// The text with the name of each rotated secret in the place of its value. A text with a value in it is percent-decoded
/// first, since the old value may need to be encoded in a URL where the new one does not.
fn masked(text: &str, held: &[(&str, &Secret)]) -> Zeroizing<String> {
    let mut masked = Zeroizing::new(text.to_owned());
    for (name, value) in held {
        if form_of(value.expose(), &masked).is_none() {
            continue;
        }
        let name = format!("\0{name}\0");
        let plain = percent_decode_str(&masked).decode_utf8_lossy().into_owned();
        let plain = Zeroizing::new(plain);
        masked = Zeroizing::new(if plain.contains(value.expose()) {
            plain.replace(value.expose(), &name)
        } else {
            name
        });
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(text: &str, value: &str) -> String {
        masked(text, &[("PASSWORD", &Secret::new(value))]).to_string()
    }

    #[test]
    fn what_rotates_is_taken_out_and_nothing_else() {
        assert_eq!(masks("old-value", "old-value"), "\0PASSWORD\0");
        assert_eq!(
            masks("postgres://u:old-value@db/d", "old-value"),
            "postgres://u:\0PASSWORD\0@db/d"
        );
        assert_eq!(masks("info", "old-value"), "info");
    }

    #[test]
    fn old_and_new_look_the_same_however_they_are_spelled() {
        let old = masks("postgres://u:p%40ss%2Fword@db/my%20d", "p@ss/word");
        let new = masks("postgres://u:new-value@db/my%20d", "new-value");
        assert_eq!(old, new);
        let elsewhere = masks("postgres://u:new-value@db2/my%20d", "new-value");
        assert_ne!(elsewhere, new);
    }
}
