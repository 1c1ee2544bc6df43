//! `keyroll rollback --restore-files` and `--restore-database`: files or data from a rotation's backup.

use std::io::IsTerminal as _;

use clap::Args;
use keyroll_rotate::{RestorePlan, RestoreReport, RestoreWhat, RotationId};

use crate::args::Global;
use crate::asking::{ask, read_answer};
use crate::commands::{fail, mode, open};
use crate::exit;
use crate::output::{self, Speaker, complain, say, style};
use crate::stopping::control_saying;

/// What is brought back; without either, the rotation is taken back as a new one.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Brings the application and compose files back from the backup; env files stay
    #[arg(long, help_heading = "Restore from the backup")]
    pub(crate) restore_files: bool,
    /// Brings the database back from the dump; what was written since is kept beside
    #[arg(long, help_heading = "Restore from the backup")]
    pub(crate) restore_database: bool,
    /// The second confirmation where there is no terminal, beside --yes: the rotation once more
    #[arg(
        long,
        value_name = "ROTATION",
        help_heading = "Restore from the backup"
    )]
    pub(crate) confirm_restore: Option<String>,
}

impl RestoreArgs {
    /// Whether a restore is asked for.
    pub(crate) fn wanted(&self) -> bool {
        self.restore_files || self.restore_database
    }
}

/// Runs it.
pub(crate) async fn run(rotation: &str, args: &RestoreArgs, yes: bool, global: &Global) -> u8 {
    let terminal =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !global.json;
    let confirmed = args.confirm_restore.as_deref() == Some(rotation);
    if args.confirm_restore.is_some() && !confirmed {
        complain("--confirm-restore names another rotation");
        return exit::USAGE;
    }
    if !(terminal || yes && confirmed) {
        complain(&format!(
            "a restore overwrites what is there, and there is no terminal to ask on: add --yes --confirm-restore {rotation}"
        ));
        return exit::USAGE;
    }
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let id = RotationId::from_text(rotation);
    let control = control_saying(
        "stopping: before the databases change places if it is not too late; do not kill keyroll",
    );
    let approve = |plan: &RestorePlan| {
        if yes && confirmed {
            return true;
        }
        show(plan);
        if plan.files.is_empty() && plan.database.is_none() {
            return true;
        }
        (yes || ask("\nRestore now? [y/N] ", &control.stop))
            && (confirmed
                || read_answer(
                    "This cannot be taken back by keyroll. Type the rotation to go on: ",
                    &control.stop,
                ) == plan.rotation.as_str())
    };
    let what = RestoreWhat {
        files: args.restore_files,
        database: args.restore_database,
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll
        .restore(&id, what, &speaker, &approve, &control)
        .await;
    drop(speaker);
    match result {
        Ok(report) => finish(&report, global),
        Err(error) => fail(&error, global),
    }
}

fn show(plan: &RestorePlan) {
    let (bold, warn, off) = (style::BOLD, style::WARN, style::OFF);
    say(&format!(
        "backup     {} (read in full, whole)",
        plan.backup.display()
    ));
    for file in &plan.files {
        say(&format!("  {:<8} {}", file.change, file.path.display()));
    }
    if let Some(database) = plan.database.as_ref().filter(|d| d.changed_places) {
        say(&format!(
            "database   {bold}{}{off} was replaced by the run that was interrupted, and is kept as {}; what is left is to start {}, to check, and to record it",
            database.name,
            database.kept_as,
            database.stopped.join(", ")
        ));
    } else if let Some(database) = &plan.database {
        say(&format!(
            "database   {bold}{}{off} is replaced; the present one is kept as {}",
            database.name, database.kept_as
        ));
        say(&format!(
            "stopped    {} for a moment",
            database.stopped.join(", ")
        ));
        say(&format!(
            "room       at most {} MiB, {} MiB free",
            database.needed_bytes >> 20,
            database.free_bytes >> 20
        ));
    }
    for line in &plan.notes {
        say(&format!("{warn}note{off}       {line}"));
    }
}

fn finish(report: &RestoreReport, global: &Global) -> u8 {
    if global.json {
        output::json(report);
    } else {
        for line in &report.seen {
            say(&format!("{}✓{} {line}", style::GOOD, style::OFF));
        }
        for line in &report.found {
            say(&format!("{}✗{} {line}", style::BAD, style::OFF));
        }
    }
    if report.well {
        exit::DONE
    } else {
        exit::FAILED
    }
}
