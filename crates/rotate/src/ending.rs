//! What is left to do when a rotation has ended: pending versions retire, and the trail gets its record.

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{Body, Record, system_journal};
use keyroll_journal::{Ending, Event, RotationId, Writer};

use crate::about::About;
use crate::error::RotateError;
use crate::{trail, world};

/// Does what is left to do for a rotation that has ended, once: retires what is pending, and writes the trail.
pub(crate) fn close(writer: &Writer, id: &RotationId) -> Result<(), RotateError> {
    let rotation = writer.rotation(id)?;
    let records = writer.records(id)?;
    let Some((ending, reason)) = records.iter().rev().find_map(|r| match &r.event {
        Event::Ended { ending, reason } => Some((*ending, reason.clone())),
        _ => None,
    }) else {
        return Ok(());
    };
    if ending == Ending::Compensated && world::has_pending(writer, id)? {
        writer.discard_pending(id, Timestamp::now())?;
    }
    if trail::find(writer, id.as_str(), ending)
        .map_err(RotateError::Failed)?
        .is_none()
    {
        let now = Timestamp::now();
        let body = trail::rotated(
            &rotation,
            &About::of(&rotation)?,
            &records,
            ending,
            reason,
            now,
        );
        trail::append(writer, body, Path::new(system_journal::SOCKET), now)
            .map_err(RotateError::Failed)?;
    }
    Ok(())
}

/// Closes rotations that ended just before their keyroll was killed.
pub(crate) fn settle(writer: &Writer) -> Result<(), RotateError> {
    let lines = writer.audit()?;
    let told: Vec<String> = lines
        .iter()
        .filter_map(|line| match Record::parse(line).ok()?.body() {
            Body::Rotation(r) => Some(r.rotation.clone()),
            Body::Abandoned(a) => Some(a.rotation.clone()),
            _ => None,
        })
        .collect();
    for rotation in writer.rotations()? {
        if rotation.ending.is_some() && !told.contains(&rotation.id.to_string()) {
            close(writer, &rotation.id)?;
        }
    }
    Ok(())
}
