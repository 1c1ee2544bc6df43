//! `SQLite` on the disk: what the tests have in common, and what processes see of each other.

mod crashes;

use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{SharedDisk, Vfs, locked};
use crate::{Disk, Process, Random};

const NAME: &str = "state.db";

fn machine() -> SharedDisk {
    Arc::new(Mutex::new(Disk::new(1)))
}

fn connect(vfs: &Vfs) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags_and_vfs(NAME, flags, vfs.name())
}

/// A connection with the journal's settings, and checkpoints often enough that a small workload has some.
fn journal(vfs: &Vfs, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = connect(vfs)?;
    // To the end: the row says "wal" before the switch is committed, and the error comes after it.
    let modes: Vec<String> = connection
        .prepare("PRAGMA journal_mode = WAL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    assert_eq!(modes, ["wal"]);
    settings(&connection, synchronous)?;
    Ok(connection)
}

fn settings(connection: &Connection, synchronous: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 6;"
    ))
}

fn make_table(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, event TEXT NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS records_by_event ON records (event);",
    )
}

fn add(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let event = format!("event {id} ").repeat(60);
    connection
        .execute(
            "INSERT INTO records (id, event) VALUES (?1, ?2)",
            (id, event),
        )
        .map(drop)
}

fn ids(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare("SELECT id FROM records ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn busy<T>(result: rusqlite::Result<T>) -> bool {
    result.is_err_and(|e| e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

#[test]
fn two_connections_see_each_others_commits() {
    let disk = machine();
    let (one, other) = (Vfs::register(&disk), Vfs::register(&disk));
    let a = journal(&one, "FULL").unwrap();
    make_table(&a).unwrap();
    // One of another process, one of the same.
    let (b, c) = (
        journal(&other, "FULL").unwrap(),
        journal(&one, "FULL").unwrap(),
    );
    add(&a, 1).unwrap();
    add(&b, 2).unwrap();
    add(&c, 3).unwrap();
    for connection in [&a, &b, &c] {
        let mode: String = connection
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(ids(connection).unwrap(), [1, 2, 3]);
    }
}

#[test]
fn a_second_writer_is_told_busy_and_a_reader_keeps_its_snapshot() {
    let disk = machine();
    let (one, other) = (Vfs::register(&disk), Vfs::register(&disk));
    let a = journal(&one, "FULL").unwrap();
    make_table(&a).unwrap();
    let b = journal(&other, "FULL").unwrap();
    b.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let before = locked(&disk).now();
    a.execute_batch("BEGIN IMMEDIATE").unwrap();
    add(&a, 1).unwrap();
    assert!(busy(b.execute_batch("BEGIN IMMEDIATE")));
    let waited = locked(&disk).now() - before;
    assert!(
        (4_900_000..=5_100_000).contains(&waited),
        "{waited} of simulated time"
    );
    b.execute_batch("BEGIN").unwrap();
    assert!(ids(&b).unwrap().is_empty());
    a.execute_batch("COMMIT").unwrap();
    assert!(ids(&b).unwrap().is_empty());
    b.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
    assert_eq!(ids(&b).unwrap(), [1]);
}

#[test]
fn outside_of_the_logs_mode_a_writer_waits_for_readers() {
    let disk = machine();
    let (one, other) = (Vfs::register(&disk), Vfs::register(&disk));
    let (a, b) = (connect(&one).unwrap(), connect(&other).unwrap());
    make_table(&a).unwrap();
    b.execute_batch("BEGIN").unwrap();
    assert!(ids(&b).unwrap().is_empty());
    a.busy_timeout(std::time::Duration::ZERO).unwrap();
    a.execute_batch("BEGIN IMMEDIATE").unwrap();
    add(&a, 1).unwrap();
    assert!(busy(a.execute_batch("COMMIT")));
    b.execute_batch("COMMIT").unwrap();
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(ids(&b).unwrap(), [1]);
}

#[test]
fn a_killed_writer_leaves_neither_its_lock_nor_its_half_transaction() {
    let disk = machine();
    let (one, other) = (Vfs::register(&disk), Vfs::register(&disk));
    let a = journal(&one, "FULL").unwrap();
    make_table(&a).unwrap();
    let b = journal(&other, "FULL").unwrap();
    add(&a, 1).unwrap();
    // So small a cache that the half transaction is in the log already.
    a.execute_batch("PRAGMA cache_size = 1; BEGIN IMMEDIATE")
        .unwrap();
    for id in 2..40 {
        add(&a, id).unwrap();
    }
    kill(&disk, one.process());
    drop(a);
    add(&b, 100).unwrap();
    assert_eq!(ids(&b).unwrap(), [1, 100]);
    one.restart();
    assert_eq!(ids(&connect(&one).unwrap()).unwrap(), [1, 100]);
}

#[test]
fn a_connection_that_outlives_a_power_loss_is_dead_and_touches_nothing() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = machine();
        let vfs = Vfs::register(&disk);
        let old = journal(&vfs, "NORMAL").unwrap();
        make_table(&old).unwrap();
        old.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0")
            .unwrap();
        for id in 1..4 {
            add(&old, id).unwrap();
        }
        old.execute_batch("BEGIN IMMEDIATE").unwrap();
        locked(&disk).lose_power(&mut Random::new(seed));
        vfs.restart();
        let new = journal(&vfs, "FULL").unwrap();
        let survived = ids(&new).unwrap();
        lost += 3 - survived.len();
        add(&new, 10).unwrap();
        // What a transaction reads and writes may still be in its cache; it cannot commit.
        let _ = add(&old, 11);
        assert!(old.execute_batch("COMMIT").is_err());
        drop(old);
        assert_eq!(ids(&new).unwrap(), [&survived[..], &[10]].concat());
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn a_database_that_is_deleted_while_open_stays_readable_and_refuses_writers() {
    let disk = machine();
    let vfs = Vfs::register(&disk);
    let connection = connect(&vfs).unwrap();
    make_table(&connection).unwrap();
    add(&connection, 1).unwrap();
    let process = vfs.process();
    locked(&disk).delete(process, NAME).unwrap();
    assert_eq!(ids(&connection).unwrap(), [1]);
    let refused = add(&connection, 2).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ReadOnly));
}

#[test]
fn what_is_dropped_in_the_wrong_order_harms_nobody() {
    let disk = machine();
    let vfs = Vfs::register(&disk);
    let connection = journal(&vfs, "FULL").unwrap();
    make_table(&connection).unwrap();
    drop(vfs);
    let another = machine();
    let next = Vfs::register(&another);
    add(&connection, 1).unwrap();
    assert_eq!(ids(&connection).unwrap(), [1]);
    drop(connection);
    assert_eq!(locked(&another).names().count(), 0);
    drop(next);
}

#[test]
fn the_clock_is_the_machines() {
    let disk = machine();
    let vfs = Vfs::register(&disk);
    let connection = connect(&vfs).unwrap();
    locked(&disk).wait(61_000_000);
    let (whole, days): (String, f64) = connection
        .query_row("SELECT datetime('now'), julianday('now')", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(whole, "2026-01-01 00:01:01");
    assert!((days - 2_461_041.5).abs() < 0.001, "{days}");
}

#[test]
fn a_run_leaves_no_handle_and_no_nameless_file_behind() {
    let disk = machine();
    let vfs = Vfs::register(&disk);
    let connection = journal(&vfs, "FULL").unwrap();
    make_table(&connection).unwrap();
    add(&connection, 1).unwrap();
    drop(connection);
    assert_eq!(locked(&disk).names().collect::<Vec<_>>(), [NAME]);
    assert_eq!(
        vfs.slot
            .open_files
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    drop(vfs);
    assert_eq!(Arc::strong_count(&disk), 1);
}

fn kill(disk: &SharedDisk, process: Process) {
    locked(disk).kill(process);
}
