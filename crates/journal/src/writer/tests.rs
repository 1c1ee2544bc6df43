//! What a writer may do, what it leaves behind, and what it never writes.

use std::path::Path;

use keyroll_secret::{Identity, Secret};
use tempfile::TempDir;

use super::*;
use crate::OpenRestore;
use crate::versions::{NewVersion, VersionState};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn take_over(directory: &Path) -> (Writer, Lock) {
    let journal = Journal::open(directory).unwrap();
    let lock = Lock::acquire(directory, directory, NOW).unwrap();
    (journal.take_over(&lock).unwrap(), lock)
}

fn rotation(directory: &Path, name: &str, state: VersionState) -> NewRotation {
    let identity = Identity::load_or_create(&directory.join("identity")).unwrap();
    let sealed = identity.seal_secret(&Secret::new("value")).unwrap();
    NewRotation {
        id: RotationId::from_text(name),
        about: serde_json::json!({"secrets": ["A"]}),
        versions: vec![NewVersion {
            secret: "A".into(),
            state,
            fingerprint: "f".into(),
            sealed: sealed.clone(),
        }],
        kept: vec![Kept {
            name: "env".into(),
            sealed,
        }],
    }
}

fn states(writer: &Writer) -> Vec<VersionState> {
    writer
        .versions_of("A")
        .unwrap()
        .iter()
        .map(|v| v.state)
        .collect()
}

#[test]
fn a_fenced_writer_can_neither_append_nor_intend() {
    let directory = TempDir::new().unwrap();
    let (old, lock) = take_over(directory.path());
    let new = rotation(directory.path(), "r1", VersionState::Pending);
    old.begin(&new, NOW).unwrap();
    let newer = Journal::open(directory.path())
        .unwrap()
        .take_over(&lock)
        .unwrap();
    assert!(matches!(old.fence(), Err(JournalError::Fenced { .. })));
    assert!(matches!(
        old.intend_forward(&new.id, &"s".into(), 1, NOW),
        Err(JournalError::Fenced { .. })
    ));
    assert!(
        newer.records(&new.id).unwrap().is_empty(),
        "the refused append left nothing"
    );
    newer.intend_forward(&new.id, &"s".into(), 1, NOW).unwrap();
}

#[test]
fn a_second_rotation_is_refused_until_the_first_has_ended() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let first = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&first, NOW).unwrap();
    let second = rotation(directory.path(), "r2", VersionState::Pending);
    assert!(matches!(writer.begin(&second, NOW), Err(JournalError::Unfinished(id)) if id == "r1"));
    let stuck = Event::Ended {
        ending: Ending::Stuck,
        reason: None,
    };
    writer.append(&first.id, &stuck, NOW).unwrap();
    assert!(
        writer.begin(&second, NOW).is_err(),
        "stuck still needs an operator"
    );
    let done = Event::Ended {
        ending: Ending::Completed,
        reason: None,
    };
    writer.append(&first.id, &done, NOW).unwrap();
    assert_eq!(
        writer.rotation(&first.id).unwrap().ending,
        Some(Ending::Completed)
    );
    writer.begin(&second, NOW).unwrap();
}

#[test]
fn promoting_retires_what_was_current_and_keeps_it_sealed() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let mut first = rotation(directory.path(), "r1", VersionState::Current);
    first
        .versions
        .extend(rotation(directory.path(), "r1", VersionState::Pending).versions);
    writer.begin(&first, NOW).unwrap();
    writer
        .promote(&first.id, &[], &BTreeMap::new(), NOW)
        .unwrap();
    assert_eq!(
        states(&writer),
        [VersionState::Retired, VersionState::Current]
    );
    assert!(writer.versions_of("A").unwrap()[0].sealed.is_some());
    writer
        .promote(&first.id, &[], &BTreeMap::new(), NOW)
        .unwrap();
    assert_eq!(
        states(&writer),
        [VersionState::Retired, VersionState::Current],
        "promoting twice is once"
    );
}

#[test]
fn abandoning_ends_it_makes_current_what_is_in_force_and_keeps_every_value_until_it_is_purged() {
    for (in_force, expected) in [
        (&[][..], [VersionState::Current, VersionState::Retired]),
        (
            &["A".to_owned()][..],
            [VersionState::Retired, VersionState::Current],
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let (writer, _lock) = take_over(directory.path());
        let mut first = rotation(directory.path(), "r1", VersionState::Current);
        first
            .versions
            .extend(rotation(directory.path(), "r1", VersionState::Pending).versions);
        writer.begin(&first, NOW).unwrap();
        writer.abandon(&first.id, None, in_force, NOW).unwrap();
        assert_eq!(states(&writer), expected);
        assert!(writer.unfinished().unwrap().is_none());
        let ending = writer.rotation(&first.id).unwrap().ending;
        assert_eq!(ending, Some(Ending::Abandoned));
        let versions = writer.versions_of("A").unwrap();
        assert!(versions.iter().all(|v| v.sealed.is_some()));
        assert_eq!(writer.purge(NOW).unwrap(), 0, "not before its time");
        assert_eq!(writer.purge(Timestamp::now()).unwrap(), 2);
    }
}

#[test]
fn purging_forgets_old_values_and_never_a_current_one() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let first = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&first, NOW).unwrap();
    writer
        .promote(&first.id, &[], &BTreeMap::new(), NOW)
        .unwrap();
    assert_eq!(
        writer.purge(Timestamp::now()).unwrap(),
        0,
        "unfinished and current stay"
    );
    writer
        .append(
            &first.id,
            &Event::Ended {
                ending: Ending::Completed,
                reason: None,
            },
            NOW,
        )
        .unwrap();
    let second = rotation(directory.path(), "r2", VersionState::Pending);
    writer.begin(&second, NOW).unwrap();
    writer
        .promote(&second.id, &[], &BTreeMap::new(), NOW)
        .unwrap();
    assert_eq!(
        writer.purge(Timestamp::now()).unwrap(),
        2,
        "the retired value and what r1 kept"
    );
    let sealed: Vec<bool> = writer
        .versions_of("A")
        .unwrap()
        .iter()
        .map(|v| v.sealed.is_some())
        .collect();
    assert_eq!(sealed, [false, true]);
    assert!(writer.kept(&second.id, "env").unwrap().is_some());
}

#[test]
fn what_is_graced_stays_previous_until_its_window_is_ended_or_the_next_one_opens() {
    use VersionState::{Current, Pending, Previous, Retired};
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let graced = ["A".to_owned()];
    let states = || -> Vec<VersionState> {
        let all = writer.versions_of("A").unwrap();
        all.iter().map(|v| v.state).collect()
    };
    let ends = Event::Ended {
        ending: Ending::Completed,
        reason: None,
    };
    for (id, expected) in [
        ("r1", vec![Current]),
        ("r2", vec![Previous, Current]),
        ("r3", vec![Retired, Previous, Current]),
    ] {
        let own = rotation(directory.path(), id, Pending);
        writer.begin(&own, NOW).unwrap();
        // Twice, as after a crash: the second one finds nothing to do.
        for _ in 0..2 {
            writer
                .promote(&own.id, &graced, &BTreeMap::new(), NOW)
                .unwrap();
            assert_eq!(states(), expected, "{id}");
        }
        writer.append(&own.id, &ends, NOW).unwrap();
    }
    let later = NOW + jiff::SignedDuration::from_hours(10_000);
    writer.purge(later).unwrap();
    let sealed = |n: usize| writer.versions_of("A").unwrap()[n].sealed.is_some();
    assert!(
        !sealed(0) && sealed(1),
        "a window has no time at which its value is forgotten"
    );
    writer.retire_previous(&graced, NOW).unwrap();
    assert_eq!(states(), [Retired, Retired, Current]);
}

#[test]
fn what_is_kept_first_stays() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let first = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&first, NOW).unwrap();
    let identity = Identity::load_or_create(&directory.path().join("identity")).unwrap();
    let later = Kept {
        name: "env".into(),
        sealed: identity.seal(b"later").unwrap(),
    };
    writer.keep(&first.id, &[later], NOW).unwrap();
    let kept = writer.kept(&first.id, "env").unwrap().unwrap();
    assert_eq!(identity.open_secret(&kept).unwrap().expose(), "value");
}

#[test]
fn an_injected_crash_before_a_commit_leaves_nothing_and_after_it_everything() {
    for (moment, expected) in [(Moment::Before(1), 0), (Moment::After(1), 1)] {
        let directory = TempDir::new().unwrap();
        let (mut writer, _lock) = take_over(directory.path());
        writer.inject(move |m| m != moment);
        let new = rotation(directory.path(), "r1", VersionState::Pending);
        assert!(matches!(
            writer.begin(&new, NOW),
            Err(JournalError::Injected)
        ));
        assert_eq!(writer.rotations().unwrap().len(), expected);
    }
}

#[test]
fn the_trail_is_appended_to_its_own_last_record() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    writer
        .append_audit(|last| Ok(format!("{last:?}+1")))
        .unwrap();
    writer
        .append_audit(|last| Ok(format!("{}+2", last.unwrap())))
        .unwrap();
    assert_eq!(writer.audit().unwrap(), ["None+1", "None+1+2"]);
}

/// A part of a restore from the backup of `r1`.
fn part(name: &str) -> OpenRestore {
    OpenRestore {
        part: name.into(),
        rotation: RotationId::from_text("r1"),
        begun_at: NOW,
        details: serde_json::json!({"side": name}),
    }
}

#[test]
fn a_restore_is_open_until_its_record_is_in_the_trail_and_no_rotation_begins_meanwhile() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let done = Event::Ended {
        ending: Ending::Completed,
        reason: None,
    };
    let first = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&first, NOW).unwrap();
    writer.append(&first.id, &done, NOW).unwrap();
    let both = [part("files"), part("database")];
    writer.begin_restore(&both).unwrap();
    assert_eq!(
        Journal::open(directory.path()).unwrap().restores().unwrap(),
        both
    );
    let second = rotation(directory.path(), "r2", VersionState::Pending);
    assert!(matches!(writer.begin(&second, NOW), Err(JournalError::Unrestored(id)) if id == "r1"));
    // A record that cannot be made closes nothing.
    assert!(
        writer
            .record_restore("files", |_| Err("no".into()))
            .is_err()
    );
    assert_eq!(writer.restores().unwrap(), both);
    writer
        .record_restore("files", |_| Ok("one".into()))
        .unwrap();
    assert_eq!(writer.restores().unwrap(), both[1..]);
    writer.drop_restore("database").unwrap();
    assert_eq!(
        (writer.restores().unwrap(), writer.audit().unwrap()),
        (vec![], vec!["one".to_owned()])
    );
    writer.begin(&second, NOW).unwrap();
}

#[test]
fn a_fenced_writer_can_neither_begin_nor_close_a_restore() {
    let directory = TempDir::new().unwrap();
    let (old, lock) = take_over(directory.path());
    old.begin(
        &rotation(directory.path(), "r1", VersionState::Pending),
        NOW,
    )
    .unwrap();
    old.begin_restore(&[part("files")]).unwrap();
    let newer = Journal::open(directory.path())
        .unwrap()
        .take_over(&lock)
        .unwrap();
    let fenced = |result| matches!(result, Err(JournalError::Fenced { .. }));
    assert!(fenced(old.begin_restore(&[part("database")])));
    assert!(fenced(old.drop_restore("files")));
    assert!(fenced(old.record_restore("files", |_| Ok("one".into()))));
    assert_eq!(newer.restores().unwrap(), [part("files")]);
}

#[test]
fn no_plain_value_reaches_the_files() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let identity = Identity::load_or_create(&directory.path().join("identity")).unwrap();
    let mut new = rotation(directory.path(), "r1", VersionState::Pending);
    new.kept[0].sealed = identity.seal(b"canary-canary-canary").unwrap();
    writer.begin(&new, NOW).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(20).any(|w| w == b"canary-canary-canary"));
    }
}

#[test]
fn a_log_with_room_does_not_grow_and_is_read_back_after_a_kill() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let log = reserve::log_path(writer.path());
    let length = || std::fs::metadata(&log).unwrap().len();
    assert_eq!(length(), reserve::ROOM);
    let new = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&new, NOW).unwrap();
    for _ in 0..50 {
        let resumed = Event::Resumed { by: "me".into() };
        writer.append(&new.id, &resumed, NOW).unwrap();
    }
    assert_eq!(length(), reserve::ROOM, "the log had to grow");

    // What a killed process leaves: the files as they are, and nobody who closes them.
    let left = TempDir::new().unwrap();
    for name in ["state.db", "state.db-wal"] {
        std::fs::copy(directory.path().join(name), left.path().join(name)).unwrap();
    }
    let found = Journal::open(left.path()).unwrap();
    assert_eq!(found.records(&new.id).unwrap().len(), 50);
    assert_eq!(found.epoch().unwrap(), writer.own_epoch());
    drop(writer);
    assert!(!log.exists(), "one file is left to copy");
}
