//! Taking stacks away: in the end, after a panic, and after a test process that was killed.
//!
//! By the engine's labels and not by compose: a test may have broken the compose file.

use std::collections::BTreeMap;
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

/// Removes the stacks that no living test process holds: those of this repository, and those of other clones of it whose
/// containers are on the same engine. Returns their project names. Blocks.
pub fn sweep() -> Result<Vec<String>, TestkitError> {
    let mut swept = Vec::new();
    let mut locks: Vec<PathBuf> = match fs::read_dir(stacks()) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(), // there never was a stack
    };
    locks.retain(|path| path.extension().is_some_and(|e| e == "lock"));
    for lock in locks {
        let Some(project) = unheld(&lock)? else {
            continue;
        };
        remove_files(&project, &lock.with_extension(""), &lock);
        swept.push(project);
    }
    for (project, scratch) in on_the_engine() {
        let lock = scratch.with_extension("lock");
        // A stack takes its lock before it has a container: one without a lock is nobody's.
        if !lock.exists() || unheld(&lock)?.is_some() {
            remove_files(&project, &scratch, &lock);
            swept.push(project);
        }
    }
    Ok(swept)
}

/// The project of a lock file that nobody holds.
fn unheld(lock: &Path) -> Result<Option<String>, TestkitError> {
    let Ok(file) = File::open(lock) else {
        return Ok(None); // its stack has just gone
    };
    if file.try_lock().is_err() {
        return Ok(None);
    }
    let project = fs::read_to_string(lock).map_err(TestkitError::io(lock))?;
    // One without a name has just begun.
    Ok((!project.is_empty()).then_some(project))
}

/// The projects whose compose files are in a scratch directory, of whichever clone, and that directory.
fn on_the_engine() -> BTreeMap<String, PathBuf> {
    const FORMAT: &str = "{{.Label \"com.docker.compose.project\"}}\t{{.Label \"com.docker.compose.project.working_dir\"}}";
    let listed = docker(&["ps", "-a", "--format", FORMAT]).unwrap_or_default();
    let parsed = listed.lines().filter_map(|line| {
        let (project, directory) = line.split_once('\t')?;
        Some((project.to_owned(), scratch_of(Path::new(directory))?))
    });
    parsed.collect()
}

/// The scratch directory that a compose file's directory is in.
fn scratch_of(directory: &Path) -> Option<PathBuf> {
    let inside = directory.ancestors().find(|path| {
        path.parent()
            .is_some_and(|p| p.ends_with("target/sandbox/stacks"))
    });
    inside.map(Path::to_owned)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_any_clone_is_known_by_where_its_compose_file_is() {
        let of = |path: &str| scratch_of(Path::new(path));
        assert_eq!(
            of("/a/clone/target/sandbox/stacks/keyroll-test-1/panel/infra/deploy"),
            Some("/a/clone/target/sandbox/stacks/keyroll-test-1".into())
        );
        assert_eq!(of("/opt/panel/infra/deploy"), None);
        assert_eq!(of("/a/clone/target/sandbox/stacks"), None);
        assert_eq!(of(""), None);
    }
}
