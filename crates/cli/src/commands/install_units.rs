//! `keyroll install-units`: a systemd unit that finishes an interrupted rotation when the machine comes up.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use keyroll_rotate::Profile;

use crate::args::Global;
use crate::exit;
use crate::output::{self, complain, say};

/// Arguments of `keyroll install-units`.
#[derive(Debug, Args)]
pub(crate) struct InstallUnitsArgs {
    /// Where units are kept
    #[arg(long, default_value = "/etc/systemd/system", value_name = "DIR")]
    unit_dir: PathBuf,
}

/// Runs it. Writes one file, and nothing else: enabling it is one more command, which is told.
pub(crate) fn run(args: &InstallUnitsArgs, global: &Global) -> u8 {
    let profile = match Profile::load(&global.profile, &global.layers()) {
        Ok(profile) => profile,
        Err(error) => {
            complain(&error.to_string());
            return exit::USAGE;
        }
    };
    match install(&args.unit_dir, &profile, global) {
        Ok((path, checked)) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if global.json {
                output::json(&serde_json::json!({"unit": path, "checked": checked}));
            } else {
                let how = if checked {
                    "checked with systemd-analyze"
                } else {
                    "not checked: there is no systemd-analyze here"
                };
                say(&format!("{}: written, {how}", path.display()));
                say(&format!(
                    "next: systemctl daemon-reload && systemctl enable {name}"
                ));
            }
            exit::DONE
        }
        Err(why) => {
            complain(&why);
            exit::FAILED
        }
    }
}

/// Writes the unit, checked before it has its name. Gives its path, and whether it could be checked.
fn install(
    directory: &Path,
    profile: &Profile,
    global: &Global,
) -> Result<(PathBuf, bool), String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
    let text = unit(&program, profile, &global.again()?)?;
    let name = format!("keyroll-recover-{}.service", profile.name);
    let failed =
        |path: &Path, e: &io::Error| format!("{}: {e}; no unit was written", path.display());
    // systemd-analyze goes by the file's name.
    let trial = directory.join(".keyroll-trial");
    fs::create_dir_all(&trial).map_err(|e| failed(&trial, &e))?;
    let beside = trial.join(&name);
    let path = directory.join(&name);
    let written = fs::write(&beside, text)
        .map_err(|e| failed(&beside, &e))
        .and_then(|()| check(&beside))
        .and_then(|checked| {
            fs::rename(&beside, &path).map_err(|e| failed(&path, &e))?;
            Ok(checked)
        });
    let _ = fs::remove_dir_all(&trial);
    Ok((path, written?))
}

/// systemd's own opinion; false where it cannot be asked.
fn check(unit: &Path) -> Result<bool, String> {
    let asked = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(unit)
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

/// The unit's text.
fn unit(program: &Path, profile: &Profile, arguments: &[String]) -> Result<String, String> {
    let program = program
        .to_str()
        .ok_or("this program's own path is not UTF-8")?;
    let mut command = quoted(program)?;
    for argument in ["recover"]
        .into_iter()
        .chain(arguments.iter().map(String::as_str))
    {
        let _ = write!(command, " {}", quoted(argument)?);
    }
    let state = profile.paths.state.join("state.db");
    let state = state
        .to_str()
        .ok_or("the state directory's path is not UTF-8")?;
    Ok(format!(
        "# Written by `keyroll install-units`.
[Unit]
Description=Finish a rotation of {}'s secrets that was interrupted
Wants=docker.service
After=docker.service network-online.target
ConditionPathExists={}

[Service]
Type=oneshot
ExecStart={command}
# SIGTERM asks keyroll to finish what runs and to put the old set back, which takes as long as containers take to start.
TimeoutStartSec=30min
TimeoutStopSec=15min
KillMode=mixed

[Install]
WantedBy=multi-user.target
",
        profile.name.replace('%', "%%"),
        path_value(state)?,
    ))
}

/// A path as the value of a setting, where quotes would be part of it (systemd.unit(5)).
fn path_value(text: &str) -> Result<String, String> {
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
    fn the_unit_runs_recover_with_the_options_that_lead_to_the_stack() {
        let profile = Profile::load("proxpanel", &["paths.state=/var/lib/keyroll".to_owned()]);
        let arguments = [
            "--profile",
            "proxpanel",
            "--set",
            "http.base_url=https://a b/$x?%20",
        ];
        let arguments = arguments.map(str::to_owned);
        let text = unit(
            Path::new("/usr/local/bin/keyroll"),
            &profile.unwrap(),
            &arguments,
        );
        insta::assert_snapshot!(text.unwrap());
    }

    #[test]
    fn what_a_unit_cannot_hold_is_refused() {
        assert!(quoted("a\nExecStartPost=/bin/sh").is_err());
        assert!(path_value("/var/lib\n/x").is_err());
    }
}
