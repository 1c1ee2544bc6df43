//! `keyroll rollback`.

use clap::Args;
use keyroll_rotate::RotationId;

use crate::args::Global;
use crate::commands::rotate::How;
use crate::commands::{approval, control, fail, finish, mode, open};
use crate::output::Speaker;

/// Arguments of `keyroll rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The completed rotation, as `keyroll audit list` names it
    #[arg(value_name = "ROTATION")]
    pub(crate) rotation: String,
    /// How, and why.
    #[command(flatten)]
    pub(crate) how: How,
}

/// Runs it.
pub(crate) async fn run(args: &RollbackArgs, global: &Global) -> u8 {
    let prepared = open(global).and_then(|keyroll| {
        Ok((
            keyroll,
            args.how.request(&[])?,
            approval(args.how.yes, global)?,
        ))
    });
    let (keyroll, request, approve) = match prepared {
        Ok(all) => all,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let rotation = RotationId::from_text(&args.rotation);
    let result = keyroll
        .rollback(&rotation, &request, &speaker, &approve, &control())
        .await;
    drop(speaker);
    match result {
        Ok(outcome) => finish(&outcome, global),
        Err(error) => fail(&error, global),
    }
}
