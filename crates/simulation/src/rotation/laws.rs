//! What must hold when a run is over.

use keyroll_journal::{Ending, Event, Journal, JournalError, VersionState};

use super::steps::intent_of;
use super::stored::{SECRETS, rotation_id, sealed};
use super::world::{MARK, Session, Set, World};

/// The laws that this run broke.
pub(super) fn broken(world: &World, journal: &Journal, ending: Option<Ending>) -> Vec<String> {
    let mut broken = world.broken();
    match ending {
        None => broken.push("law 4: it never ended, although nothing went wrong any more".into()),
        Some(ending) => {
            in_force(world, ending, &mut broken);
            if ending != Ending::Completed && !world.failed() {
                broken.push(format!("law 4: {ending} although only crashes happened"));
            }
        }
    }
    if let Err(error) = written(world, journal, ending, &mut broken) {
        broken.push(format!("law 1: the journal cannot be read: {error}"));
    }
    broken
}

/// One whole set, at every place.
fn in_force(world: &World, ending: Ending, broken: &mut Vec<String>) {
    let systems = world.systems();
    let set = if ending == Ending::Completed {
        Set::New
    } else {
        Set::Old
    };
    if !systems.wholly(set) {
        broken.push(format!("law 4: {ending}, and the world is {systems:?}"));
    }
    let open = systems.sessions.contains(&Session::Open);
    let marked = systems.sessions.contains(&Session::Closed(MARK));
    if (set == Set::New && (open || systems.old_database_sessions || !systems.summary))
        || (set == Set::Old && marked)
    {
        broken.push(format!(
            "law 5 or 7: {ending}, and the world is {systems:?}"
        ));
    }
}

/// What the journal holds after power was lost.
fn written(
    world: &World,
    journal: &Journal,
    ending: Option<Ending>,
    broken: &mut Vec<String>,
) -> Result<(), JournalError> {
    let records = journal.records(&rotation_id())?;
    for caller in world.landed() {
        let intent = intent_of(&caller);
        if !records.iter().any(|r| r.event == intent) {
            broken.push(format!(
                "law 1: {caller:?} acted, and its intent is not on the disk"
            ));
        }
    }
    if let Some(pair) = records.windows(2).find(|p| p[1].epoch < p[0].epoch) {
        broken.push(format!(
            "law 11: a record of epoch {} follows one of epoch {}",
            pair[1].epoch, pair[0].epoch
        ));
    }
    let ends = |e: &Event| matches!(e, Event::Ended { ending, .. } if *ending != Ending::Stuck);
    if ending.is_some() && records.iter().filter(|r| ends(&r.event)).count() != 1 {
        broken.push("law 12: the records do not tell one ending".into());
    }
    for secret in SECRETS {
        let versions = journal.versions_of(secret)?;
        for which in ["old", "new"] {
            let wanted = sealed(secret, which);
            let kept = versions.iter().filter_map(|v| v.sealed.as_ref());
            // A rotation that never began has sealed nothing, and changed nothing.
            if !records.is_empty() && !kept.into_iter().any(|s| s.as_bytes() == wanted.as_bytes()) {
                broken.push(format!("law 1: the {which} value of {secret} is lost"));
            }
        }
        let current: Vec<&str> = versions
            .iter()
            .filter(|v| v.state == VersionState::Current)
            .map(|v| v.fingerprint.as_str())
            .collect();
        let expected = match ending {
            Some(Ending::Completed) => "new",
            Some(_) => "old",
            None => continue,
        };
        if current != [expected] {
            broken.push(format!("law 5: {secret} is {current:?} after {ending:?}"));
        }
    }
    trail(journal, ending, broken)
}

/// Numbered without a gap, no ending told twice in a row, and the last word is the ending. An earlier one may stand before it: a
/// summary that could not be written after the new set was told to be in force makes the rotation stuck for a while.
fn trail(
    journal: &Journal,
    ending: Option<Ending>,
    broken: &mut Vec<String>,
) -> Result<(), JournalError> {
    let lines = journal.audit()?;
    for (at, line) in lines.iter().enumerate() {
        if !line.starts_with(&format!("{} ", at + 1)) {
            broken.push(format!("law 12: line {} of the trail is {line:?}", at + 1));
        }
    }
    let Some(ending) = ending else { return Ok(()) };
    let told: Vec<&str> = lines.iter().filter_map(|l| l.rsplit(' ').next()).collect();
    let twice = told
        .windows(2)
        .any(|pair| pair[0] == pair[1] && pair[0] != "Stuck");
    if twice || told.last() != Some(&ending.to_string().as_str()) {
        broken.push(format!("law 12: {ending}, and the trail says {lines:?}"));
    }
    Ok(())
}
