//! The tamper-evident trail.
