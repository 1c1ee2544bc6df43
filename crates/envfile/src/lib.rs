//! Env files: lossless editing in the dialects that real parsers speak, and replacing them on disk without a moment in
//! which neither version is there.
//!
//! The problem: there is no such thing as *the* env file format. `PASSWORD=ab#c` is `ab#c` for docker compose and `ab` for
//! Node's dotenv; `'a\\b'` has one backslash for compose v1 and two for v2; `K: v` is a value for compose v2 and a skipped
//! line for v1; one odd character in a name makes compose refuse the whole file. Hand-written rotation scripts edit such
//! files with `sed`, and one with `&` in the new value put the old secret into it.
//!
//! So a file is read here by ports of the parsers themselves ([`Dialect`]). An edit ([`EnvFile::set`]) replaces the bytes of
//! one value, then reads the result with every [reader](Readers) and stands only if each of them sees the new value there
//! and everything else as before. What they read differently is reported ([`Ambiguity`]) and not written.
//!
//! Other keys often hold the same secret, raw or percent-encoded (`DATABASE_URL`):
//! [`EnvFile::replace_embedded`] finds them by value. [`EnvFile::revert`] takes keyroll's values back out of a file that somebody has edited since.
//! [`Staged`] puts the bytes on disk: same directory, same owner, mode, ACL and attributes, synced, renamed, and only over
//! the file that was read.
//!
//! Values appear in no `Debug`, `Display` or error here.

mod ambiguity;
mod attributes;
mod derived;
mod dialect;
mod embed;
mod error;
mod file;
mod missing;
mod replace;
mod revert;
mod view;

pub use ambiguity::Ambiguity;
pub use ambiguity::Seen;
pub use ambiguity::Why;
pub use derived::Derived;
pub use derived::Doubt;
pub use derived::Doubtful;
pub use derived::Embedded;
pub use derived::Scope;
pub use dialect::Dialect;
pub use dialect::Quote;
pub use dialect::Readers;
pub use dialect::Reading;
pub use embed::How;
pub use error::EnvFileError;
pub use file::Change;
pub use file::EnvFile;
pub use missing::Owner;
pub use missing::make_again;
pub use replace::ReplaceError;
pub use replace::Staged;
pub use replace::check_replaceable;
pub use replace::leftovers;
pub use replace::remove_leftovers;
pub use revert::Reverted;
