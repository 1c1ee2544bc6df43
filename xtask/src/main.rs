//! What a developer would otherwise type by hand.
fn main() {}
