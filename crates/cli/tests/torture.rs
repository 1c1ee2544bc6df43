//! keyroll is killed over and over on the same stacks, and looked at each time: `cargo xtask torture --kills N`.
//!
//! Half of the kills are right before or right after a commit of its journal, each commit in turn; the other half at random instants.
//! Every fifth recovery is killed too, and begun again. After each: one complete set in force, in file, database, containers and admin
//! login; the other one dead; the trail verifies. Built with the feature `fault-injection`.

#[path = "containers/recovery/mod.rs"]
mod recovery;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use keyroll_simulation::Random;
use keyroll_testkit::{StackOptions, containers_wanted};
use recovery::{Bench, DONE, ROLLED_BACK, ROTATE};

const KILLED: Option<i32> = Some(9);
/// A rotation takes some four seconds; a kill after its end only rotates once more.
const LONGEST: u64 = 4500;
/// More commits than a rotation has: whoever comes here begins again with the first.
const COMMITS: u64 = 50;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    kills: u64,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    stacks: usize,
    #[arg(long)]
    record: Option<PathBuf>,
}

/// Called as `torture …`, its own options; `None` for a plain `cargo test`, which kills nothing.
fn options() -> Option<Options> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let own = given.first().is_some_and(|first| first == "torture");
    own.then(|| Options::parse_from(&given))
}

/// What was seen, over all kills.
#[derive(Debug, Default)]
struct Tally {
    at_commits: u64,
    at_instants: u64,
    of_recoveries: u64,
    /// Killed before anything was begun, or after everything was done.
    beside: u64,
    went_on: u64,
    went_back: u64,
    recoveries: Vec<Duration>,
    /// Kills after which everything was looked at, and was of one set.
    whole: u64,
}

async fn one(bench: &Bench, seed: u64, kill: u64, tally: &Mutex<Tally>) {
    let before = bench.held();
    let mut random = Random::new(seed ^ (kill << 32));
    let instant = random.below(LONGEST);
    let at_commit = kill.is_multiple_of(2);
    let at = if at_commit {
        let side = if kill.is_multiple_of(4) {
            "before"
        } else {
            "after"
        };
        format!("{side}:{}", 1 + (kill / 4) % COMMITS)
    } else {
        format!("{instant} ms")
    };
    let what = format!("kill {kill}, {at}");
    let killed = if at_commit {
        bench.run_killed(&ROTATE, &at).await
    } else {
        let running = bench.spawn(&ROTATE);
        tokio::time::sleep(Duration::from_millis(instant)).await;
        running.kill_hard().await.unwrap()
    };
    assert!(
        killed.signal == KILLED || killed.code == Some(DONE),
        "{what}: {killed:?}"
    );
    let mut again = 0;
    if kill.is_multiple_of(5) {
        let commit = 1 + random.below(12);
        let resumed = bench
            .run_killed(&["resume"], &format!("after:{commit}"))
            .await;
        again = u64::from(resumed.signal == KILLED);
    }
    let began = Instant::now();
    let recovered = bench.resume(&before, &what).await;
    let took = recovered.took;
    let mut tally = tally.lock().unwrap();
    if at_commit {
        tally.at_commits += 1;
    } else {
        tally.at_instants += 1;
    }
    tally.of_recoveries += again;
    tally.whole += 1;
    match (&recovered.unfinished, recovered.resumed.code) {
        (None, _) => tally.beside += 1,
        // A crash alone is no reason to go back; who reads this finds out what else was.
        (_, Some(ROLLED_BACK)) => {
            tally.went_back += 1;
            println!("{what}: it went back:\n{}", recovered.resumed.stdout);
        }
        _ => tally.went_on += 1,
    }
    if recovered.unfinished.is_some() {
        tally.recoveries.push(took);
    }
    println!(
        "{what}: {:?}, whole again, looked at after {:.1?}",
        recovered.resumed.code,
        began.elapsed()
    );
}

/// What this many of a hundred took at most.
fn seconds(sorted: &[Duration], of_100: usize) -> f64 {
    let at = sorted.len().saturating_sub(1) * of_100 / 100;
    sorted.get(at).map_or(0.0, Duration::as_secs_f64)
}

impl Tally {
    /// A row of the table in `docs/torture.md`.
    fn row(&mut self, seed: u64) -> String {
        self.recoveries.sort_unstable();
        let recovery = |of_100| seconds(&self.recoveries, of_100);
        format!(
            "| {} | {} | {seed} | {} | {} | {} | {} | {} | {} | {:.1} / {:.1} / {:.1} s | {} |",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            env!("CARGO_PKG_VERSION"),
            self.at_commits,
            self.at_instants,
            self.of_recoveries,
            self.beside,
            self.went_on,
            self.went_back,
            recovery(50),
            recovery(95),
            recovery(100),
            self.whole,
        )
    }
}

async fn torture(options: &Options) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let next = Arc::new(AtomicU64::new(0));
    let mut stacks = vec![];
    for _ in 0..options
        .stacks
        .min(usize::try_from(options.kills).unwrap_or(1))
    {
        let (tally, next) = (tally.clone(), next.clone());
        let (kills, seed) = (options.kills, options.seed);
        stacks.push(tokio::spawn(async move {
            // A tag of its own: images that are built elsewhere meanwhile are no drift here.
            let bench = Bench::start(StackOptions::new().own_panel_image()).await;
            loop {
                let kill = next.fetch_add(1, Ordering::Relaxed);
                if kill >= kills {
                    return;
                }
                one(&bench, seed, kill, &tally).await;
            }
        }));
    }
    for stack in stacks {
        // What was asserted and is not so has been printed by the panic; nothing is counted then.
        stack.await.unwrap();
    }
    std::mem::take(&mut *tally.lock().unwrap())
}

fn main() -> ExitCode {
    let Some(options) = options().filter(|_| containers_wanted()) else {
        println!("torture: nothing was killed; `cargo xtask torture --kills N`");
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut tally = runtime.block_on(torture(&options));
    let row = tally.row(options.seed);
    println!("{row}");
    if let Some(path) = &options.record {
        let appended = OpenOptions::new().append(true).open(path);
        let written = appended.and_then(|mut file| writeln!(file, "{row}"));
        if let Err(why) = written {
            eprintln!("torture: {}: {why}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
