//! `keyroll show`, and how a rotation's state is printed wherever it is.

use clap::Args;
use keyroll_rotate::{Next, RotationId, SecretShown, ShowReport, StepNow, View};

use crate::args::Global;
use crate::commands::{fail, open};
use crate::exit;
use crate::output::{self, say, style};

/// Arguments of `keyroll show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The rotation; without one the unfinished one, else the last
    #[arg(value_name = "ROTATION")]
    pub(crate) rotation: Option<String>,
}

/// Runs it.
pub(crate) async fn run(args: &ShowArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let rotation = args.rotation.as_ref().map(RotationId::from_text);
    match keyroll.show(rotation.as_ref()).await {
        Ok(report) if global.json => output::json(&report),
        Ok(report) => tell(&report),
        Err(error) => return fail(&error, global),
    }
    exit::DONE
}

fn tell(report: &ShowReport) {
    let (bold, dim, off) = (style::BOLD, style::DIM, style::OFF);
    let state = match (&report.unfinished, report.ending) {
        (Some(unfinished), _) => format!("unfinished ({})", unfinished.phase),
        (None, Some(ending)) => ending.to_string(),
        (None, None) => "without an ending".to_owned(),
    };
    say(&format!(
        "{bold}{}{off} on {}: {bold}{state}{off}",
        report.rotation, report.stack
    ));
    say(&format!(
        "begun {} by {}, {}",
        report.begun_at, report.operator, report.why
    ));
    if let Some(former) = &report.takes_back {
        say(&format!("takes back {former}"));
    }
    say(&format!("\n{bold}secrets{off}"));
    sealed(&report.secrets);
    steps(&report.steps);
    if !report.events.is_empty() {
        say(&format!("\n{bold}what happened{off}"));
        for event in &report.events {
            let at = event.at.strftime("%Y-%m-%dT%H:%M:%SZ");
            say(&format!("  {dim}{at}{off}  {}", event.what));
        }
    }
    if let Some(unfinished) = &report.unfinished {
        in_force(&unfinished.in_force);
    }
    if let Some(backup) = &report.backup {
        say(&format!("\nbackup from before: {}", backup.display()));
    }
    if let Some(unfinished) = &report.unfinished {
        next(&unfinished.next);
    }
}

/// Which values of each secret are sealed.
pub(crate) fn sealed(secrets: &[SecretShown]) {
    let (dim, off) = (style::DIM, style::OFF);
    for secret in secrets {
        let sealed = match (secret.old_sealed, secret.new_sealed) {
            (true, true) => "old and new are sealed",
            (true, false) => "the old one alone is sealed",
            (false, true) => "the new one alone is sealed",
            (false, false) => "neither is sealed any more",
        };
        say(&format!(
            "  {:<24} {dim}{} -> {}{off}  {sealed}",
            secret.name, secret.old, secret.new
        ));
    }
}

/// Where each step stands, and how often it was tried.
pub(crate) fn steps(all: &[StepNow]) {
    let (bold, off) = (style::BOLD, style::OFF);
    say(&format!("\n{bold}steps{off}"));
    for step in all {
        let tried = match (step.tries, step.undo_tries) {
            (0 | 1, 0 | 1) => String::new(),
            (_, 0 | 1) => format!(" (tried {} times)", step.tries),
            (_, undos) => format!(" (tried to take it back {undos} times)"),
        };
        say(&format!("  {:<20} {}{tried}", step.step, step.state));
    }
}

/// What is in force where, by whose view.
pub(crate) fn in_force(views: &[View]) {
    if views.is_empty() {
        return;
    }
    let (bold, dim, off) = (style::BOLD, style::DIM, style::OFF);
    say(&format!("\n{bold}in force where, by whose view{off}"));
    let width = views.iter().map(|v| v.place.chars().count()).max();
    let width = width.unwrap_or_default();
    let mut last = "";
    for view in views {
        if view.secret != last {
            say(&format!("  {}", view.secret));
            last = &view.secret;
        }
        say(&format!(
            "      {:<width$}  {bold}{}{off}  {dim}({}){off}",
            view.place, view.holds, view.by
        ));
    }
}

/// The commands that lead on.
pub(crate) fn next(all: &[Next]) {
    let (bold, off) = (style::BOLD, style::OFF);
    say(&format!("\n{bold}what to type{off}"));
    for next in all {
        say(&format!("  {bold}{}{off}", next.command));
        say(&format!("      {}", next.does));
    }
}
