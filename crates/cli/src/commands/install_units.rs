//! `keyroll install-units`: a systemd unit that finishes an interrupted rotation when the machine comes up.

use std::path::{Path, PathBuf};

use clap::Args;
use keyroll_rotate::Profile;

use crate::args::Global;
use crate::exit;
use crate::output::{self, complain, say};
use crate::units;

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
    let name = format!("keyroll-recover-{}.service", profile.name);
    let written = std::env::current_exe()
        .map_err(|e| format!("this program's own path: {e}"))
        .and_then(|program| unit(&program, &profile, &global.again()?))
        .and_then(|text| units::write(&args.unit_dir, &[(name.clone(), text)]));
    match written {
        Ok((_, checked)) => {
            let path = args.unit_dir.join(&name);
            if global.json {
                output::json(&serde_json::json!({"unit": path, "checked": checked}));
            } else {
                say(&format!(
                    "{}: written, {}",
                    path.display(),
                    units::how(checked)
                ));
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

/// The unit's text.
fn unit(program: &Path, profile: &Profile, arguments: &[String]) -> Result<String, String> {
    let words = ["recover"].into_iter();
    let words: Vec<&str> = words.chain(arguments.iter().map(String::as_str)).collect();
    let command = units::command(program, &words)?;
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
        units::path_value(state)?,
    ))
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
}
