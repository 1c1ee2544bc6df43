//! `keyroll verify`.

use clap::Args;

use crate::args::Global;
use crate::commands::{fail, mode, open};
use crate::exit;
use crate::output::{self, Speaker, say, style};

/// Arguments of `keyroll verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {}

/// Runs it.
pub(crate) async fn run(_: &VerifyArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll.verify(&speaker).await;
    drop(speaker);
    let report = match result {
        Ok(report) => report,
        Err(error) => return fail(&error, global),
    };
    if global.json {
        output::json(&report);
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
