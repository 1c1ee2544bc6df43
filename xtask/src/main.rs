//! What a developer would otherwise type by hand: `cargo xtask <command>`, from anywhere in the repository.
//!
//! The commands build on one another: `setup` brings a Docker Engine and `docker compose` to a bare Debian 12, `images`
//! builds what the sandbox runs (no image registry is needed), `up` and `down` keep one stack for work by hand, and `test`
//! does all of it and runs the tests. Each says what it installs and why, and does nothing when nothing is missing.

mod apt;
mod bench;
mod compose;
mod demo;
mod engine;
mod images;
mod setup;
mod shell;
mod simulate;
mod stack;
mod test;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A failed command: what failed, and what to do about it.
type Result<T> = std::result::Result<T, String>;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "What a developer would otherwise type by hand"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a Docker Engine and `docker compose` to this machine
    Setup,
    /// Build the images of the sandbox
    Images,
    /// Start one sandbox stack and leave it running
    Up,
    /// Take the stack of `up` down, and whatever killed tests left behind
    Down,
    /// Set up, build, and run all tests
    Test(test::Options),
    /// Run rotations in a simulated machine that loses power, and look whether a law was broken
    Simulate(simulate::Options),
    /// Kill keyroll on real stacks, and look each time whether one whole set is in force
    Torture(torture::Options),
    /// Rotate a sandbox stack for real and show the evidence
    Demo,
    /// Measure, and hold the figures against the goals
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Images => setup::run().and_then(|()| images::run()),
        Command::Up => stack::up(),
        Command::Down => stack::down(),
        Command::Test(options) => test::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Demo => demo::run(),
        Command::Bench(bench) => bench::run(&bench),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
