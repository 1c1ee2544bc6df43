//! Byte for byte. Alone in its process, because `SQLite` has one generator of random numbers for all.

use std::sync::{Arc, Mutex};

use keyroll_simulation::{Disk, Random, Verdict, Vfs, at, seed_sqlite};
use rusqlite::{Connection, OpenFlags};

/// Stops at an operation of the seed's choice, loses power; gives all that is on the disk.
fn run(seed: u32) -> Vec<(String, Vec<u8>)> {
    seed_sqlite(seed);
    let mut random = Random::new(seed.into());
    let disk = Arc::new(Mutex::new(Disk::new(seed.into())));
    let vfs = Vfs::register(&disk);
    let stop = at(random.below(80), Verdict::StopAfter);
    disk.lock().unwrap().set_faults(stop);
    let flags = OpenFlags::default();
    let result = Connection::open_with_flags_and_vfs("state.db", flags, vfs.name()).and_then(|c| {
        c.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x);")?;
        (0..20).try_for_each(|n| {
            c.execute("INSERT INTO t VALUES (?1 || hex(randomblob(20)))", [n])
                .map(drop)
        })
    });
    assert!(result.is_err());
    let mut disk = disk.lock().unwrap();
    disk.lose_power(&mut random);
    let names: Vec<String> = disk.names().map(str::to_owned).collect();
    let content = |name: String| {
        let content = disk.content(&name).unwrap().to_vec();
        (name, content)
    };
    names.into_iter().map(content).collect()
}

#[test]
fn a_seed_leaves_the_same_bytes_twice_and_another_seed_others() {
    let states: Vec<_> = (1..40).map(run).collect();
    assert!(states == (1..40).map(run).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<_> = states.iter().collect();
    assert!(different.len() > 20, "{}", different.len());
}
