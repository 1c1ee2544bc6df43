//! The labels that compose puts on its containers (docker/compose `pkg/api/labels.go`; version 1: `compose/const.py`).

use std::collections::BTreeSet;
use std::path::PathBuf;

pub(crate) const PROJECT: &str = "com.docker.compose.project";
pub(crate) const SERVICE: &str = "com.docker.compose.service";
pub(crate) const NUMBER: &str = "com.docker.compose.container-number";
pub(crate) const ONE_OFF: &str = "com.docker.compose.oneoff";
pub(crate) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
pub(crate) const VERSION: &str = "com.docker.compose.version";
pub(crate) const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
pub(crate) const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
pub(crate) const ENV_FILES: &str = "com.docker.compose.project.environment_file";
pub(crate) const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// A list of paths, joined by commas without any escape; so a path with a comma reads as two that do not exist, and is
/// refused where the files are looked for.
pub(crate) fn paths(label: Option<&str>) -> Vec<PathBuf> {
    label
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(PathBuf::from)
        .collect()
}

/// `db:service_healthy:false,job:…` (version 2); the names alone.
pub(crate) fn dependencies(label: Option<&str>) -> BTreeSet<String> {
    label
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter_map(|entry| entry.split(':').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
