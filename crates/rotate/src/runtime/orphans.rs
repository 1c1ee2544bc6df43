//! Processes that a killed keyroll left: its compose, and commands in containers, which go on when their client is gone.
//!
//! Each carries `KEYROLL_ROTATION=<id>` in its environment, containers' processes included: they are processes of the same
//! kernel, and root sees all of them in /proc.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process that carries a rotation's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphan {
    pid: i32,
    /// Guards against another process that got the same number (proc(5), `starttime`).
    started: u64,
    pub(crate) name: String,
}

impl Orphan {
    /// Whether it runs in another process namespace than this process: in a container.
    pub(crate) fn in_container(&self) -> bool {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        namespace(&self.pid.to_string()) != namespace("self")
    }
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold spaces; field 22 counts from the first.
    let rest = &stat[stat.rfind(')')? + 2..];
    // A zombie has ended, and only waits to be collected.
    if rest.starts_with('Z') {
        return None;
    }
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// All processes with the mark but this one.
pub(crate) fn find(rotation: &str) -> Vec<Orphan> {
    let mark = format!("KEYROLL_ROTATION={rotation}");
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment
                .split(|b| *b == 0)
                .any(|v| v == mark.as_bytes())
                .then_some(())?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Some(Orphan {
                pid,
                started: start_time(pid)?,
                name: name.trim().to_owned(),
            })
        })
        .collect()
}

fn there(orphan: &Orphan) -> bool {
    start_time(orphan.pid) == Some(orphan.started)
}

/// Ends them: first asked, then forced; the error names what is still there at the end of the limit.
pub(crate) async fn end(orphans: &[Orphan], limit: Duration) -> Result<(), String> {
    let begun = Instant::now();
    let send = |signal: Signal| {
        for orphan in orphans.iter().filter(|o| there(o)) {
            if let Some(pid) = Pid::from_raw(orphan.pid) {
                let _ = kill_process(pid, signal);
            }
        }
    };
    send(Signal::TERM);
    let mut forced = false;
    while let Some(left) = orphans.iter().find(|o| there(o)) {
        if begun.elapsed() > limit {
            return Err(format!(
                "process {} ({}) of the killed run does not end",
                left.pid, left.name
            ));
        }
        if !forced && begun.elapsed() > limit / 2 {
            send(Signal::KILL);
            forced = true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
