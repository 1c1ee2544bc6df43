//! Arguments that every command takes.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use keyroll_rotate::Profile;

use crate::commands;

/// Rotates the secrets of a live docker compose stack in place: all or nothing, proven, with evidence.
#[derive(Debug, Parser)]
#[command(name = "keyroll", version, max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Which stack, and how to speak.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// The exit codes, as `--help` prints them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for another reason, or a check found a fault
  2  wrong usage
  3  refused, nothing was changed
  4  rolled back: the old set is in force again
  5  stuck: an operator is needed; what is in force is told
  6  rolled back after an incident: values that may have leaked are in force again
  7  unfinished, without an ending: run `keyroll resume`
  8  abandoned: an operator declared it to be over";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// A built-in profile's name, or the path of a profile
    #[arg(
        long,
        global = true,
        default_value = "proxpanel",
        value_name = "NAME|PATH"
    )]
    pub(crate) profile: String,
    /// Overrides a value of the profile, such as `http.base_url=http://127.0.0.1:8080`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Where the stack is deployed (root)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where the application is reached (`http.base_url`)
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// keyroll's state (paths.state)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// keyroll's age identity (paths.identity)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Where backups go (paths.backups)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) backup_root: Option<PathBuf>,
    /// Where summaries go (paths.summaries)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) summary_dir: Option<PathBuf>,
    /// Who is at the keyboard, for the trail
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// Prints one JSON document to standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// All overrides in the profile's words, `--set` first so that the named flags win.
    pub(crate) fn layers(&self) -> Vec<String> {
        let path = |key: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|p| format!("{key}={}", p.display()))
        };
        let named = [
            path("root", &self.root),
            self.base_url.as_ref().map(|u| format!("http.base_url={u}")),
            path("paths.state", &self.state_dir),
            path("paths.identity", &self.identity),
            path("paths.backups", &self.backup_root),
            path("paths.summaries", &self.summary_dir),
        ];
        self.overrides
            .iter()
            .cloned()
            .chain(named.into_iter().flatten())
            .collect()
    }

    /// The options that lead to this stack again, with absolute paths: a unit or a script has no working directory of the operator's.
    pub(crate) fn again(&self) -> Result<Vec<String>, String> {
        let absolute = |path: &Path| {
            let found =
                std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let text = found.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                format!(
                    "{}: not UTF-8, which no unit or script can hold",
                    path.display()
                )
            })
        };
        let mut all = vec!["--profile".to_owned()];
        all.push(if Profile::is_path(&self.profile) {
            absolute(Path::new(&self.profile))?
        } else {
            self.profile.clone()
        });
        for text in &self.overrides {
            all.extend(["--set".to_owned(), text.clone()]);
        }
        for (name, path) in [
            ("--root", &self.root),
            ("--state-dir", &self.state_dir),
            ("--identity", &self.identity),
            ("--backup-root", &self.backup_root),
            ("--summary-dir", &self.summary_dir),
        ] {
            if let Some(path) = path {
                all.extend([name.to_owned(), absolute(path)?]);
            }
        }
        if let Some(url) = &self.base_url {
            all.extend(["--base-url".to_owned(), url.clone()]);
        }
        Ok(all)
    }
}

/// The commands, one file each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Rotates secrets, or a group of them
    Rotate(commands::rotate::RotateArgs),
    /// Goes on with a rotation that was interrupted
    Resume(commands::resume::ResumeArgs),
    /// Goes on with an interrupted rotation by itself, as a service at boot does
    Recover(commands::recover::RecoverArgs),
    /// Writes a systemd unit that runs `keyroll recover` at boot
    InstallUnits(commands::install_units::InstallUnitsArgs),
    /// A systemd timer that rotates what is due
    Schedule(commands::schedule::ScheduleArgs),
    /// Writes the runbook's scripts, which call keyroll
    InstallScripts(commands::install_scripts::InstallScriptsArgs),
    /// What the runbook's scripts call
    #[command(hide = true)]
    Script(commands::script::ScriptArgs),
    /// Declares an unfinished rotation to be over, where a resume cannot finish it
    Abandon(commands::abandon::AbandonArgs),
    /// Ends grace windows: the previous values of webhook secrets are no longer accepted
    Finalize(commands::finalize::FinalizeArgs),
    /// Takes a completed rotation back, as a new rotation to the kept values
    Rollback(commands::rollback::RollbackArgs),
    /// Shows what a rotation would do, and changes nothing; tries no login unless told to
    Plan(commands::plan::PlanArgs),
    /// Shows each secret's version and age, and whether a rotation is unfinished
    Status(commands::status::StatusArgs),
    /// Shows one rotation: its steps, what was tried, and, if it is stuck, what is in force where
    Show(commands::show::ShowArgs),
    /// Shows a sealed value: the last resort, recorded in the trail
    Reveal(commands::reveal::RevealArgs),
    /// Checks the running stack as a consumer would, and changes nothing
    Verify(commands::verify::VerifyArgs),
    /// Reads the trail
    Audit(commands::audit::AuditArgs),
}
