//! What a writer may do, what it leaves behind, and what it never writes.

use std::path::Path;

use keyroll_secret::{Identity, Secret};
use tempfile::TempDir;

use super::*;

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
    writer.promote(&first.id, NOW).unwrap();
    assert_eq!(
        states(&writer),
        [VersionState::Retired, VersionState::Current]
    );
    assert!(writer.versions_of("A").unwrap()[0].sealed.is_some());
    writer.promote(&first.id, NOW).unwrap();
    assert_eq!(
        states(&writer),
        [VersionState::Retired, VersionState::Current],
        "promoting twice is once"
    );
}

#[test]
fn purging_forgets_old_values_and_never_a_current_one() {
    let directory = TempDir::new().unwrap();
    let (writer, _lock) = take_over(directory.path());
    let first = rotation(directory.path(), "r1", VersionState::Pending);
    writer.begin(&first, NOW).unwrap();
    writer.promote(&first.id, NOW).unwrap();
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
    writer.promote(&second.id, NOW).unwrap();
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
