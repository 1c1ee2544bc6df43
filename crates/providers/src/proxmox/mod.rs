//! Proxmox VE's API tokens.
//!
//! The problem: a token's value is made by the server and shown once. It cannot be chosen, so it cannot be sealed before it
//! exists; and `regenerate`, which gives a token another value in place, kills the old one at once. Without an outage a token is therefore
//! rotated by a second one: made under another id, given every entry of the access control list that the first has, proven, put in
//! force, and only then is the first deleted.
//!
//! Two traps decide how it is checked. `/version` answers whoever is authenticated, so it says nothing about rights: a fresh
//! token with privilege separation passes it and can do nothing else ([`Proxmox::permissions`] compares). And a refusal comes three
//! seconds late with an empty body, so a client with a short limit takes "refused" for "could not look" ([`REFUSAL_TAKES`]).
//!
//! Sources: pve-access-control (`src/PVE/API2/User.pm`, `API2/ACL.pm`), pve-http-server (`AnyEvent.pm`), the API viewer
//! (<https://pve.proxmox.com/pve-docs/api-viewer/>).

mod api;
mod error;
mod permissions;

pub use api::Created;
pub use api::Grant;
pub use api::Proxmox;
pub use api::REFUSAL_TAKES;
pub use api::Token;
pub use api::TokenInfo;
pub use error::ProxmoxError;
pub use permissions::Permissions;
