//! `keyroll recover`: what a machine does by itself when it comes up.

use std::time::Duration;

use clap::Args;

use crate::args::Global;
use crate::commands::{mode, open, resume};
use crate::output::Speaker;
use crate::stopping::control;
use crate::telling;

/// Arguments of `keyroll recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// How long to wait for the container engine, in seconds
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    wait: u64,
}

/// Runs it.
pub(crate) async fn run(args: &RecoverArgs, global: &Global) -> u8 {
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let patience = Duration::from_secs(args.wait);
    let result = keyroll.recover(&speaker, &control(), patience).await;
    drop(speaker);
    // Where there was nothing to do, nobody has to hear of it.
    match &result {
        Ok(None) => {}
        Ok(Some(outcome)) => telling::ended(&keyroll, Ok(outcome)).await,
        Err(error) => telling::ended(&keyroll, Err(error)).await,
    }
    let nothing = "nothing to recover: no rotation is unfinished";
    resume::tell(result, global, nothing)
}
