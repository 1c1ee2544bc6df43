//! Secret values: how they are held, named, made, hidden and sealed.
//!
//! The problem: a rotation handles the most sensitive bytes of a stack, and every convenience of the language
//! (`Debug`, `Display`, `Serialize`, `Clone` into a log line) is a way to leak them. So a value lives in [`Secret`], which
//! has none of these, is wiped on drop and is compared in constant time. What people and records see instead is a
//! [`Fingerprint`]: keyed, short, and useless to someone who wants to guess the value.

mod fingerprint;
mod format;
mod identity;
mod redact;
mod value;

pub use fingerprint::Fingerprint;
pub use fingerprint::FingerprintKey;
pub use format::Alphabet;
pub use format::Format;
pub use format::FormatError;
pub use identity::Identity;
pub use identity::IdentityError;
pub use identity::Recipients;
pub use identity::Sealed;
pub use redact::Redactor;
pub use value::Secret;
pub use value::percent_encode;
