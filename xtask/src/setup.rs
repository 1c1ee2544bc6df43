//! `cargo xtask setup`: what a bare Debian 12 lacks. Under a second when nothing is missing.

use crate::Result;
use crate::{compose, engine};

/// Sees to an engine and to compose.
pub(crate) fn run() -> Result<()> {
    let engine = engine::ensure()?;
    let compose = compose::ensure()?;
    println!("setup: Docker Engine {engine} and compose {compose} answer");
    Ok(())
}
