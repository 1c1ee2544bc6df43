//! Where secrets are in force.
//!
//! The problem: a secret is in force where somebody checks it, not where it is written down. A PostgreSQL role accepts one
//! password whatever the env file says, and a panel accepts sessions that were opened long before. So this crate asks the
//! place itself, over the path a consumer uses, and it keeps three answers apart that scripts mix up: accepted, refused, and
//! **could not look**. A server that is starting up, a full connection table, a rate limit or a 500 say nothing about a
//! credential; they are `Unknown`, with what they mean, and never "wrong password".
//!
//! A check that cannot fail proves nothing either (`trust` lines, pages that anybody may see). Each kind of check here has
//! its negative control beside it: [`postgres::proves_passwords`], [`http::Client::page_proves_sessions`], and the wrong
//! login counted by [`http::WrongLoginBudget`].
//!
//! Acts say what is certain: not applied, or indeterminate (the answer to a COMMIT was lost; observe before anything else).

#![expect(
    clippy::doc_markdown,
    reason = "PostgreSQL, SASLprep and StoredKey are names, not code"
)]

pub mod alert;
pub mod http;
pub mod payment;
pub mod postgres;
pub mod proxmox;
mod stored_hash;
mod words;

pub use stored_hash::is_hash_of;
