//! From a profile to an outcome: the library behind the `keyroll` command.

mod profile;

pub use profile::Profile;
pub use profile::ProfileError;
pub use profile::Source;
