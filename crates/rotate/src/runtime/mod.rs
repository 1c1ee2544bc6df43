//! What runs the consumers.

mod cli;
mod engine;
pub(crate) mod orphans;

pub(crate) use cli::Cli;
pub(crate) use cli::Hashes;
pub(crate) use cli::Service;
pub(crate) use engine::Container;
pub(crate) use engine::Empty;
pub(crate) use engine::Engine;
pub(crate) use engine::Fed;
pub(crate) use engine::Health;
