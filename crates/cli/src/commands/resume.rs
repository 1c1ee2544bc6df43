//! `keyroll resume`.

use clap::Args;

use crate::args::Global;
use crate::commands::{control, fail, finish, mode, open};
use crate::exit;
use crate::output::{self, Speaker, say};

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
    match result {
        Ok(Some(outcome)) => finish(&outcome, global),
        Ok(None) => {
            if global.json {
                output::json(&serde_json::json!({"unfinished": null}));
            } else {
                say("nothing to resume: no rotation is unfinished");
            }
            exit::DONE
        }
        Err(error) => fail(&error, global),
    }
}
