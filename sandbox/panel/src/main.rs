//! A small real web application to rotate.
fn main() {}
