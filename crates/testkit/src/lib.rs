//! For tests only: a real stack to rotate, ways to break it, and ways to look at it past keyroll.
//!
//! The problem: keyroll's promises are about things outside of it (what a server accepts, what a container runs, what a file
//! holds after a `kill -9`), so a test is worth something only against real ones, and only if it looks with other eyes than
//! keyroll's. So [`Stack::start`] brings up the reference deployment with compose, in a scratch directory, with secrets made
//! on the spot, beside any other stack; the methods of [`Stack`] ask the database, the panel and the engine directly; and
//! [`Keyroll`] runs the program with an empty environment and a scratch home, to its end or until a test kills it.
//!
//! Nothing here touches a path outside of `target/sandbox` and of the scratch directories, and a stack takes its containers,
//! volume and network with it when it is dropped, also by a panic. What a killed test leaves behind, [`sweep`] removes.
//!
//! Container tests need `cargo xtask setup` and `cargo xtask images`; they begin with [`containers_wanted`].

mod command;
mod container;
mod database;
mod engine;
mod error;
mod fault;
mod front;
mod gate;
mod keyroll;
mod options;
mod panel;
mod port;
mod process;
mod proxy;
mod stack;
mod sweep;
mod tree;
mod wait;

pub use container::Container;
pub use database::DbLogin;
pub use database::Door;
pub use engine::OwnEngine;
pub use error::TestkitError;
pub use fault::Fault;
pub use front::Front;
pub use front::Manner;
pub use gate::containers_wanted;
pub use gate::full_wanted;
pub use keyroll::Keyroll;
pub use keyroll::Run;
pub use keyroll::Running;
pub use options::StackOptions;
pub use panel::LoginReply;
pub use panel::Panel;
pub use panel::RefreshReply;
pub use panel::Tokens;
pub use process::Process;
pub use process::descendants;
pub use stack::Stack;
pub use sweep::remove_project;
pub use sweep::sweep;
pub use wait::eventually;
