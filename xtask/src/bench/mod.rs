//! `cargo xtask bench rotation`: keyroll against the runbook that it replaces, on the same stack, in turns.
//!
//! The method and its reasons are in `docs/benchmarks.md`.

mod own;
mod prober;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use keyroll_testkit::{Keyroll, Stack, StackOptions};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::apt::{self, Wanted};
use crate::shell::{self, cargo, chain, found};
use crate::{Result, images, setup, stack};

pub(crate) use prober::Prober;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// A rotation against the runbook by hand, and its outage against a bare recreation
    Rotation(Options),
}

/// How to measure it.
#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; the figures are medians over them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Prints one JSON object a figure to standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Measures this program instead of a release build of the working tree
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Keeps the traces of keyroll's own time in this directory
    #[arg(long, value_name = "DIR")]
    keep_traces: Option<PathBuf>,
}

/// Measures.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let Bench::Rotation(options) = bench;
    if options.json {
        // What sets up speaks on standard output, which belongs to the figures; it runs as a child with its output turned.
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut images = Command::new(own);
        images.arg("images").stdout(std::io::stderr());
        shell::run(&mut images)?;
    } else {
        setup::run()?;
        images::run()?;
    }
    tools()?;
    if options.binary.is_none() {
        let build = ["build", "--release", "--quiet", "--package", "keyroll"];
        shell::run(&mut cargo(&build))?;
    }
    stack::runtime()?.block_on(rotation(options))
}

/// What the measurement runs besides docker.
fn tools() -> Result<()> {
    let all = [
        ("strace", "sees when keyroll waits for nobody"),
        ("curl", "the runbook asks the panel with it"),
        ("openssl", "the runbook makes its secrets with it"),
    ];
    let missing: Vec<Wanted> = all
        .into_iter()
        .filter(|(package, _)| found(package).is_none())
        .map(|(package, why)| Wanted { package, why })
        .collect();
    apt::install(&missing)
}

/// One measured command.
#[derive(Clone, Copy)]
struct Measured {
    wall: Duration,
    outage: Duration,
    /// Of the process itself, without its children.
    cpu: Duration,
}

async fn rotation(options: &Options) -> Result<()> {
    // A tag of its own: images that are built elsewhere meanwhile are no drift here.
    let stack = Stack::start(StackOptions::new().health_every_second().own_panel_image())
        .await
        .map_err(|e| chain(&e))?;
    let binary = match &options.binary {
        Some(file) => file
            .canonicalize()
            .map_err(|e| format!("{}: {e}", file.display()))?,
        None => shell::released("keyroll"),
    };
    let field = Field {
        keyroll: Keyroll::new(binary).map_err(|e| chain(&e))?,
        stack: Arc::new(stack),
        options,
    };
    let mut seen = Seen::default();
    for round in 0..options.rounds {
        // Who goes first changes from round to round.
        if round % 2 == 0 {
            seen.runbook.push(field.measure(field.runbook()).await?);
            seen.keyroll.push(field.measure(field.rotate()).await?);
        } else {
            seen.keyroll.push(field.measure(field.rotate()).await?);
            seen.runbook.push(field.measure(field.runbook()).await?);
        }
        seen.bare.push(field.measure(field.bare()).await?);
        seen.alone.push(field.trace(round).await?);
        seen.tell(round);
    }
    for figure in seen.figures() {
        println!("{}", figure.show(options));
    }
    Ok(())
}

/// What all rounds run on.
struct Field<'a> {
    keyroll: Keyroll,
    stack: Arc<Stack>,
    options: &'a Options,
}

impl Field<'_> {
    fn runbook(&self) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(shell::root().join("benches/rotation/runbook.sh"))
            .arg(self.stack.root())
            .arg(self.stack.project())
            .arg(self.stack.base_url())
            .arg(self.keyroll.home().join("runbook"));
        command
    }

    fn rotate(&self) -> Command {
        let mut command = self.keyroll.command(["rotate", "production", "--yes"]);
        command.args(self.keyroll.stack_arguments(&self.stack));
        command
    }

    fn bare(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("compose")
            .args(self.stack.compose_arguments())
            .args(["up", "-d", "--force-recreate", "--no-deps", "api", "worker"]);
        command
    }

    /// What the last command wrote to its standard error.
    fn errors(&self) -> PathBuf {
        self.keyroll.home().join("stderr")
    }

    /// Runs it under the prober, and brings the stack to rest afterwards, unmeasured.
    async fn measure(&self, command: Command) -> Result<Measured> {
        let errors = self.errors();
        let prober = Prober::start(&self.stack).await?;
        let (wall, cpu) = tokio::task::spawn_blocking(move || timed(command, &errors))
            .await
            .map_err(|e| e.to_string())??;
        // What the command did not wait for belongs to its outage too.
        self.settle_api().await?;
        let outage = prober.stop().await;
        self.settle().await?;
        Ok(Measured { wall, outage, cpu })
    }

    /// A rotation under `strace`: the time in which it waits for nobody.
    async fn trace(&self, round: u32) -> Result<Duration> {
        let file = match &self.options.keep_traces {
            Some(directory) => {
                std::fs::create_dir_all(directory).map_err(|e| e.to_string())?;
                directory.join(format!("round-{round}.strace"))
            }
            None => self.keyroll.home().join("strace"),
        };
        let errors = self.errors();
        let traced = self.rotate();
        let mut command = Command::new("strace");
        command
            .args(own::STRACE)
            .arg("-o")
            .arg(&file)
            .arg(traced.get_program())
            .args(traced.get_args())
            .env_clear()
            .envs(traced.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .current_dir(self.keyroll.home());
        tokio::task::spawn_blocking(move || timed(command, &errors))
            .await
            .map_err(|e| e.to_string())??;
        self.settle().await?;
        let trace = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let alone = own::alone(&String::from_utf8_lossy(&trace));
        if self.options.keep_traces.is_some() {
            for (at, length) in alone.longest.iter().take(15) {
                eprintln!(
                    "  alone for {:5.1} ms at {:6.3} s",
                    ms(*length),
                    at.as_secs_f64()
                );
            }
        }
        Ok(alone.total)
    }

    async fn settle_api(&self) -> Result<()> {
        for service in ["api", "worker"] {
            self.stack
                .healthy(service, Duration::from_secs(30))
                .await
                .map_err(|e| chain(&e))?;
        }
        Ok(())
    }

    /// What an operator has after a quiet while: everything as its files say, and healthy.
    async fn settle(&self) -> Result<()> {
        self.stack.up().await.map_err(|e| chain(&e))
    }
}

/// Runs it to its end, quietly: wall time, and the CPU time of the process itself.
fn timed(mut command: Command, errors: &Path) -> Result<(Duration, Duration)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |e: std::io::Error| format!("{name}: {e}");
    let said = File::create(errors).map_err(failed)?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .map_err(failed)?;
    // Its end is awaited without taking it away, so that the kernel's account of it can still be read.
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or("a process without a number")?;
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .map_err(|e| format!("{name}: {e}"))?;
    let wall = began.elapsed();
    let cpu = cpu_of(child.id())?;
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok((wall, cpu));
    }
    let said = std::fs::read_to_string(errors).unwrap_or_default();
    Err(format!("{name} ended with {status}:\n{said}"))
}

/// User and system time of one process, without its children. The kernel cuts each off to whole ticks of 10 ms; the half
/// tick that is lost on the average is put back.
fn cpu_of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |at: usize| -> Result<u64> {
        let field = fields.get(at).and_then(|f| f.parse().ok());
        field.ok_or_else(|| format!("{path} has no CPU time"))
    };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10 + 10))
}

/// Everything that was measured.
#[derive(Default)]
struct Seen {
    runbook: Vec<Measured>,
    keyroll: Vec<Measured>,
    bare: Vec<Measured>,
    alone: Vec<Duration>,
}

/// One figure as it is printed.
struct Figure {
    name: &'static str,
    value: f64,
    goal: Option<f64>,
    unit: &'static str,
    runs: usize,
}

impl Seen {
    /// One round, for whoever waits.
    fn tell(&self, round: u32) {
        if let (Some(runbook), Some(keyroll), Some(bare), Some(alone)) = (
            self.runbook.last(),
            self.keyroll.last(),
            self.bare.last(),
            self.alone.last(),
        ) {
            eprintln!(
                "round {}: wall {:.0} ms by runbook, {:.0} ms by keyroll (own: {:.0} CPU + {:.0} alone); outage {:.0}, {:.0}, bare {:.0} ms",
                round + 1,
                ms(runbook.wall),
                ms(keyroll.wall),
                ms(keyroll.cpu),
                ms(*alone),
                ms(runbook.outage),
                ms(keyroll.outage),
                ms(bare.outage),
            );
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let runs = self.keyroll.len();
        let of = |all: &[Measured], what: fn(&Measured) -> Duration| median(all.iter().map(what));
        let wall = (of(&self.runbook, |m| m.wall), of(&self.keyroll, |m| m.wall));
        let outage = (
            of(&self.keyroll, |m| m.outage),
            of(&self.bare, |m| m.outage),
        );
        let cpu = of(&self.keyroll, |m| m.cpu);
        let alone = median(self.alone.iter().copied());
        let own = self
            .keyroll
            .iter()
            .zip(&self.alone)
            .map(|(m, alone)| m.cpu + *alone);
        let figure = |name, value, goal, unit| Figure {
            name,
            value,
            goal,
            unit,
            runs,
        };
        vec![
            figure("own time", median(own), Some(100.0), "ms"),
            figure("own time: CPU", cpu, None, "ms"),
            figure("own time: alone", alone, None, "ms"),
            figure("wall, runbook", wall.0, None, "ms"),
            figure("wall, keyroll", wall.1, None, "ms"),
            figure(
                "wall, keyroll to runbook",
                wall.1 / wall.0,
                Some(0.8),
                "ratio",
            ),
            figure(
                "outage, runbook",
                of(&self.runbook, |m| m.outage),
                None,
                "ms",
            ),
            figure("outage, keyroll", outage.0, None, "ms"),
            figure("outage, bare recreation", outage.1, None, "ms"),
            figure(
                "outage, keyroll to bare recreation",
                outage.0 / outage.1,
                Some(1.05),
                "ratio",
            ),
        ]
    }
}

impl Figure {
    fn show(&self, options: &Options) -> String {
        let value = if self.unit == "ms" {
            format!("{:.0}", self.value)
        } else {
            format!("{:.3}", self.value)
        };
        if options.json {
            let goal = self
                .goal
                .map_or_else(|| "null".to_owned(), |g| g.to_string());
            return format!(
                r#"{{"figure": "{}", "value": {value}, "goal": {goal}, "unit": "{}", "runs": {}}}"#,
                self.name, self.unit, self.runs
            );
        }
        let verdict = match self.goal {
            Some(goal) if self.value <= goal => format!("goal {goal}: met"),
            Some(goal) => format!("goal {goal}: MISSED"),
            None => String::new(),
        };
        format!("{:<36} {value:>8} {:<6} {verdict}", self.name, self.unit)
    }
}

fn median(all: impl Iterator<Item = Duration>) -> f64 {
    let mut all: Vec<f64> = all.map(ms).collect();
    all.sort_by(f64::total_cmp);
    let at = all.len() / 2;
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[at],
        _ => f64::midpoint(all[at - 1], all[at]),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
