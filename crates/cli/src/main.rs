//! The `keyroll` command: the only place for terminals, colours, environment variables and exit codes.

mod args;
mod asking;
mod commands;
mod exit;
#[cfg(feature = "fault-injection")]
mod fault;
mod operator;
mod output;
mod stopping;
mod telling;
mod units;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // clap exits with 2 for wrong usage by itself.
    let cli = args::Cli::parse();
    // One thread: a rotation mostly waits for others, and waking another thread for each answer costs more than it saves.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("the runtime could not be started: {error}"));
            return exit::FAILED.into();
        }
    };
    let code = runtime.block_on(commands::run(&cli));
    // A blocking task that still reads from something slow must not hold up the end.
    runtime.shutdown_background();
    code.into()
}
