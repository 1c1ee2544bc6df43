//! Running commands, and where things are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::Result;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Everything the sandbox writes is below this directory.
pub(crate) fn sandbox_dir() -> Result<PathBuf> {
    let dir = root().join("target/sandbox");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// A program that cargo built in the dev profile.
pub(crate) fn built(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// A program that cargo built in the release profile.
pub(crate) fn released(name: &str) -> PathBuf {
    target().join("release").join(name)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this program, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    command
}

/// A command with its arguments.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs it with the terminal as its output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run {}: {e}", named(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}", named(command)))
    }
}

/// Runs it and returns its standard output, trimmed. A failure shows its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    output_with_input(command, "")
}

/// As [`output`], with `input` on its standard input.
pub(crate) fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = named(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends without reading its input tells why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child
        .wait_with_output()
        .map_err(|e| format!("{name}: {e}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&done.stderr);
        Err(format!("{name} ended with {}:\n{said}", done.status))
    }
}

/// Where `program` is on the search path.
pub(crate) fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Root's search path may lack these, after `su` for example.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// An error with its whole chain of reasons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

/// A hash over pieces of content: two recipes with the same hash make the same thing.
pub(crate) fn fingerprint<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update((piece.len() as u64).to_le_bytes());
        hash.update(piece);
    }
    hash.finalize()
        .iter()
        .fold(String::new(), |hex, b| format!("{hex}{b:02x}"))
}

fn named(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().take(3).map(|a| a.to_string_lossy());
    std::iter::once(program.as_str().into())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}
