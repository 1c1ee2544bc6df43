//! `keyroll audit`.

use clap::{Args, Subcommand};
use keyroll_rotate::{Head, Record, show_record};

use crate::args::Global;
use crate::commands::{fail, open};
use crate::exit;
use crate::output::{self, complain, say};

/// Arguments of `keyroll audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// What to do with the trail.
    #[command(subcommand)]
    pub(crate) what: What,
}

/// What to do with the trail.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Lists the records; with --json each line exactly as it is stored
    List,
    /// Shows one record
    Show {
        /// Its number, or a rotation's name
        #[arg(value_name = "NUMBER|ROTATION")]
        which: String,
    },
    /// Checks that nothing was changed, removed or cut off
    Verify {
        /// A head from a summary or the system journal, which the trail must still contain
        #[arg(long, value_name = "HEAD")]
        head: Option<Head>,
    },
}

/// Runs it.
pub(crate) fn run(args: &AuditArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    if let What::Verify { head } = &args.what {
        return match keyroll.verify_trail(head.as_ref()) {
            Ok(Ok(head)) if global.json => {
                output::json(&serde_json::json!({"sound": true, "head": head.to_string()}));
                exit::DONE
            }
            Ok(Ok(head)) => {
                say(&format!("the trail is sound; head {head}"));
                exit::DONE
            }
            Ok(Err(broken)) => {
                if global.json {
                    output::json(&serde_json::json!({"sound": false, "broken": broken}));
                } else {
                    complain(&broken);
                }
                exit::FAILED
            }
            Err(error) => fail(&error, global),
        };
    }
    let lines = match keyroll.trail() {
        Ok(lines) => lines,
        Err(error) => return fail(&error, global),
    };
    match &args.what {
        What::Show { which } => one(&lines, which, global),
        _ => list(&lines, global),
    }
}

fn list(lines: &[String], global: &Global) -> u8 {
    for line in lines {
        match Record::parse(line) {
            _ if global.json => say(line),
            Ok(record) => say(&format!(
                "{:>5}  {}  {}",
                record.sequence(),
                record.at().strftime("%Y-%m-%d %H:%M:%S"),
                show_record(&record).headline
            )),
            Err(broken) => say(&format!("    ?  {broken}")),
        }
    }
    exit::DONE
}

fn one(lines: &[String], which: &str, global: &Global) -> u8 {
    let mut records = lines.iter().filter_map(|line| Record::parse(line).ok());
    // A rotation may have several records: the last one tells how it ended.
    let found = records.rfind(|r| {
        r.sequence().to_string() == which
            || serde_json::to_value(r.body()).is_ok_and(|b| b["rotation"] == which)
    });
    let Some(record) = found else {
        complain(&format!(
            "no record {which} in the trail; `keyroll audit list` shows those that exist"
        ));
        return exit::FAILED;
    };
    if global.json {
        say(record.line());
        return exit::DONE;
    }
    let shown = show_record(&record);
    say(&shown.headline);
    for (name, value) in &shown.facts {
        say(&format!("  {name:<14} {value}"));
    }
    for step in &shown.steps {
        say(&format!(
            "  {:<20} {:<10} {}",
            step.name, step.outcome, step.evidence
        ));
    }
    exit::DONE
}
