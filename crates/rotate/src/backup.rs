//! Which files a backup of this stack holds.

use std::path::PathBuf;

use crate::about::About;

/// Env files, compose files, and every file that the rotation will write.
pub(crate) fn files(about: &About) -> Vec<PathBuf> {
    let mut files = vec![about.env_file.path.clone()];
    files.extend(about.project.config_files.iter().cloned());
    files.extend(about.project.env_files.iter().cloned());
    files.sort();
    files.dedup();
    files
}
