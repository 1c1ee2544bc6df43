//! Running compose: scrubbed environment, marked, bounded in time and in output.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyroll_secret::Secret;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::orphans;

/// More than any real configuration; what exceeds it is an error, never cut off in silence.
const STDOUT_CAP: usize = 32 << 20;
/// Of standard error the end counts.
const STDERR_CAP: usize = 64 << 10;
/// How long the ending of a timed-out call may take.
const END: Duration = Duration::from_secs(10);

/// One call.
pub(crate) struct Call {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// The whole environment of the child.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: PathBuf,
    /// Standard input; none is `/dev/null`.
    pub(crate) input: Option<Secret>,
    pub(crate) limit: Duration,
}

/// How it ended.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    /// Not redacted yet.
    pub(crate) stderr: String,
}

/// Why there is no [`Done`].
pub(crate) enum Broken {
    /// It never ran.
    NotStarted(String),
    /// It ran, and its output could not be taken.
    Output(String),
    /// It was ended at the limit, wholly (`true`) or with something left over.
    Timeout(bool),
}

/// A name for a call that no other call has.
pub(crate) fn call_mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!(
        "{}-{nanos}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

impl Call {
    /// The program, found on the call's own path. Looked up here because a process for a name to be looked up is made by
    /// copying this one, and for a path it is not.
    fn found(&self) -> Result<PathBuf, Broken> {
        let program = Path::new(&self.program);
        if program.components().count() > 1 {
            return Ok(program.to_owned());
        }
        let path = self.environment.iter().find(|(key, _)| key == "PATH");
        let places = path
            .iter()
            .flat_map(|(_, path)| std::env::split_paths(path));
        let mut found = places.map(|place| place.join(program));
        found
            .find(|p| p.is_file())
            .ok_or_else(|| Broken::NotStarted(format!("{} is not on the path", program.display())))
    }
}

pub(crate) async fn run(call: Call) -> Result<Done, Broken> {
    let mark = call_mark();
    let program = call.found()?;
    let mut child = Command::new(program)
        .args(&call.arguments)
        .env_clear()
        .envs(call.environment.iter().map(|(k, v)| (k, v)))
        .env(orphans::CALL, &mark)
        .current_dir(&call.directory)
        .stdin(if call.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Signals of the terminal are the caller's to handle: compose must not die in the middle of a recreation.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Broken::NotStarted(e.to_string()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut pipe), Some(input)) = (stdin, &call.input) {
            // A child that ends without reading says why on its standard error.
            let _ = pipe.write_all(input.expose().as_bytes()).await;
        }
    };
    let whole = async {
        let ((), out, err) = tokio::join!(feed, all(stdout), tail(stderr));
        let status = child.wait().await;
        (status, out, err)
    };
    match tokio::time::timeout(call.limit, whole).await {
        Ok((Ok(status), Ok(stdout), stderr)) => Ok(Done {
            status,
            stdout,
            stderr,
        }),
        Ok((Err(e), ..)) => Err(Broken::Output(e.to_string())),
        Ok((_, Err(e), _)) => Err(Broken::Output(e)),
        // The client's own children (the compose plugin) do not die with it.
        Err(_) => Err(Broken::Timeout(end_call(&mark).await)),
    }
}

/// Ends every process of a call. False when something is or may be left.
pub(crate) async fn end_call(mark: &str) -> bool {
    match orphans::find_call(mark) {
        // What may not be looked into may be one of them.
        Ok(found) => orphans::end(&found.orphans, END).await.is_ok() && found.unreadable.is_empty(),
        Err(_) => false,
    }
}

async fn all(pipe: Option<impl AsyncRead + Unpin>) -> Result<Zeroizing<Vec<u8>>, String> {
    // Reserved at once: a vector that grows leaves copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 20));
    let Some(pipe) = pipe else { return Ok(bytes) };
    let mut pipe = pipe.take(STDOUT_CAP as u64 + 1);
    pipe.read_to_end(&mut bytes)
        .await
        .map_err(|e| e.to_string())?;
    if bytes.len() > STDOUT_CAP {
        return Err(format!("it wrote more than {STDOUT_CAP} bytes"));
    }
    Ok(bytes)
}

async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Zeroizing::new(Vec::new());
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut buffer = Zeroizing::new([0_u8; 8192]);
    while let Ok(n @ 1..) = pipe.read(&mut *buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > STDERR_CAP {
            let cut = kept.len() - STDERR_CAP;
            kept.drain(..cut);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Call {
        Call {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            directory: "/".into(),
            input: None,
            limit,
        }
    }

    #[tokio::test]
    async fn input_and_both_outputs_pass_through() {
        let mut call = shell("cat; echo oops >&2; exit 3", Duration::from_secs(20));
        call.input = Some(Secret::new("in"));
        let done = run(call).await.ok().expect("it runs");
        assert_eq!(done.stdout.as_slice(), b"in");
        assert_eq!(
            (done.stderr.as_str(), done.status.code()),
            ("oops\n", Some(3))
        );
    }

    #[tokio::test]
    async fn a_call_that_is_too_slow_is_ended_with_its_children() {
        let call = shell("sleep 1000 & sleep 1000", Duration::from_millis(200));
        let Err(Broken::Timeout(ended)) = run(call).await else {
            panic!("a timeout is expected")
        };
        // Anybody else cannot look into what others started meanwhile, and must not say that nothing is left.
        assert!(ended || !rustix::process::geteuid().is_root());
    }

    #[tokio::test]
    async fn of_a_long_standard_error_the_end_is_kept() {
        let script = "i=0; while [ $i -lt 3000 ]; do echo 'a line of thirty-two characters.' >&2; i=$((i+1)); done; echo end >&2";
        let done = run(shell(script, Duration::from_secs(20)))
            .await
            .ok()
            .expect("it runs");
        assert!(done.stderr.len() <= STDERR_CAP && done.stderr.ends_with("end\n"));
    }

    #[tokio::test]
    async fn the_child_sees_the_given_environment_and_its_mark_alone() {
        let done = run(shell("env | cut -d= -f1 | sort", Duration::from_secs(20)))
            .await
            .ok()
            .expect("it runs");
        let names = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(names, "KEYROLL_CALL\nPATH\nPWD\n");
    }
}
