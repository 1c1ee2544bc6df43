//! The workload of a journal, stopped at every operation of the disk in turn.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::{Vfs, add, connect, ids, journal, kill, locked, machine, make_table, settings};
use crate::vfs::SharedDisk;
use crate::{Disk, Failure, Kind, Random, Verdict, at, full_from, now_and_then};

const COMMITS: i64 = 8;

/// What the process knows in the end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Known {
    /// The commits that were acknowledged.
    acknowledged: Vec<i64>,
    /// The last one that was tried.
    tried: i64,
}

/// Opens, makes the table, commits, closes; gives up at the first error.
fn work(vfs: &Vfs, synchronous: &str) -> Known {
    work_with(journal(vfs, synchronous))
}

fn work_with(connection: rusqlite::Result<Connection>) -> Known {
    let mut known = Known::default();
    let _ = connection.and_then(|connection| {
        make_table(&connection)?;
        for id in 1..=COMMITS {
            known.tried = id;
            add(&connection, id)?;
            known.acknowledged.push(id);
        }
        Ok(())
    });
    known
}

/// The same, but an error only makes it go on with the next commit, on the same connection if there is one.
fn work_on(vfs: &Vfs) -> Known {
    let mut known = Known::default();
    let mut kept = None;
    for id in 1..=COMMITS {
        known.tried = id;
        if kept.is_none() {
            kept = journal(vfs, "FULL").ok();
        }
        let Some(connection) = &kept else { continue };
        if make_table(connection)
            .and_then(|()| add(connection, id))
            .is_ok()
        {
            known.acknowledged.push(id);
        }
    }
    known
}

/// What the next process finds: the commits, or how the database is broken.
fn found(vfs: &Vfs) -> Result<Vec<i64>, String> {
    let check = || -> rusqlite::Result<_> {
        let connection = connect(vfs)?;
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        make_table(&connection)?;
        Ok((check, ids(&connection)?))
    };
    match check() {
        Ok((check, ids)) if check == "ok" => Ok(ids),
        Ok((check, _)) => Err(check),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether it is what it must be: all commits that were acknowledged, those that were tried whole or not at all,
/// nothing else.
fn whole(known: &Known, found: &Result<Vec<i64>, String>) -> bool {
    let Ok(ids) = found else { return false };
    known.acknowledged.iter().all(|id| ids.contains(id))
        && ids.iter().all(|id| (1..=known.tried).contains(id))
}

/// How many operations the workload has when nothing goes wrong.
fn operations(synchronous: &str) -> u64 {
    let disk = machine();
    let vfs = Vfs::register(&disk);
    assert_eq!(work(&vfs, synchronous).acknowledged.len(), 8);
    locked(&disk).operations()
}

/// Stops at one operation, loses power, and looks.
fn cut_short(
    disk: &SharedDisk,
    synchronous: &str,
    number: u64,
    verdict: Verdict,
    seed: u64,
) -> (Known, Result<Vec<i64>, String>) {
    let vfs = Vfs::register(disk);
    locked(disk).set_faults(at(number, verdict));
    let known = work(&vfs, synchronous);
    locked(disk).lose_power(&mut Random::new(seed));
    vfs.restart();
    (known, found(&vfs))
}

#[test]
fn acknowledged_commits_survive_a_power_loss_at_every_operation() {
    let total = operations("FULL");
    assert!(total > 60, "{total}");
    let mut stopped_early = 0;
    for number in 0..total {
        for (seed, verdict) in
            (0..12).flat_map(|seed| [(seed, Verdict::StopBefore), (seed, Verdict::StopAfter)])
        {
            let (known, found) = cut_short(&machine(), "FULL", number, verdict, seed);
            assert!(
                whole(&known, &found),
                "operation {number}, {verdict:?}, seed {seed}: {known:?}, {found:?}"
            );
            stopped_early += u32::from(known.acknowledged.len() < 8);
        }
    }
    assert!(stopped_early > 1000, "{stopped_early}");
}

#[test]
fn a_commit_that_was_not_acknowledged_may_be_there_or_not() {
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..operations("FULL") {
        for seed in 0..6 {
            let (known, found) = cut_short(&machine(), "FULL", number, Verdict::StopBefore, seed);
            if !known.acknowledged.contains(&known.tried) {
                seen.insert(found.unwrap().len() > known.acknowledged.len());
            }
        }
    }
    assert_eq!(seen.len(), 2);
}

/// How many of many power losses after the last commit are found out.
fn losses(synchronous: &str, lie: bool) -> usize {
    let total = operations(synchronous);
    (0..total)
        .flat_map(|number| (0..4).map(move |seed| (number, seed)))
        .filter(|(number, seed)| {
            let disk = machine();
            locked(&disk).set_sync_is_a_lie(lie);
            let (known, found) = cut_short(&disk, synchronous, *number, Verdict::StopAfter, *seed);
            !whole(&known, &found)
        })
        .count()
}

#[test]
fn a_database_that_does_not_sync_is_found_to_lose_commits() {
    let lost = losses("OFF", false);
    assert!(lost > 20, "{lost}");
}

#[test]
fn a_log_that_is_not_synced_at_each_commit_is_found_to_lose_commits() {
    let lost = losses("NORMAL", false);
    assert!(lost > 20, "{lost}");
}

#[test]
fn a_disk_that_lies_about_syncing_is_found_to_lose_commits() {
    let lost = losses("FULL", true);
    assert!(lost > 20, "{lost}");
}

#[test]
fn the_death_of_the_process_loses_nothing_acknowledged_even_without_syncs() {
    for synchronous in ["FULL", "OFF"] {
        for number in 0..operations(synchronous) {
            for verdict in [Verdict::StopBefore, Verdict::StopAfter] {
                let disk = machine();
                let vfs = Vfs::register(&disk);
                locked(&disk).set_faults(at(number, verdict));
                let known = work(&vfs, synchronous);
                kill(&disk, vfs.process());
                vfs.restart();
                let found = found(&vfs);
                assert!(
                    whole(&known, &found),
                    "operation {number}, {verdict:?}: {known:?}, {found:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_database_readable() {
    let mut refused = 0;
    for number in 0..operations("FULL") {
        let disk = machine();
        let vfs = Vfs::register(&disk);
        locked(&disk).set_faults(full_from(number));
        let known = work(&vfs, "FULL");
        refused += u32::from(!known.acknowledged.contains(&known.tried));
        // Still full, and another process reads; then there is space again, and the power fails.
        if known.tried > 0 {
            let connection = connect(&vfs).unwrap();
            assert!(whole(&known, &ids(&connection).map_err(|e| e.to_string())));
        }
        locked(&disk).clear_faults();
        assert!(whole(&known, &found(&vfs)), "operation {number}");
        locked(&disk).lose_power(&mut Random::new(number));
        vfs.restart();
        let found = found(&vfs);
        assert!(whole(&known, &found), "operation {number}: {found:?}");
    }
    assert!(refused > 20, "{refused}");
}

/// One operation fails in this way, each in turn; the process gives up or goes on; then the power fails. Gives the
/// kinds of operations whose failure lost a commit that was acknowledged.
fn losing_failures(verdict: Verdict, work: impl Fn(&Vfs) -> Known) -> Vec<Kind> {
    let mut losing = Vec::new();
    for number in 0..operations("FULL") {
        for seed in 0..6 {
            let disk = machine();
            let vfs = Vfs::register(&disk);
            locked(&disk).log_operations();
            locked(&disk).set_faults(at(number, verdict));
            let known = work(&vfs);
            locked(&disk).clear_faults();
            // Without a power loss first: nothing may be gone.
            let image = Arc::new(Mutex::new(locked(&disk).image(seed)));
            assert!(whole(&known, &found(&Vfs::register(&image))), "{number}");
            locked(&disk).lose_power(&mut Random::new(seed));
            vfs.restart();
            if !whole(&known, &found(&vfs)) {
                let number = usize::try_from(number).unwrap();
                losing.push(locked(&disk).log()[number].kind);
            }
        }
    }
    losing.dedup();
    losing
}

#[test]
fn a_single_failure_loses_nothing_acknowledged_but_where_sqlite_passes_it_over() {
    for verdict in [
        Verdict::Fail(Failure::Io),
        Verdict::Fail(Failure::Full),
        Verdict::FailAfter(Failure::Io),
        Verdict::FailAfter(Failure::Full),
        Verdict::FailAndForget(Failure::Io),
    ] {
        for losing in [
            losing_failures(verdict, |vfs| work(vfs, "FULL")),
            losing_failures(verdict, work_on),
        ] {
            // On Unix SQLite takes no notice when the directory of a new log cannot be synced, and acknowledges commits
            // in a file whose name may not survive.
            let passed_over = losing.iter().all(|kind| *kind == Kind::SyncDirectory);
            assert!(passed_over, "{verdict:?}: {losing:?}");
            let done = matches!(verdict, Verdict::FailAfter(_));
            assert_eq!(losing.is_empty(), done, "{verdict:?}: {losing:?}");
        }
    }
}

/// `execute_batch` takes the first row of a statement and no notice of what comes after it, here that the switch to the
/// log failed. The database stays in the mode of rollback journals, in which FULL does not sync the directory when a
/// commit removes its journal; the journal comes back, and takes the commit with it.
#[test]
fn a_switch_to_the_log_whose_failure_goes_unnoticed_is_found_to_lose_commits() {
    let losing = losing_failures(Verdict::Fail(Failure::Io), |vfs| {
        work_with(connect(vfs).and_then(|connection| {
            connection.execute_batch("PRAGMA journal_mode = WAL")?;
            settings(&connection, "FULL")?;
            Ok(connection)
        }))
    });
    assert!(losing.contains(&Kind::Sync), "{losing:?}");
}

#[test]
fn a_seed_replays_operation_by_operation() {
    let run = |seed| {
        let disk = Arc::new(Mutex::new(Disk::new(seed)));
        locked(&disk).log_operations();
        let vfs = Vfs::register(&disk);
        let mut random = Random::new(seed);
        let mut results = Vec::new();
        for _ in 0..4 {
            locked(&disk).set_faults(now_and_then(random.fork(), 40));
            results.push(work(&vfs, "FULL"));
            locked(&disk).clear_faults();
            locked(&disk).lose_power(&mut random);
            vfs.restart();
        }
        let log = locked(&disk).log().to_vec();
        (results, log)
    };
    let mut logs = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let first = run(seed);
        assert!(first == run(seed), "seed {seed}");
        logs.insert(format!("{:?}", first.1));
    }
    // And it is the seed that decides.
    assert!(logs.len() > 10, "{}", logs.len());
}
