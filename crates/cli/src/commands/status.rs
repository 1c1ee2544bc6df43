//! `keyroll status`.

use clap::Args;
use keyroll_rotate::{Cadence, DueState, Needs, StatusReport};

use crate::args::Global;
use crate::commands::{fail, open, show};
use crate::exit;
use crate::output::{self, say, style};

/// Arguments of `keyroll status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Exits with 1 if something is overdue, unfinished, or a grace window is open beyond its time; for monitoring
    #[arg(long)]
    pub(crate) check: bool,
}

/// What monitoring has to hear of, a line each.
fn faults(report: &StatusReport) -> Vec<String> {
    let mut faults = vec![];
    for secret in &report.secrets {
        let state = secret.cadence.as_ref().map(|c| c.state);
        if state == Some(DueState::Overdue) {
            faults.push(format!("{} is overdue", secret.name));
        }
        if secret.window.as_ref().is_some_and(|w| w.over) {
            faults.push(format!(
                "the grace window of {} is open beyond its time",
                secret.name
            ));
        }
    }
    if let Some(unfinished) = &report.unfinished {
        faults.push(format!("rotation {} is unfinished", unfinished.rotation));
    }
    if let Some(restore) = &report.unfinished_restore {
        faults.push(format!("a restore from {} is unfinished", restore.rotation));
    }
    faults
}

/// When it is due and what it needs, for people.
fn when(cadence: &Cadence) -> String {
    let date = cadence.due_at.map(|at| at.strftime("%Y-%m-%d").to_string());
    let date = date.unwrap_or_default();
    let due = match cadence.state {
        DueState::Fresh => format!("due {date}"),
        DueState::Due => format!("due since {date}"),
        DueState::Overdue => format!("overdue, due since {date}"),
        DueState::NeverRotated => "due: keyroll has never rotated it".to_owned(),
    };
    match cadence.needs {
        Needs::Nothing => due,
        Needs::Value => format!("{due}; needs a new value from its provider"),
    }
}

/// Each secret: what is in force, when it is due, and whether its grace window is open.
fn secrets(report: &StatusReport) {
    let (bold, warn, off) = (style::BOLD, style::WARN, style::OFF);
    say(&format!(
        "{bold}{}{off}, by the journal's view",
        report.stack
    ));
    say(&format!(
        "  {:<24} {:>7}  {:<12} {:<20} last rotation",
        "secret", "version", "age", "fingerprint"
    ));
    for secret in &report.secrets {
        let age = secret
            .age_days
            .map_or_else(|| "never rotated".to_owned(), |days| format!("{days} days"));
        let rotation = secret
            .rotation
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let fingerprint = secret.fingerprint.as_deref().unwrap_or("-");
        say(&format!(
            "  {:<24} {:>7}  {age:<12} {fingerprint:<20} {rotation}",
            secret.name, secret.version
        ));
    }
    for secret in &report.secrets {
        if let Some(cadence) = &secret.cadence {
            say(&format!("  {:<24} {}", secret.name, when(cadence)));
        }
    }
    for secret in &report.secrets {
        let Some(window) = &secret.window else {
            continue;
        };
        let time = if window.over {
            format!("{warn}its time was over at {}{off}", window.until)
        } else {
            format!("until {} at least", window.until)
        };
        say(&format!(
            "grace window: {} accepts its previous value ({}) too, {time}; `{}` closes it",
            secret.name, window.previous, window.closes
        ));
    }
}

/// Runs it.
pub(crate) async fn run(args: &StatusArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let report = match keyroll.status().await {
        Ok(report) => report,
        Err(error) => return fail(&error, global),
    };
    let faults = faults(&report);
    let code = if args.check && !faults.is_empty() {
        exit::FAILED
    } else {
        exit::DONE
    };
    if global.json {
        output::json(&report);
        return code;
    }
    let (warn, off) = (style::WARN, style::OFF);
    secrets(&report);
    if !report.stale_by_choice.is_empty() {
        say(&format!(
            "stale by choice: {}",
            report.stale_by_choice.join(", ")
        ));
    }
    match &report.unfinished {
        None => say("no rotation is unfinished"),
        Some(unfinished) => {
            say(&format!(
                "\n{warn}unfinished{off}: {} ({}), begun {}",
                unfinished.rotation, unfinished.phase, unfinished.begun_at
            ));
            if let Some(reason) = &unfinished.reason {
                say(&format!("because {reason}"));
            }
            show::steps(&unfinished.steps);
            show::in_force(&unfinished.in_force);
            show::next(&unfinished.next);
        }
    }
    if let Some(restore) = &report.unfinished_restore {
        say(&format!(
            "\n{warn}unfinished{off}: bringing back the {} from the backup of {}, begun {}",
            restore.parts.join(" and the "),
            restore.rotation,
            restore.begun_at
        ));
        if !restore.may_be_stopped.is_empty() {
            say(&format!(
                "  may be stopped       {}",
                restore.may_be_stopped.join(", ")
            ));
        }
        say(&restore.next);
    }
    if args.check {
        for fault in &faults {
            say(&format!("{warn}check{off}: {fault}"));
        }
    }
    code
}
