//! `cargo xtask torture`: keyroll is killed on real stacks, again and again.

use std::process::Command;

use clap::Args;

use crate::Result;
use crate::shell::{self, cargo};
use crate::{images, setup};

const SEED: u64 = 1;
const STACKS: usize = 3;
/// In a run of all tests.
const KILLS: u64 = 25;

/// What a run of all tests does.
pub(crate) fn few() -> Command {
    command(&Options {
        kills: KILLS,
        seed: SEED,
        stacks: STACKS,
        record: false,
    })
}

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Kills, each followed by a recovery and a look at everything
    #[arg(long, default_value_t = KILLS)]
    kills: u64,
    /// Decides the random instants
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Stacks that are tortured side by side
    #[arg(long, default_value_t = STACKS)]
    stacks: usize,
    /// Adds what was seen to the table in docs/torture.md
    #[arg(long)]
    record: bool,
}

/// Sets up, builds and kills.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    images::run()?;
    shell::run(&mut command(options))
}

/// Built with the rest of the workspace, so that its dependencies are those that are built already.
fn command(options: &Options) -> Command {
    let mut command = cargo(&["test", "--locked", "--workspace", "--test", "torture"]);
    command.args(["--features", "keyroll/fault-injection", "--", "torture"]);
    command.args(["--kills", &options.kills.to_string()]);
    command.args(["--seed", &options.seed.to_string()]);
    command.args(["--stacks", &options.stacks.to_string()]);
    if options.record {
        let table = shell::root().join("docs/torture.md");
        command.arg("--record").arg(table);
    }
    command.env("KEYROLL_CONTAINER_TESTS", "1");
    command
}
