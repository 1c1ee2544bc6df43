//! `cargo xtask demo`: a full rotation on a real stack, from a bare machine.

use crate::Result;

/// Not there yet: it needs the command line of keyroll.
pub(crate) fn run() -> Result<()> {
    Err("the demo needs keyroll's command line, which is not there yet; `cargo xtask up` starts the stack".into())
}
