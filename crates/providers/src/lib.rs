//! Where secrets are in force.
