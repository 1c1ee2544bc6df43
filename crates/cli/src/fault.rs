//! Fault injection for tests of recovery: kills this process with SIGKILL around a commit of the journal.
//!
//! Built with the feature `fault-injection` only. `KEYROLL_KILL=before:7` or `after:7` names the seventh commit.

use std::env;
use std::sync::Arc;

use keyroll_rotate::Moment;

/// The hook that the environment asks for.
pub(crate) fn hook() -> Option<Arc<dyn Fn(Moment) -> bool + Send + Sync>> {
    let wanted = env::var("KEYROLL_KILL").ok()?;
    Some(Arc::new(move |moment| {
        let name = match moment {
            Moment::Before(n) => format!("before:{n}"),
            Moment::After(n) => format!("after:{n}"),
        };
        if name == wanted {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        true
    }))
}
