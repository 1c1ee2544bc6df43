//! Keys that encrypt what is kept.
//!
//! A signing key can be replaced: what was signed with the old one is refused, and made again. A key that encrypts rows, files or
//! backups cannot: what was written with the old one is lost with it, and nothing fails until somebody reads. Most of the recorded
//! rotations that touched such a key lost data. So keyroll rotates none that it knows, or that its name tells of, unless the profile
//! says that nothing is kept under it.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Code, Refusal};
use crate::profile::SecretSpec;

/// Known keys, read at the first rotation that asks.
static CATALOG: LazyLock<Catalog> =
    LazyLock::new(|| toml::from_str(include_str!("catalog.toml")).expect("a test reads it"));
/// Parts of names that say it themselves.
const TELLING: [&str; 7] = [
    "ENCRYPTION_KEY",
    "ENCRYPT_KEY",
    "ENC_KEY",
    "CRYPTO_KEY",
    "FERNET",
    "VAULT_KEY",
    "KMS_KEY",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    entry: Vec<Entry>,
}

/// What an application keeps under a key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    application: String,
    keys: Vec<String>,
    #[serde(default)]
    images: Vec<String>,
    loses: String,
    own: Option<String>,
    source: String,
}

impl Entry {
    fn is_of(&self, key: &str, images: &[&str]) -> bool {
        let ran = |text: &String| images.iter().any(|image| image.contains(text.as_str()));
        self.keys.iter().any(|known| known == key)
            && (self.images.is_empty() || self.images.iter().any(ran))
    }
}

/// Why this secret is not rotated, if it encrypts what is kept. `keys` are the names that its consumers know it by, and `images` theirs.
pub(crate) fn refusal(
    name: &str,
    spec: &SecretSpec,
    keys: &[&str],
    images: &[&str],
) -> Option<Refusal> {
    if spec.keeps_nothing {
        return None;
    }
    let keys = spec.env_key().into_iter().chain(keys.iter().copied());
    let mut all = keys.map(|key| refused(name, key, images));
    all.find_map(|refusal| refusal)
}

fn refused(name: &str, key: &str, images: &[&str]) -> Option<Refusal> {
    let entry = CATALOG.entry.iter().find(|e| e.is_of(key, images));
    let what = match entry {
        Some(entry) => format!(
            "{name}: {} encrypts with {key} what it keeps; with another value it loses {} ({})",
            entry.application, entry.loses, entry.source
        ),
        None if TELLING.iter().any(|part| key.to_uppercase().contains(part)) => format!(
            "{name}: by its name {key} encrypts what is kept, which another value would make unreadable: rows, files, or every old backup"
        ),
        None => return None,
    };
    let next = match entry.and_then(|e| e.own.as_deref()) {
        Some(own) => format!("change it with the application's own means: {own}"),
        None => format!(
            "re-encrypt by hand, or leave it out; if nothing is kept under it, secrets.{name}.keeps_nothing = true in the profile says so"
        ),
    };
    Some(Refusal::new(Code::AtRest, what, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(key: &str) -> SecretSpec {
        toml::from_str(&format!("kind = \"environment\"\nkey = \"{key}\"")).unwrap()
    }

    fn refused(key: &str, images: &[&str]) -> Option<String> {
        let refusal = refusal("A_SECRET", &spec(key), &[], images);
        refusal.map(|r| format!("{} {}", r.what, r.next))
    }

    #[test]
    fn each_entry_of_the_catalog_is_found_by_its_name_and_image_and_has_a_source() {
        assert!(CATALOG.entry.len() > 20);
        for entry in &CATALOG.entry {
            assert!(entry.source.starts_with("https://"), "{entry:?}");
            for key in &entry.keys {
                let image = entry
                    .images
                    .first()
                    .map(|i| format!("docker.io/{i}:latest"));
                let images: Vec<&str> = image.as_deref().into_iter().collect();
                let told = refused(key, &images).unwrap_or_else(|| panic!("{key} is rotated"));
                assert!(told.contains(&entry.loses), "{told}");
                if let Some(own) = &entry.own {
                    assert!(told.contains(own), "{told}");
                }
            }
        }
    }

    #[test]
    fn a_name_that_says_too_little_counts_with_its_image_alone() {
        assert!(refused("SECRET_KEY", &["outlinewiki/outline:0.80"]).is_some());
        for image in ["example/panel:1", "django:5"] {
            assert_eq!(refused("SECRET_KEY", &[image]), None);
        }
        for key in [
            "JWT_SECRET",
            "POSTGRES_PASSWORD",
            "SESSION_KEY",
            "KEY_OF_THE_DOOR",
        ] {
            assert_eq!(refused(key, &[]), None, "{key}");
        }
    }

    #[test]
    fn a_name_that_says_it_is_enough_and_the_profile_may_know_better() {
        for key in [
            "BACKUP_ENCRYPTION_KEY",
            "field_encryption_key",
            "FERNET_SECRET",
        ] {
            assert!(refused(key, &[]).is_some(), "{key}");
        }
        let known_as = refusal("A", &spec("OWN_KEY"), &["N8N_ENCRYPTION_KEY"], &[]);
        assert!(known_as.is_some(), "by the name that a consumer gives it");
        let knows = SecretSpec {
            keeps_nothing: true,
            ..spec("FIELD_ENCRYPTION_KEY")
        };
        assert!(refusal("A_SECRET", &knows, &[], &[]).is_none());
    }
}
