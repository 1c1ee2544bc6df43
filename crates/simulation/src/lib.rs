//! A machine whose disk loses power on demand, and the real `SQLite` running on it.
//!
//! The problem: keyroll's promise is about crashes. An intent is on the disk before the act, whatever happens to the
//! machine in between; but a test that kills a real process cannot take back what the kernel has already buffered, and
//! nobody pulls a plug a hundred thousand times. The usual way out is a mock of the journal, and it is wrong in both
//! directions. A mock is kinder than the real one: its commit is one step, so it never dies between the log and its
//! sync, never finds the disk full halfway through a checkpoint, never is told "failed" of a write that landed. And a
//! mock is harsher: it loses what the real one would recover from its write-ahead log, and sends people to fix what is
//! not broken. So the journal stays the real one, and what is simulated lies below it, where the rules are few and
//! written down: what was synced survives, what was not may survive in any combination.
//!
//! A [`Disk`] is one machine's files. A [`Vfs`] is one process on it, and hands the disk to `SQLite`. [`Faults`] decide
//! what becomes of each operation: it fails, it is done and yet reported as failed, or the machine stops just before or
//! after it. Operations are counted, so a test can stop at each in turn and miss none. [`Disk::kill`] is then the death
//! of the process, [`Disk::lose_power`] that of the machine.
//!
//! Everything is decided by seeds: the same calls with the same seed end the same way, which turns "failed once in a
//! night" into a test.

mod disk;
mod faults;
mod file;
mod locks;
mod random;
pub mod rotation;
mod vfs;

pub use disk::Disk;
pub use disk::DiskError;
pub use disk::Done;
pub use disk::Handle;
pub use disk::Opening;
pub use disk::Process;
pub use faults::Failure;
pub use faults::Faults;
pub use faults::Kind;
pub use faults::Operation;
pub use faults::Verdict;
pub use faults::at;
pub use faults::full_from;
pub use faults::now_and_then;
pub use locks::Level;
pub use random::Random;
pub use vfs::SharedDisk;
pub use vfs::Vfs;
pub use vfs::seed_sqlite;
