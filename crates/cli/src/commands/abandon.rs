//! `keyroll abandon`.

use std::io::IsTerminal as _;

use clap::Args;
use keyroll_rotate::{AbandonPlan, RotationId};

use crate::args::Global;
use crate::asking::read_answer;
use crate::commands::{fail, finish, mode, open, show};
use crate::exit;
use crate::output::{Speaker, complain, say, style};
use crate::stopping::control_saying;

/// Arguments of `keyroll abandon`.
#[derive(Debug, Args)]
pub(crate) struct AbandonArgs {
    /// The unfinished rotation, as `keyroll status` names it
    #[arg(value_name = "ROTATION")]
    pub(crate) rotation: String,
    /// Why, for the trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) because: String,
    /// Does not ask; only with --confirm-abandon
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    /// The second confirmation where there is no terminal, beside --yes: the rotation once more
    #[arg(long, value_name = "ROTATION")]
    pub(crate) confirm_abandon: Option<String>,
}

/// Runs it.
pub(crate) async fn run(args: &AbandonArgs, global: &Global) -> u8 {
    let terminal =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !global.json;
    let confirmed = args.confirm_abandon.as_deref() == Some(args.rotation.as_str());
    if args.confirm_abandon.is_some() && !confirmed {
        complain("--confirm-abandon names another rotation");
        return exit::USAGE;
    }
    let unasked = args.yes && confirmed;
    if !(terminal || unasked) {
        complain(&format!(
            "an abandoned rotation is never resumed, and there is no terminal to ask on: add --yes --confirm-abandon {}",
            args.rotation
        ));
        return exit::USAGE;
    }
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let control = control_saying("stopping: if it is not too late");
    let approve = |plan: &AbandonPlan| {
        if !global.json {
            tell(plan);
        }
        unasked
            || read_answer(
                "\nIt will never be resumed. Type the rotation to give it up: ",
                &control.stop,
            ) == args.rotation
    };
    let speaker = Speaker::new(mode(global));
    let id = RotationId::from_text(&args.rotation);
    let result = keyroll
        .abandon(&id, &args.because, &speaker, &approve, &control)
        .await;
    drop(speaker);
    match result {
        Ok(outcome) => finish(&outcome, global),
        Err(error) => fail(&error, global),
    }
}

fn tell(plan: &AbandonPlan) {
    let (bold, warn, off) = (style::BOLD, style::WARN, style::OFF);
    let unfinished = &plan.unfinished;
    say(&format!(
        "{bold}{}{off} ({}), begun {}",
        unfinished.rotation, unfinished.phase, unfinished.begun_at
    ));
    show::steps(&unfinished.steps);
    show::in_force(&unfinished.in_force);
    say(&format!("\n{bold}sealed{off}"));
    show::sealed(&plan.secrets);
    say(&format!(
        "  in {}/state.db, opened by {}; what is retired is forgotten {} days later, when another rotation begins",
        plan.state.display(),
        plan.identity.display(),
        plan.keep_days
    ));
    let backup = plan.backup.as_ref();
    say(&format!(
        "backup     {}",
        backup.map_or("none was made".into(), |b| b.display().to_string())
    ));
    say("nothing of the stack is changed");
    for line in &plan.notes {
        say(&format!("{warn}note{off}       {line}"));
    }
}
