//! What to search for, and eyes on every process.
#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keyroll_secret::Secret;

use crate::recovery::SECRETS;

/// Values to search for, each in all the forms in which it could be written.
#[derive(Default)]
pub(crate) struct Needles {
    /// By form: which secret it is of.
    forms: BTreeMap<Vec<u8>, String>,
}

impl Needles {
    pub(crate) fn add(&mut self, name: &str, value: &Secret) {
        let raw = value.expose();
        let mut forms = vec![
            raw.as_bytes().to_vec(),
            value.percent_encoded().expose().as_bytes().to_vec(),
            raw.bytes()
                .flat_map(|b| format!("{b:02x}").into_bytes())
                .collect(),
        ];
        for engine in [STANDARD, URL_SAFE] {
            // Inside something longer, a value begins at any of three places of a group; the characters at both ends belong to
            // its neighbours too.
            for shift in 0..3_usize {
                let padded = [&[0; 2][..shift], raw.as_bytes()].concat();
                let text = engine.encode(&padded);
                let from = (shift * 8).div_ceil(6);
                let to = padded.len() * 8 / 6;
                forms.push(text.as_bytes()[from..to].to_vec());
            }
        }
        for form in forms {
            self.forms.insert(form, name.to_owned());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.forms.len()
    }

    /// Which secrets are in `bytes`.
    pub(crate) fn found(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.forms
            .iter()
            .filter(|(form, _)| bytes.windows(form.len()).any(|w| w == form.as_slice()))
            .map(|(_, name)| name.as_str())
            .collect()
    }

    pub(crate) fn absent(&self, place: &str, bytes: &[u8]) {
        self.absent_but(place, bytes, None);
    }

    /// The message names the secret and not the value: it may go into a public log.
    pub(crate) fn absent_but(&self, place: &str, bytes: &[u8], allowed: Option<&str>) {
        let mut found = self.found(bytes);
        found.retain(|name| Some(*name) != allowed);
        assert!(found.is_empty(), "{place} holds {found:?}");
    }
}

/// Visits everything below `path`, and `path`.
pub(crate) fn walk(path: &Path, visit: &mut impl FnMut(&Path, &Metadata)) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    visit(path, &metadata);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), visit);
        }
    }
}

/// Looks at all processes, the env file, and a directory for temporary files, over and over.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a watcher has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) looks: u32,
    /// Texts of the env file.
    env_files: BTreeSet<String>,
    /// Argument lists.
    arguments: BTreeSet<Vec<u8>>,
    /// Environments: whether it is in a container, the process's arguments, and the variables.
    environments: BTreeSet<(bool, String, Vec<u8>)>,
    /// Contents of temporary files.
    temporary: BTreeSet<(PathBuf, Vec<u8>)>,
    /// Modes of files beside the env file.
    beside: BTreeSet<(PathBuf, u32)>,
}

impl Watcher {
    pub(crate) fn start(env_file: PathBuf, temporary: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::Relaxed) {
                seen.look(&env_file, &temporary);
            }
            seen
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    /// Every argument list, its words ended by zero bytes.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.arguments.iter()
    }

    fn look(&mut self, env_file: &Path, temporary: &Path) {
        self.looks += 1;
        if let Ok(text) = fs::read_to_string(env_file) {
            self.env_files.insert(text);
        }
        for entry in fs::read_dir(env_file.parent().unwrap())
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
                && entry.file_name().to_string_lossy().contains("env")
            {
                let mode = metadata.permissions().mode() & 0o777;
                self.beside.insert((entry.path(), mode));
            }
        }
        self.look_into(temporary);
        let here = fs::read_link("/proc/self/ns/pid").ok();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry
                .file_name()
                .to_string_lossy()
                .starts_with(|c: char| c.is_ascii_digit())
            {
                continue;
            }
            let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
            if let Ok(bytes) = fs::read(path.join("environ"))
                && !bytes.is_empty()
            {
                let contained = fs::read_link(path.join("ns/pid")).ok() != here;
                let name = String::from_utf8_lossy(&arguments).replace('\0', " ");
                self.environments.insert((contained, name, bytes));
            }
            self.arguments.insert(arguments);
        }
    }

    /// Things come and go here, so errors are none.
    fn look_into(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.look_into(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                self.temporary.insert((path, bytes));
            }
        }
    }

    /// Adds every value that the env file ever held.
    pub(crate) fn learn(&self, needles: &mut Needles) {
        for text in &self.env_files {
            for name in SECRETS {
                let found = text
                    .lines()
                    .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
                if let Some(value) = found {
                    needles.add(name, &Secret::new(value));
                }
            }
        }
    }

    /// Nothing was where it must not be.
    pub(crate) fn search(&self, needles: &Needles) {
        for arguments in &self.arguments {
            let name = arguments.split(|b| *b == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            needles.absent(&format!("an argument of {name}"), arguments);
        }
        for (path, bytes) in &self.temporary {
            needles.absent(&path.display().to_string(), bytes);
        }
        for (path, mode) in &self.beside {
            // Stricter is well: a new file begins with 0600.
            assert!(
                mode & !0o640 == 0,
                "{} beside the env file has mode {mode:o}",
                path.display()
            );
        }
        let (mut containers, mut dumps) = (0, 0);
        for (contained, name, variables) in &self.environments {
            for variable in variables.split(|b| *b == 0) {
                let found = needles.found(variable);
                if found.is_empty() {
                    continue;
                }
                let key = variable.split(|b| *b == b'=').next().unwrap_or_default();
                let key = String::from_utf8_lossy(key);
                // What the compose file gives to a container, all its processes have.
                let own = [
                    "DATABASE_URL",
                    "PGPASSWORD",
                    "PROXMOX_TOKEN_SECRET",
                    "BACKUP_ENCRYPTION_KEY",
                ];
                let own = SECRETS.contains(&key.as_ref()) || own.contains(&key.as_ref());
                assert!(
                    *contained && own,
                    "{key} in the environment of {name} (in a container: {contained}) holds {found:?}"
                );
                containers += 1;
                // PGPASSWORD is the worker's own, and a dump's; beside the server no other process has it.
                if key == "PGPASSWORD" {
                    let worker = variables
                        .split(|b| *b == 0)
                        .any(|v| v.starts_with(b"NODE_ENV="));
                    // pg_dumpall asks pg_dump for its version, by way of a shell.
                    let dump = name.contains("pg_dump");
                    assert!(worker || dump, "{name} has PGPASSWORD");
                    dumps += u32::from(dump);
                }
            }
        }
        println!(
            "{} looks, {} argument lists, {} environments ({containers} variables in containers, {dumps} of dumps)",
            self.looks,
            self.arguments.len(),
            self.environments.len()
        );
        assert!(containers > 0, "the watcher sees environments");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_plain_encoded_and_inside_a_longer_encoded_text() {
        let mut needles = Needles::default();
        needles.add("X", &Secret::new("se/cret@value+1234"));
        for around in ["", "a", "ab", "abc"] {
            let text = format!("{around}se/cret@value+1234{around}");
            for form in [text.clone(), STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                assert_eq!(needles.found(form.as_bytes()).len(), 1, "{form}");
            }
        }
        assert_eq!(needles.found(b"se%2Fcret%40value%2B1234").len(), 1);
        assert!(needles.found(b"se/cret@value+123").is_empty());
    }
}
