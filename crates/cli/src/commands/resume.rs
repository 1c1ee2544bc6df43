//! `keyroll resume`.

use clap::Args;
use keyroll_rotate::{Outcome, RotateError};

use crate::args::Global;
use crate::commands::{fail, finish, mode, open};
use crate::exit;
use crate::output::{self, Speaker, say};
use crate::stopping::control;

/// Arguments of `keyroll resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {}

/// Runs it.
pub(crate) async fn run(_: &ResumeArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll.resume(&speaker, &control()).await;
    drop(speaker);
    tell(
        result,
        global,
        "nothing to resume: no rotation is unfinished",
    )
}

/// How it ended, or that there was `nothing` to do.
pub(crate) fn tell(
    result: Result<Option<Outcome>, RotateError>,
    global: &Global,
    nothing: &str,
) -> u8 {
    match result {
        Ok(Some(outcome)) => finish(&outcome, global),
        Ok(None) => {
            if global.json {
                output::json(&serde_json::json!({"unfinished": null}));
            } else {
                say(nothing);
            }
            exit::DONE
        }
        Err(error) => fail(&error, global),
    }
}
