//! Switches for what the sandbox panel gets wrong on request.

use std::fs;
use std::path::{Path, PathBuf};

/// The faults that the panel knows.
const KNOWN: [&str; 11] = [
    "login-500",
    "health-503",
    "page-500",
    "seed-noop",
    "seed-exit1",
    "seed-hang",
    "seed-waits",
    "start-fail",
    "worker-start-fail",
    "refresh-accept-any",
    "access-accept-any",
];

/// One switch. The panel looks at it at every request or command, so it takes effect at once.
#[derive(Debug, Clone)]
pub struct Fault {
    file: PathBuf,
}

impl Fault {
    /// The switch `name` in the directory that compose mounts into the containers.
    ///
    /// # Panics
    ///
    /// For a name that the panel does not know: a test with a typing error would pass for nothing.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        assert!(
            KNOWN.contains(&name),
            "no fault {name:?}; there are {KNOWN:?}"
        );
        Self {
            file: directory.join(name),
        }
    }

    /// Switches it on.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn set(&self) {
        fs::write(&self.file, "").unwrap_or_else(|e| panic!("{}: {e}", self.file.display()));
    }

    /// Switches it off. It may be off already.
    ///
    /// # Panics
    ///
    /// When the file is there and cannot be removed.
    pub fn clear(&self) {
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                panic!("{}: {e}", self.file.display())
            }
            _ => {}
        }
    }
}
