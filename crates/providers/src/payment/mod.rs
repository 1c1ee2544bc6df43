//! Payment providers: is this key alive, does it look like one, and who signed this event.
//!
//! What makes a new key dangerous is that nobody notices a wrong one until a payment is lost. So before one is put in force it is
//! looked at in two ways: its form ([`form`]: a test key where a live one was, half a key from the clipboard), and a question
//! to the provider's API that changes nothing ([`PaymentKey::check`]). A provider that cannot be reached has said nothing about the key.
//!
//! Webhooks go the other way: the provider signs, the application checks. [`signature`] signs an event as each provider does, for
//! probing the application's endpoint with the current, the previous and a wrong secret.
//!
//! Sources: the providers' documentation, as named at each function.

mod form;
mod key;
mod probe;
mod signature;

pub use form::FormError;
pub use form::Mode;
pub use form::SecretForm;
pub use key::PaymentKey;
pub use probe::Probe;
pub use signature::Scheme;
pub use signature::Signed;
