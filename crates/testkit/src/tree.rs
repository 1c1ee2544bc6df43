//! The deployment as files: a copy of `sandbox/deploy` with secrets made on the spot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use keyroll_secret::{Alphabet, Format, Secret};

use crate::TestkitError;

/// Where the env file is, from the root of the deployment.
pub(crate) const ENV_FILE: &str = ".env.production";
/// Where the compose file is.
pub(crate) const COMPOSE_FILE: &str = "infra/deploy/docker-compose.production.yml";
/// What the containers look into for faults.
pub(crate) const FAULTS: &str = "faults";

/// The values that are made for each stack.
const MADE: [&str; 6] = [
    "POSTGRES_PASSWORD",
    "JWT_SECRET",
    "JWT_REFRESH_SECRET",
    "ADMIN_PASSWORD",
    "PROXMOX_TOKEN_SECRET",
    "BACKUP_ENCRYPTION_KEY",
];

/// The root of this repository, which the deployment is copied from.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Writes the deployment below `root`, which must not be there yet. `chosen` are values that a test wants to know.
pub(crate) fn write(
    root: &Path,
    port: u16,
    chosen: &BTreeMap<String, Secret>,
) -> Result<(), TestkitError> {
    copy(&repository().join("sandbox/deploy"), root)?;
    let faults = root.join(FAULTS);
    fs::create_dir(&faults).map_err(TestkitError::io(&faults))?;

    let path = root.join(ENV_FILE);
    let mut text = fs::read_to_string(&path)
        .map_err(TestkitError::io(&path))?
        .replace("<API_PORT>", &port.to_string());
    for name in MADE {
        let value = match chosen.get(name) {
            Some(value) => value.clone(),
            None => Format::strong(Alphabet::UrlSafe)
                .generate()
                .map_err(|e| TestkitError::Unexpected(e.to_string()))?,
        };
        let placeholder = format!("<{name}>");
        text = text
            .replace(
                &format!(":{placeholder}@"),
                &format!(":{}@", value.percent_encoded().expose()),
            )
            .replace(&placeholder, value.expose());
    }
    fs::write(&path, text).map_err(TestkitError::io(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).map_err(TestkitError::io(&path))
}

/// The value of `key` in the text of an env file as this sandbox writes them: `KEY=value`, quotes around the whole value or
/// none. The last one counts.
pub(crate) fn value(text: &str, key: &str) -> Option<Secret> {
    text.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(|raw| {
            let quoted = ['"', '\''].iter().find_map(|quote| {
                let inner = raw.strip_prefix(*quote)?;
                inner.split_once(*quote).map(|(value, _)| value)
            });
            Secret::new(quoted.unwrap_or(raw.trim_end()))
        })
        .next_back()
}

/// `text` with `key` set to `value`: in place where it is, else appended.
pub(crate) fn with_value(text: &str, key: &str, value: &str) -> String {
    let prefix = format!("{key}=");
    let line = format!("{key}={value}");
    let mut found = false;
    let mut lines: Vec<String> = text
        .lines()
        .map(|old| {
            if old.starts_with(&prefix) {
                found = true;
                line.clone()
            } else {
                old.to_owned()
            }
        })
        .collect();
    if !found {
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

fn copy(from: &Path, to: &Path) -> Result<(), TestkitError> {
    fs::create_dir_all(to).map_err(TestkitError::io(to))?;
    for entry in fs::read_dir(from).map_err(TestkitError::io(from))? {
        let entry = entry.map_err(TestkitError::io(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(TestkitError::io(&source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_tree_has_no_placeholder_left_and_encodes_the_password_in_the_url() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("panel");
        let chosen = BTreeMap::from([("POSTGRES_PASSWORD".to_owned(), Secret::new("a/b@c"))]);
        write(&root, 1234, &chosen).unwrap();

        let path = root.join(ENV_FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("<API_PORT>") && MADE.iter().all(|m| !text.contains(&format!("<{m}>")))
        );
        assert_eq!(value(&text, "POSTGRES_PASSWORD").unwrap().expose(), "a/b@c");
        let url = value(&text, "DATABASE_URL").unwrap();
        assert!(url.expose().contains(":a%2Fb%40c@"));
        assert_eq!(
            value(&text, "APP_URL").unwrap().expose(),
            "http://127.0.0.1:1234"
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn a_value_is_set_in_place_or_appended() {
        assert_eq!(with_value("A=1\nB=2\n", "A", "3"), "A=3\nB=2\n");
        assert_eq!(with_value("A=1\n", "B", "2"), "A=1\nB=2\n");
    }
}
