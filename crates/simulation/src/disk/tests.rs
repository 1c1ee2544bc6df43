//! What a process is told, and what is left of names.

use std::collections::BTreeSet;

use super::{Disk, DiskError, Opening};
use crate::{Failure, Random, Verdict, at};

/// What names a power loss can leave, over many seeds.
fn aftermaths(disk: &Disk) -> BTreeSet<Vec<String>> {
    (0..200)
        .map(|seed| {
            let mut image = disk.image(0);
            image.lose_power(&mut Random::new(seed));
            image.names().map(str::to_owned).collect()
        })
        .collect()
}

fn states(states: &[&[&str]]) -> BTreeSet<Vec<String>> {
    let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    states.iter().map(owned).collect()
}

#[test]
fn a_name_is_durable_with_its_directory_and_not_with_its_file() {
    let mut disk = Disk::new(0);
    let process = disk.start_process();
    let handle = disk.open(process, Some("a"), Opening::Create).unwrap();
    disk.write(handle, 0, b"content").unwrap();
    disk.sync(handle).unwrap();
    assert_eq!(disk.durable_content("a"), None);
    assert_eq!(aftermaths(&disk), states(&[&[], &["a"]]));
    disk.sync_directory(process).unwrap();
    assert_eq!(aftermaths(&disk), states(&[&["a"]]));
    assert_eq!(disk.durable_content("a").unwrap(), b"content");
}

#[test]
fn a_deleted_file_may_come_back_until_the_directory_is_synced() {
    let mut disk = Disk::new(0);
    let process = disk.start_process();
    for name in ["a", "b"] {
        disk.open(process, Some(name), Opening::CreateNew).unwrap();
    }
    disk.sync_directory(process).unwrap();
    disk.delete(process, "a").unwrap();
    disk.delete(process, "b").unwrap();
    let any = states(&[&[], &["a"], &["b"], &["a", "b"]]);
    assert_eq!(aftermaths(&disk), any);
    disk.sync_directory(process).unwrap();
    assert_eq!(aftermaths(&disk), states(&[&[]]));
}

#[test]
fn a_deleted_file_lives_on_for_whoever_has_it_open_beside_a_new_one_of_its_name() {
    let mut disk = Disk::new(0);
    let process = disk.start_process();
    let old = disk.open(process, Some("a"), Opening::Create).unwrap();
    disk.write(old, 0, b"old").unwrap();
    disk.delete(process, "a").unwrap();
    let new = disk.open(process, Some("a"), Opening::CreateNew).unwrap();
    disk.write(new, 0, b"newer").unwrap();
    let mut read = [0; 3];
    assert_eq!(disk.read(old, 0, &mut read), Ok(3));
    assert_eq!(&read, b"old");
    assert_eq!(
        (disk.has_moved(old), disk.has_moved(new)),
        (Ok(true), Ok(false))
    );
    disk.sync_directory(process).unwrap();
    disk.close(old);
    assert_eq!(disk.files.len(), 1);
}

#[test]
fn a_failure_before_leaves_nothing_and_one_after_leaves_everything() {
    for (verdict, left) in [
        (Verdict::Fail(Failure::Full), &b""[..]),
        (Verdict::FailAfter(Failure::Full), b"x"),
    ] {
        let mut disk = Disk::new(0);
        let process = disk.start_process();
        let handle = disk.open(process, Some("a"), Opening::Create).unwrap();
        disk.set_faults(at(1, verdict));
        assert_eq!(disk.write(handle, 0, b"x"), Err(DiskError::Full));
        assert_eq!(disk.content("a").unwrap(), left);
    }
    let mut disk = Disk::new(0);
    let process = disk.start_process();
    disk.set_faults(at(0, Verdict::FailAfter(Failure::Io)));
    let failed = disk.open(process, None, Opening::Create);
    assert_eq!(failed, Err(DiskError::Io));
    assert!(disk.files.is_empty() && disk.handles.is_empty());
}

#[test]
fn a_machine_that_stopped_answers_nothing_until_it_is_restarted() {
    for (verdict, left) in [(Verdict::StopBefore, &b""[..]), (Verdict::StopAfter, b"x")] {
        let mut disk = Disk::new(0);
        let (one, other) = (disk.start_process(), disk.start_process());
        let handle = disk.open(one, Some("a"), Opening::Create).unwrap();
        disk.set_faults(at(1, verdict));
        assert_eq!(disk.write(handle, 0, b"x"), Err(DiskError::Stopped));
        assert_eq!(disk.length(handle), Err(DiskError::Stopped));
        let refused = disk.open(other, Some("a"), Opening::Existing);
        assert_eq!(refused, Err(DiskError::Stopped));
        assert_eq!(disk.operations(), 2);
        disk.kill(one);
        assert_eq!(disk.length(handle), Err(DiskError::Dead));
        assert!(disk.open(other, Some("a"), Opening::Existing).is_ok());
        assert_eq!(disk.content("a").unwrap(), left);
    }
}

#[test]
fn an_image_is_a_machine_of_its_own() {
    let mut disk = Disk::new(0);
    let process = disk.start_process();
    let handle = disk.open(process, Some("a"), Opening::Create).unwrap();
    disk.write(handle, 0, b"before").unwrap();
    let mut image = disk.image(0);
    disk.write(handle, 0, b"after!").unwrap();
    assert_eq!(image.content("a").unwrap(), b"before");
    assert_eq!(image.write(handle, 0, b"zombie"), Err(DiskError::Dead));
    let reader = image.start_process();
    assert!(image.open(reader, Some("a"), Opening::Existing).is_ok());
    assert_eq!(image.operations(), 1);
}
