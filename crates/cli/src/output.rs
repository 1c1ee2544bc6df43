//! Speaking: to a person on a terminal, as plain lines into a pipe, or as one JSON document.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use keyroll_rotate::{Direction, Event, Progress, RotationId};

/// How to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To a person: steps as they run, colours unless `NO_COLOR` is set.
    Terminal,
    /// Plain lines with a time.
    Lines,
    /// Nothing on the way; one document at the end.
    Json,
}

impl Mode {
    /// What fits standard error, where progress goes.
    pub(crate) fn detect(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }
}

/// A style that anstream takes out again where colours are not wanted.
pub(crate) mod style {
    /// Good news.
    pub(crate) const GOOD: &str = "\x1b[32m";
    /// Bad news.
    pub(crate) const BAD: &str = "\x1b[31m";
    /// Worth a look.
    pub(crate) const WARN: &str = "\x1b[33m";
    /// Less important.
    pub(crate) const DIM: &str = "\x1b[2m";
    /// Important.
    pub(crate) const BOLD: &str = "\x1b[1m";
    /// Back to normal.
    pub(crate) const OFF: &str = "\x1b[0m";
}

/// Prints an operation's progress to standard error.
pub(crate) struct Speaker {
    mode: Mode,
    bars: MultiProgress,
    open: Mutex<Vec<Running>>,
}

struct Running {
    name: String,
    forward: bool,
    since: Instant,
    bar: ProgressBar,
}

impl Speaker {
    /// A speaker for one operation.
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            bars: MultiProgress::new(),
            open: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        match self.mode {
            Mode::Json => {}
            Mode::Lines => {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
                // In one piece: standard error is not buffered.
                let line = format!("{now} {text}\n");
                let _ = anstream::stderr().write_all(line.as_bytes());
            }
            Mode::Terminal => self.bars.suspend(|| {
                let _ = writeln!(anstream::stderr(), "{text}");
            }),
        }
    }

    fn start(&self, name: &str, forward: bool) {
        let label = if forward {
            name.to_owned()
        } else {
            format!("undo {name}")
        };
        let bar = if self.mode == Mode::Terminal {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("  {spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar.set_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            self.line(&format!("{label}: started"));
            ProgressBar::hidden()
        };
        let mut open = self.lock();
        open.push(Running {
            name: name.to_owned(),
            forward,
            since: Instant::now(),
            bar,
        });
    }

    fn end(&self, name: &str, good: bool, says: &str) {
        let mut open = self.lock();
        let Some(at) = open.iter().position(|r| r.name == name) else {
            return;
        };
        let running = open.remove(at);
        drop(open);
        running.bar.finish_and_clear();
        let label = if running.forward {
            name.to_owned()
        } else {
            format!("undo {name}")
        };
        let seconds = running.since.elapsed().as_secs_f64();
        match self.mode {
            Mode::Terminal => {
                let (colour, mark) = if good {
                    (style::GOOD, "✓")
                } else {
                    (style::BAD, "✗")
                };
                let (dim, off) = (style::DIM, style::OFF);
                self.line(&format!(
                    "  {colour}{mark}{off} {label:<24} {seconds:>6.1} s  {dim}{}{off}",
                    shortened(says, 110)
                ));
            }
            _ => self.line(&format!(
                "{label}: {} after {seconds:.1} s: {says}",
                if good { "done" } else { "failed" }
            )),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Speaker {
    /// What still spins would be drawn over what is said next.
    fn drop(&mut self) {
        for running in self.lock().drain(..) {
            running.bar.finish_and_clear();
        }
    }
}

/// At most `width` characters, on one line.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let text = text.replace('\n', " ");
    if text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

impl Progress for Speaker {
    fn looking(&self, at: &str) {
        if self.mode != Mode::Terminal {
            self.line(&format!("preflight: {at}"));
            return;
        }
        if self.lock().iter().all(|r| r.name != "preflight") {
            self.start("preflight", true);
        }
        if let Some(running) = self.lock().iter().find(|r| r.name == "preflight") {
            running.bar.set_message(format!("preflight: {at}"));
        }
    }

    fn looked(&self) {
        self.end(
            "preflight",
            true,
            "nothing that was found stands against it",
        );
    }

    fn doing(&self, what: &str) {
        self.line(what);
    }

    fn begun(&self, rotation: &RotationId) {
        // A resumed rotation looks for what a killed run left, and has no preflight.
        self.end("preflight", true, "nothing is left of the run before");
        self.line(&format!("rotation {rotation}"));
    }

    fn event(&self, event: &Event) {
        match event {
            Event::Intended {
                step,
                direction,
                attempt,
            } if (*attempt == 1 || self.lock().iter().all(|r| r.name != step.as_str())) => {
                self.start(step.as_str(), *direction == Direction::Forward);
            }
            Event::Confirmed { step, evidence } | Event::Undone { step, evidence } => {
                self.end(step.as_str(), true, &evidence.says);
            }
            Event::Failed { step, reason, .. } | Event::UndoFailed { step, reason } => {
                self.end(step.as_str(), false, reason);
            }
            Event::TurnedBack { reason } => {
                let (warn, off) = (style::WARN, style::OFF);
                self.line(&format!("{warn}going back to the old set{off}: {reason}"));
            }
            _ => {}
        }
    }

    fn bytes(&self, what: &str, done: u64, total: Option<u64>) {
        if let Some(running) = self.lock().iter().find(|r| r.name == what) {
            if let Some(total) = total.filter(|t| *t > 0)
                && running.bar.length() != Some(total)
            {
                let style =
                    ProgressStyle::with_template("  {spinner} {msg} {bar:30} {bytes} {elapsed}");
                running
                    .bar
                    .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                running.bar.set_length(total);
            }
            running.bar.set_position(done);
        }
    }
}

/// Writes to standard output; a closed pipe is no error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Writes a message about what went wrong to standard error.
pub(crate) fn complain(text: &str) {
    let (bad, off) = (style::BAD, style::OFF);
    let _ = writeln!(anstream::stderr(), "{bad}keyroll:{off} {text}");
}

/// Writes one JSON document to standard output.
pub(crate) fn json(value: &impl serde::Serialize) {
    say(&serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}")));
}
