//! Taking stacks away: in the end, after a panic, and after a test process that was killed.
//!
//! By the engine's labels and not by compose: a test may have broken the compose file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::TestkitError;
use crate::tree;

/// Everything of the sandbox that is kept in files.
pub(crate) fn sandbox() -> PathBuf {
    tree::repository().join("target/sandbox")
}

/// Where the scratch stacks are, each a directory and beside it a lock file that holds its project's name.
pub(crate) fn stacks() -> PathBuf {
    sandbox().join("stacks")
}

/// Removes every container, volume and network of a compose project, by force and at once. Blocks for a second or so; does
/// what it can and goes on. True when nothing is left.
pub fn remove_project(project: &str) -> bool {
    let filter = format!("label=com.docker.compose.project={project}");
    let mut gone = true;
    for (list, remove) in [
        (vec!["ps", "-aq"], vec!["rm", "-f", "-v"]),
        (vec!["volume", "ls", "-q"], vec!["volume", "rm", "-f"]),
        (vec!["network", "ls", "-q"], vec!["network", "rm"]),
    ] {
        let mut list: Vec<&str> = list;
        list.extend(["--filter", &filter]);
        let Some(found) = docker(&list) else {
            gone = false;
            continue;
        };
        let mut remove = remove;
        remove.extend(found.split_whitespace());
        if !found.trim().is_empty() && docker(&remove).is_none() {
            gone = false;
        }
    }
    gone
}

/// Removes the stacks that no living test process holds. Returns their project names. Blocks.
pub fn sweep() -> Result<Vec<String>, TestkitError> {
    let stacks = stacks();
    let mut swept = Vec::new();
    let Ok(entries) = fs::read_dir(&stacks) else {
        return Ok(swept); // there never was a stack
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "lock") {
            continue;
        }
        let Ok(file) = File::open(&path) else {
            continue; // its stack has just gone
        };
        if file.try_lock().is_err() {
            continue;
        }
        let project = fs::read_to_string(&path).map_err(TestkitError::io(&path))?;
        if project.is_empty() {
            continue; // its stack has just begun
        }
        remove_files(&project, &path.with_extension(""), &path);
        swept.push(project);
    }
    Ok(swept)
}

/// Takes away what [`remove_project`] does, the image tag of the project if there is one, and the files.
pub(crate) fn remove_files(project: &str, scratch: &Path, lock: &Path) {
    let gone = remove_project(project);
    let tag = own_tag(project);
    if docker(&["image", "inspect", &tag]).is_some() {
        docker(&["image", "rm", "-f", &tag]);
    }
    // What is not gone stays listed, so that the next sweep tries again.
    if gone && (!scratch.exists() || fs::remove_dir_all(scratch).is_ok()) {
        let _ = fs::remove_file(lock);
    }
}

/// The panel's image tag for a stack that has its own.
pub(crate) fn own_tag(project: &str) -> String {
    format!("keyroll-sandbox-panel:{project}")
}

fn docker(arguments: &[&str]) -> Option<String> {
    let done = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    done.status
        .success()
        .then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}
