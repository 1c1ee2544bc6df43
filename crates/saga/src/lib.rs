//! The engine: plan, state, decide, drive.
