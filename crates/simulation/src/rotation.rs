//! Rotations in a world where everything goes wrong on purpose, and what must hold all the same.
//!
//! The engine, the journal and the plan are those that ship. What is simulated is what they meet: the disk ([`crate::Disk`]), the
//! systems that hold the secrets (`world`), the clock, and the life of the process. A [`Simulator::run`] begins a rotation, lets it meet its
//! faults, and starts keyroll again as often as it dies; then the laws are asked for (`laws`). Everything follows from its seed.
//!
//! The steps are models of the real ones: they look where the real ones look, keep what the real ones keep before they act, and know
//! the world by what it answers. That the real ones do so too is shown on real containers.

mod laws;
mod life;
mod plant;
mod steps;
mod stored;
mod world;

pub use life::Simulator;
pub use life::Summary;
pub use plant::Plant;
