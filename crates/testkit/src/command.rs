//! Running `docker`, with as little environment as it needs.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::TestkitError;

/// `docker` needs a search path, a home, and whatever says which engine is meant. An exported variable beyond these would beat
/// the stack's env file.
const KEPT: [&str; 4] = ["PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG"];

/// `docker` with these arguments and a scrubbed environment.
pub(crate) fn docker<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    scrubbed("docker", arguments)
}

/// `docker-compose` 1, in the same way.
pub(crate) fn docker_compose<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    scrubbed("docker-compose", arguments)
}

fn scrubbed<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs it; returns standard output and standard error.
pub(crate) async fn output(
    command: &mut Command,
    input: &[u8],
) -> Result<(String, String), TestkitError> {
    let what = name(command.as_std());
    let failed = |said: String| TestkitError::Command {
        what: what.clone(),
        said,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends without reading its input tells why on its standard error.
        let _ = stdin.write_all(input).await;
    }
    let done = child
        .wait_with_output()
        .await
        .map_err(|e| failed(e.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() {
        Ok((text(&done.stdout), text(&done.stderr)))
    } else {
        Err(failed(format!("{}\n{}", done.status, text(&done.stderr))))
    }
}

/// Runs it without input; returns standard output.
pub(crate) async fn stdout(command: &mut Command) -> Result<String, TestkitError> {
    output(command, b"").await.map(|(out, _)| out)
}

fn name(command: &std::process::Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args().take(6))
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
