//! `cargo xtask test`: everything, against real containers.

use clap::Args;
use keyroll_testkit::sweep;

use crate::Result;
use crate::apt::{self, Wanted};
use crate::shell::{self, cargo, chain, found};
use crate::{images, setup};

/// More stacks at once than processors: a stack mostly waits for its health checks.
const THREADS: &str = "3";

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Also the tests that take long
    #[arg(long)]
    full: bool,
    /// Without the tests that need containers
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Passed on to `cargo test`, such as `-p keyroll-envfile` or the name of a test
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Sets up, builds and tests.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut arguments = vec!["test", "--locked"];
    let names_a_package = options
        .rest
        .iter()
        .any(|a| a.starts_with("-p") || a.starts_with("--package"));
    if !names_a_package {
        arguments.push("--workspace");
    }
    arguments.extend(options.rest.iter().map(String::as_str));
    let mut tests = vec![cargo(&arguments)];
    // They need a program that kills itself, which is built for nothing else.
    if !options.quick && !names_a_package && options.rest.iter().all(|a| !a.starts_with('-')) {
        let mut kills = vec!["test", "--locked", "-p", "keyroll"];
        kills.extend(["--features", "fault-injection", "--test", "kills"]);
        kills.extend(options.rest.iter().map(String::as_str));
        tests.push(cargo(&kills));
    }
    if !options.quick {
        setup::run()?;
        tools()?;
        images::run()?;
        for project in sweep().map_err(|e| chain(&e))? {
            println!("test: removed {project}, which a killed test left behind");
        }
    }
    for test in &mut tests {
        if !options.quick {
            test.env("KEYROLL_CONTAINER_TESTS", "1");
            if std::env::var_os("RUST_TEST_THREADS").is_none() {
                test.env("RUST_TEST_THREADS", THREADS);
            }
        }
        if options.full {
            test.env("KEYROLL_FULL_TESTS", "1");
        }
        shell::run(test)?;
    }
    Ok(())
}

/// What some tests run besides containers.
fn tools() -> Result<()> {
    let mut missing = Vec::new();
    if found("age").is_none() {
        missing.push(Wanted {
            package: "age",
            why: "tests open a backup with the stock tool",
        });
    }
    if !std::path::Path::new("/usr/lib/postgresql").exists() {
        missing.push(Wanted {
            package: "postgresql-15",
            why: "tests start servers of their own from its programs; no cluster is made",
        });
        return without_a_cluster(|| apt::install(&missing));
    }
    apt::install(&missing)
}

/// Debian's package makes and starts a cluster when it is installed, unless this says no.
fn without_a_cluster(install: impl FnOnce() -> Result<()>) -> Result<()> {
    let directory = std::path::Path::new("/etc/postgresql-common/createcluster.d");
    let file = directory.join("keyroll-sandbox.conf");
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    apt::need_root("install packages")?;
    std::fs::create_dir_all(directory).map_err(failed)?;
    std::fs::write(&file, "create_main_cluster = false\n").map_err(failed)?;
    let done = install();
    std::fs::remove_file(&file).map_err(failed)?;
    done
}
