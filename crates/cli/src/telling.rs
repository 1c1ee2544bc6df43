//! What people hear of a run that nobody watched.

use keyroll_rotate::{Ending, Keyroll, Outcome, RotateError};
use serde_json::{Value, json};

use crate::operator;
use crate::output::complain;

/// Tells how a rotation ended. Whether it is heard changes nothing.
pub(crate) async fn ended(keyroll: &Keyroll, result: Result<&Outcome, &RotateError>) {
    let (headline, text, facts) = match result {
        Ok(outcome) => {
            let mut text = format!("rotation {}", outcome.rotation);
            if let Some(reason) = &outcome.reason {
                text = format!("{text}\nbecause {reason}");
            }
            if outcome.ending == Ending::Stuck {
                text = format!(
                    "{text}\n`keyroll show` says what is in force where, and what leads out"
                );
            }
            let facts = json!({"ending": outcome.ending, "rotation": outcome.rotation});
            (outcome.ending.to_string(), text, facts)
        }
        Err(error) => {
            let facts = json!({"error": error.to_string()});
            ("not rotated".to_owned(), error.to_string(), facts)
        }
    };
    tell(keyroll, &headline, &text, facts).await;
}

/// Tells that something waits for a person.
pub(crate) async fn waits(keyroll: &Keyroll, lines: &[String]) {
    if !lines.is_empty() {
        let facts = json!({"waits_for_a_person": lines});
        tell(
            keyroll,
            "something waits for a person",
            &lines.join("\n"),
            facts,
        )
        .await;
    }
}

async fn tell(keyroll: &Keyroll, headline: &str, text: &str, mut facts: Value) {
    let (stack, host) = (&keyroll.profile().name, operator::identify(None).host);
    facts["stack"] = json!(stack);
    facts["host"] = json!(host);
    let subject = format!("keyroll: {stack} on {host}: {headline}");
    for line in keyroll.alert(&subject, text, &facts).await {
        complain(&line);
    }
}
