//! The engine: a rotation as one durable saga.
//!
//! The problem: a rotation is eight effects on four systems, and no transaction spans them. Each effect can fail, can fail
//! *and have landed*, and the machine can die between any two instructions. The stack must still end wholly old or wholly
//! new.
//!
//! The way: a [`Plan`] of [`Step`]s with exactly one point of no return. What has happened is a [`State`], and one function,
//! [`State::apply`], says which event may follow; it runs before an event is stored and again when a killed rotation is
//! read back, so that both see the same. What to do next is [`decide`], a pure function of the plan's [`Shape`] and the
//! state. Only [`drive()`] does anything: it starts what `decide` says, steps without a dependency on one another side by
//! side, and records each event before it goes on.
//!
//! After a crash, or a call that may have landed, a step is *observed* before it is acted on again: the world is asked,
//! never the memory.

mod decide;
mod drive;
pub mod exam;
mod plan;
mod state;
mod step;

pub use decide::Decision;
pub use decide::Task;
pub use decide::decide;
pub use drive::DriveError;
pub use drive::Limits;
pub use drive::Watcher;
pub use drive::drive;
pub use plan::Plan;
pub use plan::PlanError;
pub use plan::PlanStep;
pub use plan::Shape;
pub use plan::ShapeStep;
pub use state::Illegal;
pub use state::Phase;
pub use state::State;
pub use state::StepState;
pub use step::ActError;
pub use step::BoxFuture;
pub use step::Clock;
pub use step::Compensate;
pub use step::ConfirmError;
pub use step::Observed;
pub use step::Step;
pub use step::StepCx;
pub use step::Stop;
pub use step::UndoError;
