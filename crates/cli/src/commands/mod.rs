//! The commands, one file each: a struct of arguments and one function.

pub(crate) mod audit;
pub(crate) mod plan;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod rollback;
pub(crate) mod rotate;
pub(crate) mod status;
pub(crate) mod verify;

use keyroll_rotate::{Control, Ending, Keyroll, Outcome, PlanReport, Profile, RotateError};

use crate::args::{Cli, Command, Global};
use crate::output::{self, Mode, complain, say, shortened, style};
use crate::{exit, operator};

/// Runs a command to its exit code.
pub(crate) async fn run(cli: &Cli) -> u8 {
    match &cli.command {
        Command::Rotate(args) => rotate::run(args, &cli.global).await,
        Command::Resume(args) => resume::run(args, &cli.global).await,
        Command::Rollback(args) => rollback::run(args, &cli.global).await,
        Command::Plan(args) => plan::run(args, &cli.global).await,
        Command::Status(args) => status::run(args, &cli.global),
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

/// A control that the first Ctrl-C, SIGTERM or SIGHUP asks to stop: the steps that run are finished, then it goes back.
pub(crate) fn control() -> Control {
    control_saying(
        "stopping: what runs is finished first, then the old set is put back; do not kill keyroll",
    )
}

/// The same, for an operation that stops in its own way.
pub(crate) fn control_saying(text: &'static str) -> Control {
    let control = Control {
        hook: hook(),
        ..Control::default()
    };
    let stop = control.stop.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let Ok([mut interrupt, mut terminate, mut hangup]) = <[_; 3]>::try_from(
            kinds
                .into_iter()
                .filter_map(|k| signal(k).ok())
                .collect::<Vec<_>>(),
        ) else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if !stop.requested() {
                complain(text);
            }
            stop.request();
        }
    });
    control
}

#[cfg(feature = "fault-injection")]
fn hook() -> Option<std::sync::Arc<dyn Fn(keyroll_rotate::Moment) -> bool + Send + Sync>> {
    crate::fault::hook()
}

#[cfg(not(feature = "fault-injection"))]
fn hook() -> Option<std::sync::Arc<dyn Fn(keyroll_rotate::Moment) -> bool + Send + Sync>> {
    None
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
        Ending::Completed => say(&format!(
            "{good}Completed{off} in {:.1} s: the new set is in force, the old one is dead",
            outcome.seconds
        )),
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
        Ending::Stuck | Ending::Abandoned => {
            say(&format!(
                "{bad}{}{off}: neither set could be proven; see `keyroll status`, mend what it names, then `keyroll resume`",
                outcome.ending
            ));
        }
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
    for line in &plan.notes {
        say(&format!("note       {line}"));
    }
}

/// Whether an operation may go on: asks once on a terminal; without one `--yes` is needed.
pub(crate) fn approval(
    yes: bool,
    global: &Global,
) -> Result<impl Fn(&PlanReport) -> bool + Sync + use<>, u8> {
    use std::io::IsTerminal as _;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !yes && (!terminal || global.json) {
        complain(
            "there is no terminal to ask on; add --yes, or look at it first with `keyroll plan`",
        );
        return Err(exit::USAGE);
    }
    Ok(move |plan: &PlanReport| {
        if yes {
            return true;
        }
        show_plan(plan);
        ask("\nRotate now? [y/N] ")
    })
}

/// Asks; anything but yes is no.
pub(crate) fn ask(question: &str) -> bool {
    matches!(read_answer(question).as_str(), "y" | "Y" | "yes")
}

/// Asks, and gives what was typed.
pub(crate) fn read_answer(question: &str) -> String {
    use std::io::Write as _;
    let mut out = anstream::stdout();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    answer.trim().to_owned()
}

/// How to speak.
pub(crate) fn mode(global: &Global) -> Mode {
    Mode::detect(global.json)
}
