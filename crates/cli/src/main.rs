//! Rotates the secrets of a live compose stack in place.
fn main() {}
