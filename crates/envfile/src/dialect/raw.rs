//! `docker run --env-file` and compose's `format: raw`: a port of docker/cli's `kvfile`. What follows the first `=` is the
//! value, quotes and trailing spaces included.

use super::{Binding, Quote, Reading, Refusal, start};
use keyroll_secret::Secret;

pub(super) fn read(text: &str) -> Result<Vec<Binding>, Refusal> {
    let mut found = Vec::new();
    let mut at = start(text);
    for (number, whole) in text[at..].split_inclusive('\n').enumerate() {
        let content = whole.strip_suffix('\n').unwrap_or(whole);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let line = content.trim_start();
        let begin = at + content.len() - line.len();
        at += whole.len();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refuse = |expected: &str| {
            Err(Refusal {
                line: number + 1,
                expected: expected.into(),
            })
        };
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (line, None),
        };
        if key.is_empty() {
            return refuse("a name before `=`");
        }
        if key.contains([' ', '\t']) {
            return refuse("a name without spaces (and without `export`) before `=`");
        }
        let from = begin + key.len() + usize::from(value.is_some());
        found.push(Binding {
            key: key.to_owned(),
            line: number + 1,
            source: from..from + value.map_or(0, str::len),
            quote: Quote::Bare,
            reading: value.map_or(Reading::Inherited, |v| Reading::Value(Secret::new(v))),
        });
    }
    Ok(found)
}
