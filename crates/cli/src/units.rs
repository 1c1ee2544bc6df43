//! systemd units: written whole, checked by systemd itself before they have their names.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A unit's file name and text.
pub(crate) type Unit = (String, String);

/// Writes these units into a directory, all or none as far as systemd's opinion goes. Their paths, and whether they could be checked.
pub(crate) fn write(directory: &Path, units: &[Unit]) -> Result<(Vec<PathBuf>, bool), String> {
    let failed =
        |path: &Path, e: &io::Error| format!("{}: {e}; no unit was written", path.display());
    // systemd-analyze goes by the file's name.
    let trial = directory.join(".keyroll-trial");
    fs::create_dir_all(&trial).map_err(|e| failed(&trial, &e))?;
    let written = || -> Result<(Vec<PathBuf>, bool), String> {
        let beside: Vec<PathBuf> = units.iter().map(|(name, _)| trial.join(name)).collect();
        for ((_, text), path) in units.iter().zip(&beside) {
            fs::write(path, text).map_err(|e| failed(path, &e))?;
        }
        let checked = check(&beside)?;
        let mut paths = vec![];
        for ((name, _), from) in units.iter().zip(&beside) {
            let path = directory.join(name);
            fs::rename(from, &path).map_err(|e| failed(&path, &e))?;
            paths.push(path);
        }
        Ok((paths, checked))
    };
    let written = written();
    let _ = fs::remove_dir_all(&trial);
    written
}

/// systemd's own opinion; false where it cannot be asked.
fn check(units: &[PathBuf]) -> Result<bool, String> {
    let asked = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(units)
        .output();
    match asked {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(format!("systemd-analyze: {e}; no unit was written")),
        Ok(done) if done.status.success() => Ok(true),
        Ok(done) => Err(format!(
            "systemd-analyze does not accept the unit, and none was written: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
    }
}

/// How it was checked, for people.
pub(crate) fn how(checked: bool) -> &'static str {
    if checked {
        "checked with systemd-analyze"
    } else {
        "not checked: there is no systemd-analyze here"
    }
}

/// A command line that runs this program.
pub(crate) fn command(program: &Path, words: &[&str]) -> Result<String, String> {
    let program = program
        .to_str()
        .ok_or("this program's own path is not UTF-8")?;
    let mut command = quoted(program)?;
    for word in words {
        let _ = write!(command, " {}", quoted(word)?);
    }
    Ok(command)
}

/// A path as the value of a setting, where quotes would be part of it (systemd.unit(5)).
pub(crate) fn path_value(text: &str) -> Result<String, String> {
    if text.contains(['\n', '\r']) {
        return Err(format!("{text:?} has a line break, which no unit can hold"));
    }
    Ok(text.replace('%', "%%"))
}

/// One word of a command line (systemd.service(5), "Command lines"): specifiers and variables are nobody's here.
fn quoted(text: &str) -> Result<String, String> {
    if text.contains(['\n', '\r']) {
        return Err(format!("{text:?} has a line break, which no unit can hold"));
    }
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !text.is_empty() && escaped.chars().all(plain) {
        Ok(escaped)
    } else {
        Ok(format!("\"{escaped}\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_cannot_hold_is_refused() {
        assert!(quoted("a\nExecStartPost=/bin/sh").is_err());
        assert!(path_value("/var/lib\n/x").is_err());
    }
}
