//! The Docker Engine: whichever answers, else Debian's.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::apt::{self, Wanted};
use crate::shell::{command, found, output, run, sandbox_dir};

const START_LIMIT: Duration = Duration::from_secs(60);

/// The engine's version, when one answers.
pub(crate) fn version() -> Option<String> {
    found("docker")?;
    output(&mut command(
        "docker",
        &["version", "--format", "{{.Server.Version}}"],
    ))
    .ok()
}

/// Sees to it that an engine answers. Returns its version.
pub(crate) fn ensure() -> Result<String> {
    if let Some(version) = version() {
        return Ok(version);
    }
    let mut missing = Vec::new();
    if found("dockerd").is_none() || found("docker").is_none() {
        missing.push(Wanted {
            package: "docker.io",
            why: "the sandbox runs in containers, and no Docker Engine answers",
        });
    }
    if found("iptables").is_none() {
        missing.push(Wanted {
            package: "iptables",
            why: "the engine needs it to connect containers",
        });
    }
    apt::install(&missing)?;
    // The package may have started it.
    if let Some(version) = version() {
        return Ok(version);
    }
    start()
}

fn start() -> Result<String> {
    apt::need_root("start a Docker Engine")?;
    let log = sandbox_dir()?.join("dockerd.log");
    if Path::new("/run/systemd/system").exists() {
        println!("setup: starting docker.service");
        run(&mut command("systemctl", &["start", "docker.service"]))?;
    } else {
        println!("setup: starting dockerd, log in {}", log.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file
            .try_clone()
            .map_err(|e| format!("{}: {e}", log.display()))?;
        let dockerd = found("dockerd").ok_or("dockerd is not installed")?;
        // Its own session: it must outlive this command and its terminal.
        let mut start = command("setsid", &["--fork"]);
        start.arg(dockerd).stdout(file).stderr(errors);
        start.stdin(Stdio::null());
        run(&mut start)?;
    }
    let limit = Instant::now() + START_LIMIT;
    loop {
        if let Some(version) = version() {
            return Ok(version);
        }
        if Instant::now() > limit {
            return Err(format!(
                "no Docker Engine answers after {} seconds; its last words:\n{}",
                START_LIMIT.as_secs(),
                last_lines(&log)
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
