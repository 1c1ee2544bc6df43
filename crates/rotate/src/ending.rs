//! What is left to do when a rotation has ended: pending versions retire, and the trail gets its record.

use std::path::Path;

use jiff::Timestamp;
use keyroll_audit::{Record, system_journal};
use keyroll_journal::{Ending, Event, Rotation, RotationId, VersionState, Writer};

use crate::about::{About, Operator};
use crate::error::RotateError;
use crate::{trail, world};

/// A rotation that was closed after the process that ended it had been killed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) rotation: RotationId,
    pub(crate) ending: Ending,
    /// Why the trail has no record of it.
    pub(crate) untold: Option<String>,
}

/// Does what is left to do for a rotation that has ended, once: retires what is pending, and writes the trail. The answer is
/// why the trail could not be written, where that is so. `by` is who abandoned it.
pub(crate) fn close(
    writer: &Writer,
    id: &RotationId,
    by: Option<&Operator>,
) -> Result<Option<String>, RotateError> {
    let rotation = writer.rotation(id)?;
    let records = writer.records(id)?;
    // The last record alone: a stuck rotation that was resumed has not ended.
    let Some((Event::Ended { ending, reason }, ended)) = records.last().map(|r| (&r.event, r.at))
    else {
        return Ok(None);
    };
    let (ending, reason) = (*ending, reason.clone());
    if ending == Ending::Compensated && world::has_pending(writer, id)? {
        writer.discard_pending(id, Timestamp::now())?;
    }
    let word = trail::last_word(writer, id.as_str())?;
    if word.is_some_and(|w| w.is(ending, ended)) {
        return Ok(None);
    }
    let about = About::of(&rotation)?;
    let body = if ending == Ending::Abandoned {
        let by = by.map_or_else(
            // Killed before it could be told, and told by somebody else now: the reason names who it was.
            || keyroll_audit::Operator {
                host: about.operator.host.clone(),
                ..keyroll_audit::Operator::default()
            },
            Into::into,
        );
        let versions = writer.versions_of_rotation(id)?.into_iter();
        let in_force = versions
            .filter(|v| v.state == VersionState::Current && about.is_new(v))
            .map(|v| v.secret)
            .collect();
        trail::abandoned(&rotation, &about, by, reason.unwrap_or_default(), in_force)
    } else {
        trail::rotated(&rotation, &about, &records, ending, reason, ended)
    };
    let socket = Path::new(system_journal::SOCKET);
    Ok(trail::append(writer, body, socket, Timestamp::now())
        .err()
        .map(|why| {
            format!("the trail has no record that rotation {id} ended {ending}: {why}; mend that, then run `keyroll resume`, which writes it")
        }))
}

/// Closes the rotation that ended just before its keyroll was killed, if one did, and says which. Only the last one can be open: a
/// rotation that cannot be closed keeps the next from beginning.
pub(crate) fn close_last(writer: &Writer) -> Result<Option<Closed>, RotateError> {
    let closed = match writer.last_rotation()? {
        Some(Rotation {
            id: rotation,
            ending: Some(ending),
            ended_at: Some(ended),
            ..
        }) => {
            let word = trail::last_word(writer, rotation.as_str())?;
            if word.is_some_and(|w| w.is(ending, ended)) && !world::has_pending(writer, &rotation)?
            {
                None
            } else {
                let untold = close(writer, &rotation, None)?;
                Some(Closed {
                    rotation,
                    ending,
                    untold,
                })
            }
        }
        _ => None,
    };
    if let Some(last) = writer.last_audit()?
        && let Ok(last) = Record::parse(&last)
    {
        trail::tell_again(&last, Path::new(system_journal::SOCKET));
    }
    Ok(closed)
}

/// The same before something new is begun: a record that cannot be written is an error then.
pub(crate) fn settle(writer: &Writer) -> Result<(), RotateError> {
    let untold = close_last(writer)?.and_then(|c| c.untold);
    untold.map_or(Ok(()), |why| Err(RotateError::Failed(why)))
}
