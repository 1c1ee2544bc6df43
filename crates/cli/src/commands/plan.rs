//! `keyroll plan`.

use clap::Args;
use keyroll_rotate::{Request, Stop};

use crate::args::Global;
use crate::commands::rotate::How;
use crate::commands::{fail, mode, open, show_plan};
use crate::exit;
use crate::output::{self, Speaker};
use crate::values::ValueArgs;

/// Arguments of `keyroll plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Secrets and groups of the profile
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Instead: everything that the stack uses
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Also logs in to the application, as rotate does: one wrong login, and one right one that opens a session
    #[arg(long)]
    pub(crate) log_in: bool,
    /// How, and why.
    #[command(flatten)]
    pub(crate) how: How,
    /// Values that keyroll cannot make; planned without them where none are given.
    #[command(flatten)]
    pub(crate) values: ValueArgs,
}

/// Runs it.
pub(crate) async fn run(args: &PlanArgs, global: &Global) -> u8 {
    let stop = Stop::default();
    let request = |k| Ok((k, args.how.request_with(&args.names, &args.values, &stop)?));
    let (keyroll, request) = match open(global).and_then(request) {
        Ok(all) => all,
        Err(code) => return code,
    };
    let request = Request {
        no_login: !args.log_in,
        names: if args.all {
            keyroll.all_by_harm()
        } else {
            request.names
        },
        leave_out_unused: args.all,
        ..request
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll.plan(&request, &speaker).await;
    drop(speaker);
    match result {
        Ok(plan) if global.json => output::json(&plan),
        Ok(plan) => show_plan(&plan),
        Err(error) => return fail(&error, global),
    }
    exit::DONE
}
