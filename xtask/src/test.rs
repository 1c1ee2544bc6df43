//! `cargo xtask test`: everything, against real containers.

use clap::Args;
use keyroll_testkit::sweep;

use crate::Result;
use crate::apt::{self, Wanted};
use crate::shell::{self, cargo, chain, found};
use crate::{compose, images, setup, simulate, torture};

/// More stacks at once than processors: a stack mostly waits. With seven, two processors are busy all the time.
const THREADS: &str = "7";

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
    // All that fails, not the first file of tests alone.
    let mut arguments = vec!["test", "--locked", "--no-fail-fast"];
    let names_a_package = options
        .rest
        .iter()
        .any(|a| a.starts_with("-p") || a.starts_with("--package"));
    if !names_a_package {
        arguments.push("--workspace");
    }
    arguments.extend(options.rest.iter().map(String::as_str));
    let mut tests = vec![cargo(&arguments)];
    if !options.quick && options.rest.is_empty() {
        tests.push(simulate::many());
    }
    // They need a program that kills itself, which is built for nothing else.
    if !options.quick && !names_a_package && options.rest.iter().all(|a| !a.starts_with('-')) {
        // Of the whole workspace, so that its dependencies are those that are built already.
        let mut kills = vec!["test", "--locked", "--workspace", "--test", "kills"];
        kills.extend(["--features", "keyroll/fault-injection"]);
        kills.extend(options.rest.iter().map(String::as_str));
        tests.push(cargo(&kills));
        if options.rest.is_empty() {
            tests.push(torture::few());
        }
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
    if found("ip").is_none() {
        missing.push(Wanted {
            package: "iproute2",
            why: "one test runs a container engine of its own, in a network of its own",
        });
    }
    if shell::output(&mut shell::command(
        "/usr/bin/python3",
        &["-c", "import aiosmtpd"],
    ))
    .is_err()
    {
        missing.push(Wanted {
            package: "python3-aiosmtpd",
            why: "a test sends mail to a real server",
        });
    }
    if compose::version_1().is_none() {
        missing.push(Wanted {
            package: "docker-compose",
            why: "tests rotate a stack of compose 1; `docker compose` stays what it is",
        });
    }
    if std::path::Path::new("/usr/lib/postgresql").exists() {
        apt::install(&missing)?;
    } else {
        missing.push(Wanted {
            package: "postgresql-15",
            why: "tests start servers of their own from its programs; no cluster is made",
        });
        without_a_cluster(|| apt::install(&missing))?;
    }
    match compose::version_1() {
        Some(_) => Ok(()),
        None => Err(
            "`docker-compose version --short` does not say 1.…: another docker-compose is first on the search path, \
             and the tests of compose 1 need Debian 12's; remove or rename it"
                .into(),
        ),
    }
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
