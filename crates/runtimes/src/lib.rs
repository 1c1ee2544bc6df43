//! Who consumes secrets: container runtimes.
//!
//! The problem: a secret is in force in a process's environment, which was copied when its container was made. Editing the
//! env file changes nothing there, `restart` changes nothing there, and a container that looks healthy may run the old value
//! for weeks. So this crate asks the engine what each running container really has, has the stack's own `docker compose` say
//! what it should have, finds the consumers of a secret by its value, recreates exactly those, and waits by the engine's
//! events.
//!
//! Three things are kept apart that scripts mix up. What could not be looked at is an error ([`compose::EngineError`],
//! [`compose::CliError`]), never "unchanged". An act that failed may have landed ([`compose::ActError::Indeterminate`]). And
//! a client that was killed leaves commands behind, inside containers too: [`orphans`] finds and ends them.
//!
//! Values travel as [`keyroll_secret::Secret`]; no error holds text of others that was not cleaned by the caller's
//! [`keyroll_secret::Redactor`]. Everything is async on tokio, and every call has a time limit.

pub mod compose;
pub mod orphans;
