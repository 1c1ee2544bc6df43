//! `keyroll rollback`.

use clap::Args;
use keyroll_rotate::{Request, RotationId};

use crate::args::Global;
use crate::asking::{ROTATE_NOW, approval};
use crate::commands::restore::{self, RestoreArgs};
use crate::commands::rotate::How;
use crate::commands::{fail, finish, mode, open};
use crate::exit;
use crate::output::{Speaker, complain};
use crate::stopping::control;

/// Arguments of `keyroll rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The rotation, as `keyroll audit list` names it
    #[arg(value_name = "ROTATION")]
    pub(crate) rotation: String,
    /// How, and why.
    #[command(flatten)]
    pub(crate) how: How,
    /// Does not ask the providers whether the kept values are still alive; recorded
    #[arg(long)]
    pub(crate) skip_validation: bool,
    /// Instead: what is brought back from its backup.
    #[command(flatten)]
    pub(crate) restore: RestoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: &RollbackArgs, global: &Global) -> u8 {
    if args.restore.wanted() {
        if args.how.build
            || args.how.force_unhealthy
            || args.skip_validation
            || args.how.current_admin_password_file.is_some()
        {
            complain(
                "a restore takes none of --build, --force-unhealthy, --skip-validation and --current-admin-password-file",
            );
            return exit::USAGE;
        }
        return restore::run(&args.rotation, &args.restore, args.how.yes, global).await;
    }
    if args.restore.confirm_restore.is_some() {
        complain("--confirm-restore goes with --restore-files or --restore-database");
        return exit::USAGE;
    }
    let control = control();
    let prepared = open(global).and_then(|keyroll| {
        Ok((
            keyroll,
            Request {
                skip_validation: args.skip_validation,
                ..args.how.request(&[])?
            },
            approval(args.how.yes, ROTATE_NOW, global, control.stop.clone())?,
        ))
    });
    let (keyroll, request, approve) = match prepared {
        Ok(all) => all,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let rotation = RotationId::from_text(&args.rotation);
    let result = keyroll
        .rollback(&rotation, &request, &speaker, &approve, &control)
        .await;
    drop(speaker);
    match result {
        Ok(outcome) => finish(&outcome, global),
        Err(error) => fail(&error, global),
    }
}
