//! A rotation as its records tell it: what was written, and what the engine makes of it.

use keyroll_journal::{Journal, Record, Rotation};
use keyroll_saga::{Shape, State};

use crate::about::About;
use crate::error::RotateError;
use crate::steps;

/// Read once, for whoever tells of it or goes on from it.
pub(crate) struct History {
    pub(crate) about: About,
    pub(crate) records: Vec<Record>,
    pub(crate) shape: Shape,
    pub(crate) state: State,
}

impl History {
    /// The error is records that contradict one another, or the plan.
    pub(crate) fn of(journal: &Journal, rotation: &Rotation) -> Result<Self, RotateError> {
        let about = About::of(rotation)?;
        let records = journal.records(&rotation.id)?;
        let shape = steps::shape(&about);
        let state = State::replay(&shape, records.iter().map(|r| &r.event))
            .map_err(|e| RotateError::Failed(e.to_string()))?;
        Ok(Self {
            about,
            records,
            shape,
            state,
        })
    }
}
