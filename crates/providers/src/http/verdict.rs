//! What a system says of one credential, where the question is a single request.

use keyroll_secret::Secret;
use reqwest::Method;
use serde_json::Value;

use super::answer::{HttpUnknown, no_verdict};
use super::client::{Client, Parcel};

/// What a system says of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is accepted, with this status.
    Accepted(u16),
    /// It is refused, with this status.
    Refused(u16),
    /// No verdict.
    Unknown(HttpUnknown),
}

/// One request that changes nothing, and how its answer is read.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    /// May hold the credential, so it is never told.
    pub(crate) path: Secret,
    pub(crate) bearer: Option<&'a Secret>,
    pub(crate) json: Option<Value>,
    /// A header of any name that holds a secret.
    pub(crate) header: Option<(&'static str, Secret)>,
    pub(crate) form: Vec<(&'static str, Secret)>,
    /// Whether this status and this body can only come from a system that has accepted the credential.
    pub(crate) accepted: fn(u16, &str) -> bool,
    /// Statuses that mean a refused credential.
    pub(crate) refused: &'a [u16],
}

impl Client {
    /// Asks once.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Verdict {
        let parcel = Parcel {
            json: question.json,
            form: question.form,
            authorization: None,
            bearer: question.bearer,
            cookie: None,
            header: question.header,
        };
        let sent = self.send(question.method, question.path.expose(), parcel);
        let raw = match sent.await {
            Ok(raw) => raw,
            Err(why) => return Verdict::Unknown(why),
        };
        let status = raw.status;
        if (question.accepted)(status, raw.body.text()) {
            return Verdict::Accepted(status);
        }
        if question.refused.contains(&status) {
            return Verdict::Refused(status);
        }
        Verdict::Unknown(if (200..300).contains(&status) {
            let why = "not an answer of this provider; is something else at this address?".into();
            HttpUnknown::Garbage { status, why }
        } else {
            // Where it leads to may hold the credential, as the path does.
            no_verdict(status, raw.retry_after, None)
        })
    }
}

/// A 2xx whose JSON has this at the pointer (RFC 6901).
pub(crate) fn answers(status: u16, body: &str, pointer: &str, is: impl Fn(&Value) -> bool) -> bool {
    (200..300).contains(&status)
        && serde_json::from_str::<Value>(body)
            .is_ok_and(|json| json.pointer(pointer).is_some_and(is))
}
