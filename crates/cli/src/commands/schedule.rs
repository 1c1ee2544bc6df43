//! `keyroll schedule`: a systemd timer that rotates what is due, while nobody is there.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyroll_rotate::Profile;

use crate::args::Global;
use crate::exit;
use crate::output::{self, complain, say};
use crate::units::{self, Unit};

/// The timer's hour where the profile has no maintenance window.
const WITHOUT_WINDOW: &str = "*-*-* 03:30:00";

/// Arguments of `keyroll schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: What,
    /// Where units are kept
    #[arg(
        long,
        global = true,
        default_value = "/etc/systemd/system",
        value_name = "DIR"
    )]
    pub(crate) unit_dir: PathBuf,
}

/// What to do with the timer.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum What {
    /// Writes a service and a timer; the command that starts the timer is told
    Install,
    /// Prints both as they would be written, and whether they are there like that
    Show,
    /// Removes both
    Remove,
}

/// Runs it.
pub(crate) fn run(args: &ScheduleArgs, global: &Global) -> u8 {
    let profile = match Profile::load(&global.profile, &global.layers()) {
        Ok(profile) => profile,
        Err(error) => {
            complain(&error.to_string());
            return exit::USAGE;
        }
    };
    let done = std::env::current_exe()
        .map_err(|e| format!("this program's own path: {e}"))
        .and_then(|program| both(&program, &profile, &global.again()?))
        .and_then(|units| match args.what {
            What::Install => install(&args.unit_dir, &units, global),
            What::Show => {
                show(&args.unit_dir, &units, global);
                Ok(())
            }
            What::Remove => remove(&args.unit_dir, &units, global),
        });
    match done {
        Ok(()) => exit::DONE,
        Err(why) => {
            complain(&why);
            exit::FAILED
        }
    }
}

fn install(directory: &Path, units: &[Unit], global: &Global) -> Result<(), String> {
    let (paths, checked) = units::write(directory, units)?;
    if global.json {
        output::json(&serde_json::json!({"units": paths, "checked": checked}));
        return Ok(());
    }
    for path in &paths {
        say(&format!(
            "{}: written, {}",
            path.display(),
            units::how(checked)
        ));
    }
    say(&format!(
        "next: systemctl daemon-reload && systemctl enable --now {}",
        units[1].0
    ));
    Ok(())
}

fn show(directory: &Path, units: &[Unit], global: &Global) {
    let there = |(name, text): &Unit| match fs::read_to_string(directory.join(name)) {
        Ok(now) if now == *text => "there, like this",
        Ok(_) => "there, and another one; `keyroll schedule install` writes it again",
        Err(_) => "not there",
    };
    if global.json {
        let all = units.iter().map(|unit| {
            serde_json::json!({"unit": directory.join(&unit.0), "text": unit.1, "state": there(unit)})
        });
        output::json(&all.collect::<Vec<_>>());
        return;
    }
    for unit in units {
        say(&format!(
            "{}: {}",
            directory.join(&unit.0).display(),
            there(unit)
        ));
        say(&unit.1);
    }
}

fn remove(directory: &Path, units: &[Unit], global: &Global) -> Result<(), String> {
    let mut removed = vec![];
    for (name, _) in units {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    if global.json {
        output::json(&serde_json::json!({"removed": removed}));
    } else if removed.is_empty() {
        say("there was no schedule");
    } else {
        for path in &removed {
            say(&format!("{}: removed", path.display()));
        }
        say(&format!(
            "next: systemctl disable --now {} ; systemctl daemon-reload",
            units[1].0
        ));
    }
    Ok(())
}

/// The service and the timer.
fn both(program: &Path, profile: &Profile, arguments: &[String]) -> Result<[Unit; 2], String> {
    let name = format!("keyroll-rotate-due-{}", profile.name);
    Ok([
        (
            format!("{name}.service"),
            service(program, profile, arguments)?,
        ),
        (format!("{name}.timer"), timer(profile)),
    ])
}

fn service(program: &Path, profile: &Profile, arguments: &[String]) -> Result<String, String> {
    let words = ["rotate", "--due", "--yes"].into_iter();
    let words: Vec<&str> = words.chain(arguments.iter().map(String::as_str)).collect();
    let command = units::command(program, &words)?;
    let paths = &profile.paths;
    let own = [
        &profile.root,
        &paths.state,
        &paths.backups,
        &paths.summaries,
    ];
    let identity = paths.identity.parent();
    let mut lines = String::new();
    for path in own.into_iter().map(PathBuf::as_path).chain(identity) {
        let text = path
            .to_str()
            .ok_or_else(|| format!("{}: not UTF-8", path.display()))?;
        if text.contains(char::is_whitespace) {
            return Err(format!(
                "{text}: has a blank, which a unit's list of paths cannot hold"
            ));
        }
        // One that is not there yet is no reason not to start: keyroll itself says what is wrong.
        let _ = writeln!(lines, "ReadWritePaths=-{}", units::path_value(text)?);
    }
    Ok(format!(
        "# Written by `keyroll schedule install`.
[Unit]
Description=Rotate the secrets of {} that are due
Wants=docker.service
After=docker.service network-online.target

[Service]
Type=oneshot
ExecStart={command}
# SIGTERM asks keyroll to finish what runs and to put the old set back, which takes as long as containers take to start.
TimeoutStartSec=2h
TimeoutStopSec=15min
KillMode=mixed
# keyroll writes where the stack and its own files are, and nowhere else. It has to see every process, and to end what a killed run left.
ProtectSystem=strict
{lines}PrivateTmp=yes
NoNewPrivileges=yes
ProtectKernelModules=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
LockPersonality=yes
",
        profile.name.replace('%', "%%"),
    ))
}

fn timer(profile: &Profile) -> String {
    let (calendar, delay) = match &profile.schedule.window {
        None => (WITHOUT_WINDOW.to_owned(), "30min".to_owned()),
        Some(window) => {
            let days: Vec<String> = window.days.iter().map(|day| format!("{day:?}")).collect();
            let days = days.join(",");
            let gap = if days.is_empty() { "" } else { " " };
            let from = window.from.strftime("%H:%M:%S");
            // Begun in the first half of the window: it is to end in it too.
            let half = window.minutes() / 2;
            (format!("{days}{gap}*-*-* {from}"), format!("{half}min"))
        }
    };
    format!(
        "# Written by `keyroll schedule install`.
[Unit]
Description=Rotate the secrets of {} that are due

[Timer]
OnCalendar={calendar}
RandomizedDelaySec={delay}
# A machine that was off then makes up for it when it comes up; out of the maintenance window nothing is rotated.
Persistent=yes

[Install]
WantedBy=timers.target
",
        profile.name.replace('%', "%%")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(layers: &[&str]) -> [Unit; 2] {
        let layers: Vec<String> = layers.iter().map(|l| (*l).to_owned()).collect();
        let profile = Profile::load("proxpanel", &layers).unwrap();
        let arguments = ["--profile", "proxpanel"].map(str::to_owned);
        both(Path::new("/usr/local/bin/keyroll"), &profile, &arguments).unwrap()
    }

    #[test]
    fn the_units_rotate_what_is_due_in_the_first_half_of_the_window() {
        let window = r#"schedule.window={ days = ["Sat", "Sun"], from = "23:00", to = "01:00" }"#;
        let [service, timer] = units(&[window]);
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}\n{}",
            service.0, service.1, timer.0, timer.1
        ));
    }

    #[test]
    fn without_a_window_it_looks_every_night() {
        let [_, (_, timer)] = units(&[]);
        assert!(
            timer.contains("OnCalendar=*-*-* 03:30:00\nRandomizedDelaySec=30min"),
            "{timer}"
        );
    }
}
