//! Stacks run with docker compose: what runs is asked of the engine, what should run of the stack's own `docker compose`.
//!
//! A rotation's way through this module: [`Engine::connect`], [`Project::discover`] (the running containers' labels against
//! the profile), [`Cli::connect`], [`Cli::drift`] and [`sickness`] (is it fit to be rotated), [`consumers`] (who has the
//! value, by value), [`Cli::read_env`] (compose judges the new env file), [`Cli::recreate`], [`Engine::wait_healthy`],
//! [`compare_env`] (does each container have what it should have).

mod child;
mod cli;
mod compare;
mod consumers;
mod container;
mod drift;
mod engine;
mod error;
mod exec;
mod exec_stream;
mod judge;
mod labels;
mod leftovers;
mod logs;
mod order;
mod project;
mod recreate;
mod resolved;
mod sickness;
mod v1;
mod wait;

pub use cli::Cli;
pub use cli::Compose;
pub use cli::Surroundings;
pub use compare::Difference;
pub use compare::DifferenceKind;
pub use compare::compare_env;
pub use consumers::Consumer;
pub use consumers::Form;
pub use consumers::NotSearched;
pub use consumers::Place;
pub use consumers::SeenIn;
pub use consumers::Uses;
pub use consumers::consumers;
pub use consumers::form_of;
pub use container::Container;
pub use container::Health;
pub use container::Published;
pub use container::Restart;
pub use container::State;
pub use drift::Drift;
pub use drift::DriftKind;
pub use drift::StaleByChoice;
pub use engine::Engine;
pub use error::ActError;
pub use error::CliError;
pub use error::EngineError;
pub use exec::Exec;
pub use exec::ExecError;
pub use exec::ExecOutcome;
pub use exec::ExecOutput;
pub use exec::NoInput;
pub use exec_stream::ExecStream;
pub use logs::LogLine;
pub use project::DiscoverError;
pub use project::Project;
pub use project::Wanted;
pub use recreate::MovedImage;
pub use recreate::PointedBack;
pub use recreate::Recreate;
pub use recreate::Recreated;
pub use resolved::Mounted;
pub use resolved::MountedFrom;
pub use resolved::Resolved;
pub use resolved::Service;
pub use sickness::Sick;
pub use sickness::Why;
pub use sickness::sickness;
pub use wait::NotHealthy;
pub use wait::WaitError;
pub use wait::Waiting;
