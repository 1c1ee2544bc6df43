//! Rotations of the built-in profile by the thousand, each through faults of its own: `cargo xtask simulate`.
//!
//! A program of its own, not functions under the test harness: it takes options, and says how many runs ended how. It fails when a law
//! was broken, and names the seed that shows it again; with `--plant NAME` it fails when the planted defect was *not* found.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use keyroll_rotate::Profile;
use keyroll_saga::Shape;
use keyroll_simulation::rotation::{Plant, Simulator, Summary};

/// Runs in a plain `cargo test`, which takes seconds.
const RUNS: u64 = 3000;
/// How many kinds of broken runs are shown; the rest is counted.
const SHOWN: usize = 5;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = RUNS)]
    runs: u64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, value_parser = plant)]
    plant: Option<Plant>,
}

fn plant(wanted: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|(name, _)| *name == wanted);
    let known = Plant::ALL.map(|(name, _)| name).join(", ");
    found.map_or_else(|| Err(format!("there is: {known}")), |(_, plant)| Ok(plant))
}

/// Called as `simulate …`, its own options. A plain `cargo test` hands on what it was given itself: then it runs as it does without
/// options, unless a test is asked for by name.
fn options() -> Option<Options> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    match given.first() {
        Some(first) if first == "simulate" => Some(Options::parse_from(&given)),
        _ if given.iter().any(|word| !word.starts_with('-')) => None,
        _ => Some(Options::parse_from(["simulate"])),
    }
}

fn production() -> Result<Shape, String> {
    let profile = Profile::load("proxpanel", &[]).map_err(|e| e.to_string())?;
    let names = profile.select(&["production".to_owned()])?;
    Ok(profile.plan_shape(&names))
}

/// Counts and broken runs of one thread.
#[derive(Default)]
struct Tally {
    ended: BTreeMap<String, u64>,
    lives: u64,
    broken: Vec<Summary>,
}

impl Tally {
    fn count(&mut self, run: Summary) {
        let how = run.ending.map_or("never".to_owned(), |e| e.to_string());
        *self.ended.entry(how).or_default() += 1;
        self.lives += u64::from(run.lives);
        if !run.broken.is_empty() {
            self.broken.push(run);
        }
    }

    fn add(&mut self, other: Self) {
        for (how, count) in other.ended {
            *self.ended.entry(how).or_default() += count;
        }
        self.lives += other.lives;
        self.broken.extend(other.broken);
    }
}

fn simulate(options: &Options) -> Result<Tally, String> {
    let shape = production()?;
    let next = AtomicU64::new(options.seed);
    let end = options.seed + options.runs;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let one = || -> Result<Tally, String> {
        let simulator = Simulator::new(shape.clone()).map_err(|e| e.to_string())?;
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(tally);
            }
            tally.count(simulator.run(seed, options.plant));
            if options.plant.is_some() && !tally.broken.is_empty() {
                next.store(end, Ordering::Relaxed);
            }
        }
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        for thread in running {
            all.add(thread.join().map_err(|_| "a run panicked")??);
        }
        Ok(all)
    })
}

fn main() -> ExitCode {
    let began = Instant::now();
    let Some(options) = options() else {
        return ExitCode::SUCCESS;
    };
    let tally = match simulate(&options) {
        Ok(tally) => tally,
        Err(why) => {
            eprintln!("simulate: {why}");
            return ExitCode::FAILURE;
        }
    };
    let runs: u64 = tally.ended.values().sum();
    let ended: Vec<String> = tally
        .ended
        .iter()
        .map(|(how, n)| format!("{n} {how}"))
        .collect();
    println!(
        "{runs} rotations from seed {}, {} starts of keyroll, {:.1?}: {}; {} broke a law",
        options.seed,
        tally.lives,
        began.elapsed(),
        ended.join(", "),
        tally.broken.len()
    );
    let mut alike: BTreeMap<&str, Vec<&Summary>> = BTreeMap::new();
    for run in &tally.broken {
        let first = run.broken.first().map_or("", String::as_str);
        alike.entry(first).or_default().push(run);
    }
    for runs in alike.values().take(SHOWN) {
        println!(
            "  --seed {} --runs 1 ({} alike): {}",
            runs[0].seed,
            runs.len(),
            runs[0].broken.join("\n    ")
        );
    }
    if tally.broken.is_empty() == options.plant.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
