//! `keyroll finalize`.

use clap::Args;

use crate::args::Global;
use crate::asking::approval;
use crate::commands::{fail, finish, mode, open};
use crate::output::Speaker;
use crate::stopping::control;

/// Arguments of `keyroll finalize`.
#[derive(Debug, Args)]
pub(crate) struct FinalizeArgs {
    /// Secrets and groups whose windows end; all that are open where none is named
    #[arg(value_name = "SECRET")]
    pub(crate) names: Vec<String>,
    /// Does not ask
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

/// Runs it.
pub(crate) async fn run(args: &FinalizeArgs, global: &Global) -> u8 {
    let control = control();
    let question = "\nEnd the grace window now? [y/N] ";
    let prepared = open(global).and_then(|keyroll| {
        Ok((
            keyroll,
            approval(args.yes, question, global, control.stop.clone())?,
        ))
    });
    let (keyroll, approve) = match prepared {
        Ok(all) => all,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll
        .finalize(&args.names, &speaker, &approve, &control)
        .await;
    drop(speaker);
    match result {
        Ok(outcome) => finish(&outcome, global),
        Err(error) => fail(&error, global),
    }
}
