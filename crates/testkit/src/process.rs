//! The processes that a program started.

use std::collections::BTreeMap;
use std::fs;

/// A process on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program and arguments (as [`crate::Stack::processes`] sees them, split at spaces); empty for one that has ended and was not awaited yet.
    pub arguments: Vec<String>,
}

/// All living descendants of a process, nearest first. What has lost its parent is not among them.
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for child in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = child.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some(parent) = parent(child) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        if let Some(more) = children.remove(parent) {
            found.extend(more);
        }
        next += 1;
    }
    found
        .into_iter()
        .skip(1)
        .map(|pid| Process {
            pid,
            arguments: arguments(pid),
        })
        .collect()
}

/// The fourth field of `/proc/<pid>/stat`; the second is in parentheses and may contain anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn arguments(pid: u32) -> Vec<String> {
    fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .split(|b| *b == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn a_grandchild_is_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60; true"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let sleep = eventually("sleep runs", Duration::from_secs(5), async || {
            descendants(std::process::id())
                .into_iter()
                .find(|p| p.arguments == ["sleep", "60"])
        })
        .await
        .unwrap();
        assert_eq!(descendants(shell.id()), std::slice::from_ref(&sleep));
        shell.kill().unwrap();
        shell.wait().unwrap();
        Command::new("kill")
            .arg(sleep.pid.to_string())
            .status()
            .unwrap();
    }
}
