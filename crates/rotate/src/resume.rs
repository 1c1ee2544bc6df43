//! Going on with what a killed run left, to its ending.
//!
//! A resume differs from a beginning in three respects. What stands in its way is told as that, never as "nothing was changed":
//! the stack is between two sets. A damaged trail is said, and stops nothing. And before it looks at anything, it ends what the
//! killed run started, which could still change what is seen.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyroll_journal::{Event, Journal, Lock, Rotation};
use keyroll_runtimes::compose::Engine;

use crate::about::About;
use crate::error::{RotateError, still_unfinished};
use crate::operations::{Control, Keyroll, go_on};
use crate::report::{Outcome, Progress};
use crate::trail::{damaged, going_on};
use crate::{ending, outcome, recovery, restore, world};

/// Pause between two looks whether the engine is there.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Keyroll {
    /// Goes on with the unfinished rotation, forward unless it had turned back already. One that had ended when its keyroll was
    /// killed is closed, and its outcome told. `None` when there is neither.
    pub async fn resume(
        &self,
        progress: &dyn Progress,
        control: &Control,
    ) -> Result<Option<Outcome>, RotateError> {
        let (journal, lock, damage) = self.open_with_any_trail()?;
        let (mut outcome, damage) = if let Some(rotation) = journal.unfinished()? {
            let damage = damage.map(|broken| going_on(progress, &broken));
            let id = rotation.id.clone();
            let went_on = self.go_on_with(journal, &lock, rotation, progress, control);
            (went_on.await.map_err(|e| still_unfinished(&id, e))?, damage)
        } else {
            // Which is not this command's to finish: it throws data away, and asks for that.
            let open_restore = restore::refusal(&journal.restores()?);
            match (closed(journal, &lock, control)?, damage) {
                (Some(outcome), damage) => (outcome, damage),
                (None, Some(broken)) => return Err(damaged(broken)),
                (None, None) => {
                    return open_restore.map_or(Ok(None), |refusal| Err(refusal.into()));
                }
            }
        };
        outcome.found.extend(damage);
        Ok(Some(outcome))
    }

    /// What a machine does by itself when it comes up: waits until the container engine answers, at most `patience`, and goes on with
    /// the unfinished rotation. `None` when there is none; then nothing is waited for, and nothing is made.
    ///
    /// A stuck rotation is left alone: it needs an operator, and another try could lock an account.
    pub async fn recover(
        &self,
        progress: &dyn Progress,
        control: &Control,
        patience: Duration,
    ) -> Result<Option<Outcome>, RotateError> {
        let state = &self.profile().paths.state;
        if !Journal::exists(state) {
            return Ok(None);
        }
        let journal = Journal::open(state)?;
        if let Some(rotation) = journal.unfinished()? {
            let last = journal.records(&rotation.id)?.pop().map(|r| r.event);
            if let Some(Event::Ended { ending, .. }) = last {
                return outcome::of(&journal, &rotation.id, ending).map(Some);
            }
            let socket = &self.profile().compose.socket;
            let answers = engine_within(socket, patience, progress).await;
            answers.map_err(|e| still_unfinished(&rotation.id, RotateError::Failed(e)))?;
        }
        drop(journal);
        self.resume(progress, control).await
    }

    async fn go_on_with(
        &self,
        journal: Journal,
        lock: &Lock,
        rotation: Rotation,
        progress: &dyn Progress,
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        let identity = self.identity()?;
        let about = About::of(&rotation)?;
        let values = world::unseal(&journal, &identity, &rotation.id, &about)
            .map_err(RotateError::Failed)?;
        let mut writer = journal.take_over(lock)?;
        control.arm(&mut writer);
        let world = recovery::world(about, identity, values, &rotation.id)
            .await
            .map_err(RotateError::Failed)?;
        // What the killed one started must be gone before anything is looked at: it could still change what is seen.
        recovery::end_orphans(&world, &rotation.id, progress)
            .await
            .map_err(RotateError::Failed)?;
        let records = writer.records(&rotation.id)?;
        recovery::start_what_ran(&world, &records, progress)
            .await
            .map_err(RotateError::Failed)?;
        progress.begun(&rotation.id);
        // No reason to stop: the rotation may be stuck for what the restore was to mend.
        if let Some(open) = restore::refusal(&writer.restores()?) {
            progress.doing(&format!("{}; afterwards {}", open.what, open.next));
        }
        // It may have been stuck when its keyroll was killed, and nobody has told.
        let untold = ending::close(&writer, &rotation.id, None)?;
        // Whoever resumes a stuck rotation was told to wait until the application forgets wrong logins.
        let last = records.last().map(|r| &r.event);
        if let Some(Event::Ended { .. }) = last {
            writer.note_wrong_logins(&rotation.id, 0)?;
        }
        let resumed = Event::Resumed {
            by: self.operator.to_string(),
        };
        writer.append(&rotation.id, &resumed, Timestamp::now())?;
        let mut outcome = go_on(Arc::new(writer), rotation.id, world, progress, control).await?;
        outcome.found.extend(untold);
        Ok(outcome)
    }
}

/// Until the engine answers. When a machine comes up, it may not be there yet.
async fn engine_within(
    socket: &Path,
    patience: Duration,
    progress: &dyn Progress,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let Err(error) = Engine::connect(socket).await else {
            return Ok(());
        };
        if begun.elapsed() >= patience {
            return Err(format!("{error}; waited {patience:?}"));
        }
        if !told {
            progress.doing(&format!("waiting for the container engine: {error}"));
            told = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Closes a rotation that had ended when its keyroll was killed; its outcome.
fn closed(
    journal: Journal,
    lock: &Lock,
    control: &Control,
) -> Result<Option<Outcome>, RotateError> {
    let mut writer = journal.take_over(lock)?;
    control.arm(&mut writer);
    let Some(last) = ending::close_last(&writer)? else {
        return Ok(None);
    };
    let mut outcome = outcome::of(&writer, &last.rotation, last.ending)?;
    outcome.found.extend(last.untold);
    Ok(Some(outcome))
}
