//! After the point of no return: the trail's record. One that cannot be written is an error, not a warning.

use std::path::Path;
use std::sync::Arc;

use keyroll_audit::system_journal;
use keyroll_journal::{Ending, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};
use serde_json::json;

use crate::steps::names;
use crate::trail;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) world: Arc<World>,
}

impl Step for Trail {
    fn name(&self) -> StepName {
        names::TRAIL.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match trail::find(cx.writer(), cx.rotation().as_str(), Ending::Completed) {
                // Whether the system journal was told is not known: act finds the record, writes no other, and tells it again.
                Ok(Some(_)) => Observed::Overlap,
                Ok(None) => Observed::Before,
                Err(why) => Observed::Unknown(why),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            let socket = Path::new(system_journal::SOCKET);
            let there = trail::find(cx.writer(), cx.rotation().as_str(), Ending::Completed)
                .map_err(ActError::Indeterminate)?;
            if let Some(record) = there {
                let told = trail::tell_again(&record, socket);
                let head = record.head().to_string();
                return Ok(json!({"head": head, "system_journal": told}));
            }
            let rotation = cx.writer().rotation(cx.rotation())?;
            let records = cx.writer().records(cx.rotation())?;
            let now = cx.now();
            let body = trail::rotated(
                &rotation,
                &self.world.about,
                &records,
                Ending::Completed,
                None,
                now,
            );
            let (head, told) =
                trail::append(cx.writer(), body, socket, now).map_err(ActError::Indeterminate)?;
            Ok(json!({"head": head.to_string(), "system_journal": told}))
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            let head = receipt["head"].as_str().unwrap_or_default();
            let where_else = if receipt["system_journal"] == true {
                ", also in the system journal"
            } else {
                ""
            };
            Ok(Evidence::with(
                format!("head {head}{where_else}"),
                receipt.clone(),
            ))
        })
    }
}
