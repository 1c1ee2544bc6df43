//! Sending a signed event to the application's own endpoint, to see whose signature it takes.

use std::time::{SystemTime, UNIX_EPOCH};

use keyroll_secret::Secret;
use reqwest::Method;
use serde_json::json;

use super::signature::Scheme;
use crate::http::{Client, Question, Verdict};

/// An event that no handler acts on.
#[derive(Debug, Clone)]
pub struct Probe<'a> {
    /// The endpoint's path.
    pub path: &'a str,
    /// The event's type, which has to be one that nothing is done for.
    pub event: &'a str,
    /// Its id. An endpoint that has seen an id may take it for a repetition and answer without a look at it, so each is sent once.
    pub id: &'a str,
    /// Statuses with which the endpoint refuses a signature.
    pub refused: &'a [u16],
}

impl Scheme {
    /// Sends a probe, signed now with this secret. Marked in its body as a probe; any 2xx counts as accepted.
    pub async fn probe(self, client: &Client, probe: &Probe<'_>, secret: &Secret) -> Verdict {
        // `event` and `type`: providers differ in what they call it.
        let body = json!({"event": probe.event, "type": probe.event, "id": probe.id, "keyroll_probe": true, "data": {}});
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        // What is sent is this value as it is written here: the HTTP client writes it by the same library.
        let signed = self.sign(secret, body.to_string().as_bytes(), now);
        client
            .ask(Question {
                method: Method::POST,
                path: Secret::new(probe.path),
                bearer: None,
                json: Some(body),
                header: Some((signed.header, signed.value)),
                form: vec![],
                accepted: |status, _| (200..300).contains(&status),
                refused: probe.refused,
            })
            .await
    }
}
