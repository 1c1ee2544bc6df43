//! The durable write-ahead record of rotations.
