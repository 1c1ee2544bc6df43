//! Running the program under test, hermetically.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{Process, Stack, TestkitError, descendants};

/// No rotation of the sandbox takes longer, by far.
const LIMIT: Duration = Duration::from_secs(300);
/// How long anything that a test waits for may take on a busy machine.
const SAYS_WITHIN: Duration = Duration::from_secs(60);

/// A program to run with nothing in its environment but `PATH`, a scratch `HOME`, a fixed locale and what a test adds.
#[derive(Debug)]
pub struct Keyroll {
    binary: PathBuf,
    scratch: TempDir,
    env: Vec<(OsString, OsString)>,
    runs: AtomicU32,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A run that has not ended. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Keyroll {
    /// For the program at `binary`, usually `env!("CARGO_BIN_EXE_keyroll")`.
    pub fn new(binary: impl Into<PathBuf>) -> Result<Self, TestkitError> {
        let scratch = tempfile::Builder::new()
            .prefix("keyroll-home-")
            .tempdir()
            .map_err(TestkitError::io("the directory for temporary files"))?;
        // Stands for /root, which is there on any machine.
        let summaries = scratch.path().join("summaries");
        std::fs::create_dir(&summaries).map_err(TestkitError::io(&summaries))?;
        Ok(Self {
            binary: binary.into(),
            scratch,
            env: Vec::new(),
            runs: AtomicU32::new(0),
        })
    }

    /// Adds a variable to the program's environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The scratch directory: the program's `HOME`, and room for its state, identity, backups and summaries. Gone with this
    /// value.
    pub fn home(&self) -> &Path {
        self.scratch.path()
    }

    /// The options, each with its value, that point keyroll at a stack, and everything it writes at the scratch directory: `state`, `identity`,
    /// `backups` and `summaries` below [`Self::home`].
    pub fn stack_arguments(&self, stack: &Stack) -> Vec<OsString> {
        let home = self.home();
        [
            ("--root", stack.root().into()),
            ("--base-url", stack.base_url().into()),
            ("--state-dir", home.join("state").into()),
            ("--identity", home.join("identity").into()),
            ("--backup-root", home.join("backups").into()),
            ("--summary-dir", home.join("summaries").into()),
        ]
        .into_iter()
        .chain(stack.way_to_the_panel().map(|set| ("--set", set)))
        .flat_map(|(option, value): (&str, OsString)| [option.into(), value])
        .collect()
    }

    /// The command itself, for a caller who wants its output on the terminal.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> std::process::Command {
        let mut command = std::process::Command::new(&self.binary);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end, for 5 minutes at most.
    pub async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Run, TestkitError> {
        self.spawn(arguments)?.wait(LIMIT).await
    }

    /// Starts it and returns at once.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Running, TestkitError> {
        // Files and not pipes: a child that outlives a killed program would hold a pipe open.
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let stdout = self.home().join(format!("run-{run}.stdout"));
        let stderr = self.home().join(format!("run-{run}.stderr"));
        let out = File::create(&stdout).map_err(TestkitError::io(&stdout))?;
        let err = File::create(&stderr).map_err(TestkitError::io(&stderr))?;
        let mut command = Command::from(self.command(arguments));
        command.stdout(out).stderr(err).kill_on_drop(true);
        let child = command.spawn().map_err(TestkitError::io(&self.binary))?;
        Ok(Running {
            child,
            stdout,
            stderr,
        })
    }
}

impl Running {
    /// Its process number; nothing once it was awaited.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The processes it has started, and theirs.
    pub fn descendants(&self) -> Vec<Process> {
        self.pid().map(descendants).unwrap_or_default()
    }

    /// What it has written to standard output so far.
    pub fn stdout_so_far(&self) -> Result<String, TestkitError> {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr_so_far(&self) -> Result<String, TestkitError> {
        read(&self.stderr)
    }

    /// Waits until it has written this to standard error, for a minute at most. Looks often enough to act within a step.
    pub async fn says(&self, text: &str) -> Result<(), TestkitError> {
        let end = Instant::now() + SAYS_WITHIN;
        loop {
            let so_far = self.stderr_so_far()?;
            if so_far.contains(text) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(TestkitError::NotInTime {
                    what: format!("the program says {text:?}; it said:\n{so_far}"),
                    limit: SAYS_WITHIN,
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it as a power cut would: SIGKILL, to it alone. What it started goes on.
    pub async fn kill_hard(mut self) -> Result<Run, TestkitError> {
        self.signal(Signal::KILL)?;
        self.finish(LIMIT).await
    }

    /// As Ctrl-C does: SIGINT, to it alone.
    pub fn interrupt(&self) -> Result<(), TestkitError> {
        self.signal(Signal::INT)
    }

    /// As a service manager does: SIGTERM.
    pub fn terminate(&self) -> Result<(), TestkitError> {
        self.signal(Signal::TERM)
    }

    /// As a terminal does that goes away: SIGHUP.
    pub fn hang_up(&self) -> Result<(), TestkitError> {
        self.signal(Signal::HUP)
    }

    /// Stops it in its tracks (SIGSTOP), as a laptop's lid does.
    pub fn suspend(&self) -> Result<(), TestkitError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Self::suspend`].
    pub fn proceed(&self) -> Result<(), TestkitError> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end. After `limit` it is killed, and the error says what it had written.
    pub async fn wait(mut self, limit: Duration) -> Result<Run, TestkitError> {
        self.finish(limit).await
    }

    async fn finish(&mut self, limit: Duration) -> Result<Run, TestkitError> {
        let Ok(ended) = timeout(limit, self.child.wait()).await else {
            return Err(TestkitError::NotInTime {
                what: format!("the program ends; it said:\n{}", read(&self.stderr)?),
                limit,
            });
        };
        let status = ended.map_err(|e| TestkitError::Unexpected(e.to_string()))?;
        Ok(Run {
            code: status.code(),
            signal: status.signal(),
            stdout: read(&self.stdout)?,
            stderr: read(&self.stderr)?,
        })
    }

    /// A program that has just ended takes a signal too, until it is awaited.
    fn signal(&self, signal: Signal) -> Result<(), TestkitError> {
        let pid = self
            .pid()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .ok_or_else(|| TestkitError::Unexpected("the program has ended".to_owned()))?;
        kill_process(pid, signal).map_err(|e| TestkitError::Unexpected(format!("{signal:?}: {e}")))
    }
}

fn read(path: &Path) -> Result<String, TestkitError> {
    let bytes = std::fs::read(path).map_err(TestkitError::io(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    fn shell() -> Keyroll {
        Keyroll::new("/bin/sh").unwrap()
    }

    #[tokio::test]
    async fn a_program_sees_nothing_of_the_tests_own_environment() {
        let keyroll = shell().env("EXTRA", "1");
        let run = keyroll
            .run(["-c", "env | cut -d= -f1 | sort"])
            .await
            .unwrap();
        let names: Vec<&str> = run.stdout.lines().filter(|n| *n != "_").collect();
        assert_eq!(names, ["EXTRA", "HOME", "LC_ALL", "PATH", "PWD"]);
    }

    #[tokio::test]
    async fn exit_code_and_both_outputs_are_kept() {
        let run = shell()
            .run(["-c", "echo out; echo err >&2; exit 7"])
            .await
            .unwrap();
        assert_eq!(run.code, Some(7));
        assert_eq!(
            (run.stdout.as_str(), run.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[tokio::test]
    async fn what_a_killed_program_started_goes_on() {
        let keyroll = shell();
        let running = keyroll.spawn(["-c", "sleep 61; true"]).unwrap();
        let child = eventually("sleep runs", Duration::from_secs(5), async || {
            let mut all = running.descendants();
            all.retain(|p| p.arguments == ["sleep", "61"]);
            all.pop()
        })
        .await
        .unwrap();
        let run = running.kill_hard().await.unwrap();
        assert_eq!(run.signal, Some(9));
        let pid = Pid::from_raw(i32::try_from(child.pid).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).expect("the child is still there");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_reported_and_killed() {
        let keyroll = shell();
        let running = keyroll.spawn(["-c", "exec sleep 62"]).unwrap();
        let error = running.wait(Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, TestkitError::NotInTime { .. }));
    }
}
