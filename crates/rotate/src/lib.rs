//! Profile to plan to outcome.
