//! A web panel, asked as its users ask it: is it up, does this password log in, does this page want a session, is this token
//! dead.
//!
//! What makes such checks lie:
//!
//! - A 500, a timeout or a gateway's page says nothing about a password, and neither do 423 and 429, which say that the
//!   panel would not even look. All of these are [`HttpUnknown`]; only the statuses that the profile lists
//!   ([`Refusals`]) are refusals.
//! - A page that is served to everybody proves no session: [`Client::page_proves_sessions`].
//! - Wrong logins lock the admin out: [`WrongLoginBudget`].
//! - A token may be refused for its age rather than its key: [`jwt`] signs the claims of a *live* session with another key.
//!
//! The client follows no redirect, uses no proxy, reads no environment variable, and trusts either the system's authorities
//! or one file. Tokens are [`Secret`](keyroll_secret::Secret)s; bodies are never printed.

mod answer;
mod budget;
mod client;
pub mod jwt;
mod login;
mod page;
mod pin;
mod tls;
mod verdict;

pub use answer::Answer;
pub use answer::Body;
pub use answer::HttpUnknown;
pub use answer::InvalidRefusal;
pub use answer::Refusals;
pub use budget::BudgetSpent;
pub use budget::WrongLoginBudget;
pub use client::Client;
pub use client::ClientError;
pub(crate) use client::Parcel;
pub use login::LoginAnswer;
pub use login::LoginSpec;
pub use login::RefreshSpec;
pub use login::SendRefresh;
pub use login::TokenAt;
pub use login::Tokens;
pub use page::Carry;
pub use page::PageAnswer;
pub use page::PageCheck;
pub use page::PageSpec;
pub use pin::Fingerprint;
pub use pin::NoFingerprint;
pub use tls::Tls;
pub use tls::TlsError;
pub(crate) use tls::authorities;
pub use verdict::Verdict;
pub(crate) use verdict::{Question, answers};
