//! The commands, one file each: a struct of arguments and one function.

pub(crate) mod abandon;
pub(crate) mod audit;
pub(crate) mod finalize;
pub(crate) mod install_scripts;
pub(crate) mod install_units;
pub(crate) mod plan;
pub(crate) mod recover;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod reveal;
pub(crate) mod rollback;
pub(crate) mod rotate;
pub(crate) mod schedule;
pub(crate) mod script;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;

use keyroll_rotate::{Ending, Keyroll, Outcome, PlanReport, Profile, RotateError};

use crate::args::{Cli, Command, Global};
use crate::output::{self, Mode, complain, say, shortened, style};
use crate::{exit, operator};

/// Runs a command to its exit code.
pub(crate) async fn run(cli: &Cli) -> u8 {
    match &cli.command {
        Command::Rotate(args) => rotate::run(args, &cli.global).await,
        Command::Resume(args) => resume::run(args, &cli.global).await,
        Command::Recover(args) => recover::run(args, &cli.global).await,
        Command::InstallUnits(args) => install_units::run(args, &cli.global),
        Command::Schedule(args) => schedule::run(args, &cli.global),
        Command::InstallScripts(args) => install_scripts::run(args, &cli.global),
        Command::Script(args) => script::run(args, &cli.global).await,
        Command::Abandon(args) => abandon::run(args, &cli.global).await,
        Command::Finalize(args) => finalize::run(args, &cli.global).await,
        Command::Rollback(args) => rollback::run(args, &cli.global).await,
        Command::Plan(args) => plan::run(args, &cli.global).await,
        Command::Status(args) => status::run(args, &cli.global).await,
        Command::Show(args) => show::run(args, &cli.global).await,
        Command::Reveal(args) => reveal::run(args, &cli.global),
        Command::Verify(args) => verify::run(args, &cli.global).await,
        Command::Audit(args) => audit::run(args, &cli.global),
    }
}

/// keyroll for the profile that the flags name; the error is the exit code.
pub(crate) fn open(global: &Global) -> Result<Keyroll, u8> {
    match Profile::load(&global.profile, &global.layers()) {
        Ok(profile) => Ok(Keyroll::new(
            profile,
            operator::identify(global.operator.clone()),
        )),
        Err(error) => {
            complain(&format!("{error}"));
            Err(exit::USAGE)
        }
    }
}

/// Tells an error, and gives its exit code.
pub(crate) fn fail(error: &RotateError, global: &Global) -> u8 {
    let code = exit::of_error(error);
    if global.json {
        let refusals: Vec<_> = match error {
            RotateError::Refused(all) => {
                all.iter().map(|r| serde_json::json!({"code": r.code.as_str(), "what": r.what, "next": r.next})).collect()
            }
            _ => vec![],
        };
        output::json(
            &serde_json::json!({"error": error.to_string(), "exit_code": code, "refusals": refusals}),
        );
    } else if let RotateError::Refused(all) = error {
        complain("refused, nothing was changed:");
        for refusal in all {
            let (bold, off) = (style::BOLD, style::OFF);
            eprintln_styled(&format!("  {bold}{}{off}: {}", refusal.code, refusal.what));
            eprintln_styled(&format!(
                "      {} (docs/errors/{}.md)",
                refusal.next, refusal.code
            ));
        }
    } else {
        complain(&error.to_string());
    }
    code
}

fn eprintln_styled(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Tells how a rotation ended, and gives its exit code.
pub(crate) fn finish(outcome: &Outcome, global: &Global) -> u8 {
    let code = exit::of_outcome(outcome);
    if global.json {
        output::json(outcome);
        return code;
    }
    let (good, bad, warn, bold, off) = (
        style::GOOD,
        style::BAD,
        style::WARN,
        style::BOLD,
        style::OFF,
    );
    match outcome.ending {
        Ending::Completed => {
            let what = match (&outcome.made, outcome.finalizes, outcome.graced.join(", ")) {
                _ if outcome.regenerated.is_some() => format!(
                    "the token {} has another value, which the application's setting holds; the old one is dead",
                    outcome.regenerated.as_deref().unwrap_or_default()
                ),
                (Some(made), ..) => format!("the token {made} is made, and nothing uses it yet"),
                (_, true, _) => {
                    "the grace windows are over, the previous values are dead".to_owned()
                }
                (.., none) if none.is_empty() => {
                    "the new set is in force, the old one is dead".to_owned()
                }
                (.., graced) => format!(
                    "the new set is in force; the old value of {graced} is accepted too, until `keyroll finalize`"
                ),
            };
            say(&format!(
                "{good}Completed{off} in {:.1} s: {what}",
                outcome.seconds
            ));
        }
        Ending::Compensated => {
            say(&format!(
                "{warn}Compensated{off} after {:.1} s: the old set is in force again, and was verified",
                outcome.seconds
            ));
            if outcome.incident {
                say(&format!(
                    "{bad}values that may have leaked are in force again{off}"
                ));
            }
        }
        Ending::Stuck if outcome.past_no_return => say(&format!(
            "{bad}Stuck{off} after the point of no return: the new set is in force and proven; what is left is {}: mend the reason, then `keyroll resume`",
            outcome.left.join(", ")
        )),
        Ending::Stuck => say(&format!(
            "{bad}Stuck{off}: neither set could be proven; `keyroll show` says what is in force where, and what leads out"
        )),
        Ending::Abandoned => say(&format!(
            "{warn}Abandoned{off}: nothing was proven, and no rotation is unfinished now; put the stack into order, then `keyroll plan`"
        )),
    }
    if let Some(reason) = &outcome.reason {
        say(&format!("because    {reason}"));
    }
    say(&format!("rotation   {}", outcome.rotation));
    if let Some(backup) = &outcome.backup {
        say(&format!("backup     {}", backup.display()));
    }
    if let Some(summary) = &outcome.summary {
        say(&format!("summary    {bold}{}{off}", summary.display()));
    }
    for line in &outcome.found {
        complain(line);
    }
    code
}

/// A plan, for a person.
pub(crate) fn show_plan(plan: &PlanReport) {
    let (bold, dim, warn, off) = (style::BOLD, style::DIM, style::WARN, style::OFF);
    say(&format!(
        "{bold}{}{off} (compose project {})",
        plan.stack, plan.project
    ));
    say("\nsecrets");
    for secret in &plan.secrets {
        say(&format!(
            "  {bold}{:<22}{off} {dim}now {}{off}",
            secret.name, secret.fingerprint
        ));
        for consumer in &secret.consumers {
            say(&format!("      {}", shortened(consumer, 110)));
        }
    }
    say("\nservices");
    for service in &plan.services {
        let fate = match service.fate {
            keyroll_rotate::Fate::Recreated => "recreated",
            keyroll_rotate::Fate::Kept => "left running, its environment goes stale by choice",
            keyroll_rotate::Fate::OneShot => "ran once, left alone",
            keyroll_rotate::Fate::Untouched => "not touched",
        };
        say(&format!("  {:<22} {fate}", service.service));
    }
    say(&format!("\nenv file   {}", plan.env_file.display()));
    if !plan.derived_keys.is_empty() {
        say(&format!(
            "           also rewritten, found by value: {}",
            plan.derived_keys.join(", ")
        ));
    }
    say("\norder");
    for (i, steps) in plan.order.iter().enumerate() {
        say(&format!("  {:>2}. {}", i + 1, steps.join(", ")));
    }
    say("\nwhat people notice");
    for line in &plan.blast_radius {
        say(&format!("  - {line}"));
    }
    say(&format!(
        "\nbackup     at most {} MiB, {} MiB free",
        plan.backup_bytes >> 20,
        plan.free_bytes >> 20
    ));
    for line in &plan.accepted {
        say(&format!("{warn}accepted{off}   {line}"));
    }
    for line in &plan.validated {
        say(&format!("validated  {line}"));
    }
    for line in &plan.notes {
        say(&format!("note       {line}"));
    }
}

/// How to speak.
pub(crate) fn mode(global: &Global) -> Mode {
    Mode::detect(global.json)
}
