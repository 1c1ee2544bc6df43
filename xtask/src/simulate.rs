//! `cargo xtask simulate`: the engine and the journal through faults that no container test can bring about.

use std::process::Command;

use clap::Args;

use crate::Result;
use crate::shell::{self, cargo};

/// In a run of all tests.
const RUNS: u64 = 100_000;

/// What a run of all tests does.
pub(crate) fn many() -> Command {
    command(&Options {
        runs: RUNS,
        seed: 0,
        plant: None,
    })
}

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Rotations, each with the faults of its own seed
    #[arg(long, default_value_t = RUNS)]
    runs: u64,
    /// The first seed; one alone is replayed by `--runs 1`
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plants a defect, which must be found: no-sync, trusting-observe, unfenced-append, outcome-first
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    shell::run(&mut command(options))
}

/// Builds it with the rest of the workspace, so that its dependencies are those that are built already.
fn command(options: &Options) -> Command {
    let mut command = cargo(&["test", "--locked", "--workspace", "--test", "simulate"]);
    command.args(["--", "simulate", "--runs", &options.runs.to_string()]);
    command.args(["--seed", &options.seed.to_string()]);
    if let Some(plant) = &options.plant {
        command.args(["--plant", plant]);
    }
    command
}
