//! Declaring an unfinished rotation to be over.
//!
//! A rotation is stuck when neither set could be reached or proven, and sometimes it cannot be: the admin changed the password in
//! the middle, the volume is gone. Then somebody has to say "it is over, I have put the stack into order by hand", or no other
//! rotation could ever begin. keyroll proves nothing here. It shows what it knows, asks, and keeps every value sealed.

use std::path::PathBuf;

use jiff::Timestamp;
use keyroll_journal::{Ending, Event, Journal, Lock, Rotation, RotationId, Stale, Writer};
use serde::Serialize;

use crate::about::About;
use crate::error::{Code, Refusal, RotateError, still_unfinished};
use crate::history::History;
use crate::in_force::{Holds, in_env_file, in_settings};
use crate::operations::{Control, Keyroll};
use crate::report::{Outcome, Progress, SecretShown, UnfinishedReport};
use crate::trail::going_on;
use crate::world::World;
use crate::{ending, in_force, outcome, recovery, status, trail};

/// What is known of a rotation that is to be abandoned; shown before it is confirmed.
#[derive(Debug, Clone, Serialize)]
pub struct AbandonPlan {
    /// The rotation, and where each step stands.
    pub unfinished: UnfinishedReport,
    /// Its secrets.
    pub secrets: Vec<SecretShown>,
    /// The directory of the state database, where the values are sealed.
    pub state: PathBuf,
    /// The key that opens them.
    pub identity: PathBuf,
    /// How many days a value stays sealed after it was retired.
    pub keep_days: u32,
    /// The backup from before the rotation, once it was made.
    pub backup: Option<PathBuf>,
    /// Worth knowing.
    pub notes: Vec<String>,
}

impl Keyroll {
    /// Declares the unfinished rotation to be over, after `approve` was shown what is known of it. `why` is for the trail.
    ///
    /// What the killed run left is ended first; refused while it goes on. Nothing of the stack is changed. Values stay sealed, and
    /// those that the env file holds become current.
    pub async fn abandon(
        &self,
        rotation: &RotationId,
        why: &str,
        progress: &dyn Progress,
        approve: &(dyn Fn(&AbandonPlan) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        let (journal, lock, damage) = self.open_with_any_trail()?;
        let damage = damage.map(|broken| going_on(progress, &broken));
        let rotation = named(&journal, rotation)?;
        let id = rotation.id.clone();
        let done = self.give_up(journal, &lock, &rotation, why, progress, approve, control);
        let mut outcome = done.await.map_err(|e| still_unfinished(&id, e))?;
        outcome.found.extend(damage);
        Ok(outcome)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what was opened is handed over, once"
    )]
    async fn give_up(
        &self,
        journal: Journal,
        lock: &Lock,
        rotation: &Rotation,
        why: &str,
        progress: &dyn Progress,
        approve: &(dyn Fn(&AbandonPlan) -> bool + Sync),
        control: &Control,
    ) -> Result<Outcome, RotateError> {
        let id = &rotation.id;
        let identity = self.identity()?;
        let about = About::of(rotation)?;
        let mut missed = None;
        let world = match recovery::read_back(&journal, &identity, id, &about).await {
            Ok(world) => Some(world),
            Err(why) => {
                missed = Some(format!(
                    "{why}; what the killed run left in the database is not looked for, its processes on this host are"
                ));
                None
            }
        };
        let mut plan = self.known(&journal, rotation, &about, missed.clone())?;
        let asked = world.as_ref().ok_or(missed.as_deref().unwrap_or_default());
        plan.unfinished.in_force =
            in_force::everywhere(&about, &identity, asked, &journal, id).await;
        if !approve(&plan) || control.stop.requested() {
            return Err(RotateError::NotConfirmed);
        }

        let mut writer = journal.take_over(lock)?;
        control.arm(&mut writer);
        // What goes on could still change what is recorded here as given up.
        let ended = match &world {
            Some(world) => recovery::end_orphans(world, id, progress).await,
            None => recovery::end_processes(&about, id, progress).await,
        };
        ended.map_err(RotateError::Failed)?;
        // Where it was stuck and nobody has told: that comes first.
        let untold = ending::close(&writer, id, None)?;

        let reason = format!("{why} (declared by {})", self.operator);
        let over = Event::Ended {
            ending: Ending::Abandoned,
            reason: Some(reason.clone()),
        };
        History::of(&writer, rotation)?
            .state
            .apply(&over)
            .map_err(|e| RotateError::Failed(e.to_string()))?;
        let mut held = in_env_file(&about, &identity);
        let asked = world.as_ref().ok_or(missed.as_deref().unwrap_or_default());
        held.extend(in_settings(&about, asked).await);
        held.retain(|(_, holds)| *holds == Holds::New);
        let in_force: Vec<String> = held.iter().map(|(fact, _)| fact.name.clone()).collect();
        writer.abandon(id, Some(reason), &in_force, Timestamp::now())?;
        progress.event(&over);

        // It is over from here on; what fails now is told beside.
        let told = ending::close(&writer, id, Some(&self.operator))?;
        let mut outcome = outcome::of(&writer, id, Ending::Abandoned)?;
        outcome.found.extend(untold.into_iter().chain(told));
        outcome.found.extend(missed);
        if let Some(world) = &world {
            outcome.found.extend(remember(world, &writer, id).await);
        }
        Ok(outcome)
    }

    fn known(
        &self,
        journal: &Journal,
        rotation: &Rotation,
        about: &About,
        missed: Option<String>,
    ) -> Result<AbandonPlan, RotateError> {
        let mut notes: Vec<String> = missed.into_iter().collect();
        let history = History::of(journal, rotation)?;
        if history.state.pivot_may_have_landed() {
            notes.push(
                "it is past the point of no return: the new set is in force and proven, and `keyroll resume` has only the rest to do"
                    .to_owned(),
            );
        }
        Ok(AbandonPlan {
            unfinished: status::unfinished_report(rotation, &history),
            secrets: status::secrets(journal, &rotation.id, about)?,
            state: self.profile.paths.state.clone(),
            identity: self.profile.paths.identity.clone(),
            keep_days: self.profile.limits.keep_days,
            backup: trail::backup_of(&history.records).map(|b| b.directory.into()),
            notes,
        })
    }
}

/// The unfinished rotation, if it is the one that was named: nobody gives up another one by mistake.
fn named(journal: &Journal, id: &RotationId) -> Result<Rotation, RotateError> {
    let there = journal.unfinished()?;
    if let Some(rotation) = there.as_ref().filter(|r| r.id == *id) {
        return Ok(rotation.clone());
    }
    let ending = journal.rotation(id)?.ending;
    let ended = ending.map_or_else(String::new, |e| format!(": it ended {e}"));
    let next = there.map_or_else(
        || "no rotation is unfinished".to_owned(),
        |other| format!("{} is the unfinished one", other.id),
    );
    let what = format!("rotation {id} cannot be abandoned{ended}");
    Err(Refusal::new(Code::Selection, what, next).into())
}

/// Remembers containers that go stale by choice, as the commit of a rotation does: they are no drift for the next one. The
/// answer is why that was not possible.
async fn remember(world: &World, writer: &Writer, id: &RotationId) -> Option<String> {
    let stale = match world.stale_by_choice().await {
        Ok(stale) => stale,
        Err(finding) => {
            return Some(format!(
                "{}; a container that is stale by choice may be reported as drift next time",
                world.clean(&finding.to_string())
            ));
        }
    };
    let remembered = stale.into_iter().map(|(service, s)| {
        let stale = s.map(|s| Stale {
            service: s.service,
            container: s.container_id,
            desired: s.desired_hash,
        });
        (service, stale)
    });
    let remembered = writer.remember_stale(id, &remembered.collect());
    remembered.err().map(|e| e.to_string())
}
