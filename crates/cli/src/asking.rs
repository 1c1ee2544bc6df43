//! Questions to the person at the terminal.

use std::io::{IsTerminal as _, Write as _};

use keyroll_rotate::{PlanReport, Secret, Stop};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::args::Global;
use crate::commands::show_plan;
use crate::exit;
use crate::output::complain;

/// How often a wish to stop is looked for while somebody is asked.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What [`approval`] asks before a rotation.
pub(crate) const ROTATE_NOW: &str = "\nRotate now? [y/N] ";

/// Whether an operation may go on: asks once on a terminal; without one `--yes` is needed.
pub(crate) fn approval(
    yes: bool,
    question: &'static str,
    global: &Global,
    stop: Stop,
) -> Result<impl Fn(&PlanReport) -> bool + Sync + use<>, u8> {
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
        ask(question, &stop)
    })
}

/// Asks; anything but yes is no.
pub(crate) fn ask(question: &str, stop: &Stop) -> bool {
    matches!(read_answer(question, stop).as_str(), "y" | "Y" | "yes")
}

/// Asks for something that is not shown while it is typed. `None` where nothing was typed, or the terminal would have shown it.
pub(crate) fn ask_hidden(question: &str, stop: &Stop) -> Option<Secret> {
    let input = std::io::stdin();
    let shown = tcgetattr(&input).ok()?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &hidden).ok()?;
    let answer = Secret::new(read_answer(question, stop));
    let _ = tcsetattr(&input, OptionalActions::Flush, &shown);
    let _ = writeln!(anstream::stdout());
    Some(answer).filter(|answer| !answer.is_empty())
}

/// Asks, and gives what was typed. Whoever presses Ctrl-C instead has typed nothing.
pub(crate) fn read_answer(question: &str, stop: &Stop) -> String {
    let mut out = anstream::stdout();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    let input = std::io::stdin();
    loop {
        if stop.requested() {
            return String::new();
        }
        // A terminal has something to read when the line is whole.
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    let mut answer = String::new();
    let _ = input.read_line(&mut answer);
    answer.trim().to_owned()
}
