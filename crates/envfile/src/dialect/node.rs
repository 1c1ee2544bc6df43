//! Node's dotenv: its own pattern from `lib/main.js`, with JavaScript's `\s` and `.` spelled out. Both engines prefer the
//! leftmost match and the first alternative, so that they agree.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::newlines::Normalised;
use super::{Binding, Lines, Quote, Reading, Refusal};
use keyroll_secret::Secret;

/// ECMAScript `\s`.
const SPACES: &str = r"\t\n\x0B\x0C\r \u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";

static LINE: LazyLock<Regex> = LazyLock::new(|| {
    let s = format!("[{SPACES}]");
    Regex::new(&format!(
        r#"(?m)^{s}*(?:export{s}+)?([0-9A-Za-z_.-]+)({s}*={s}*?|:{s}+?)({s}*'(?:\\'|[^'])*'|{s}*"(?:\\"|[^"])*"|{s}*`(?:\\`|[^`])*`|[^#\r\n]+)?{s}*(?:#[^\n\r]*)?$"#
    ))
    .expect("the pattern is constant and tested")
});

pub(super) fn read(source: &str) -> Result<Vec<Binding>, Refusal> {
    let normalised = Normalised::of(source);
    let text = normalised.text();
    let lines = Lines::of(text);
    // They end a line for JavaScript's `^`, `$` and `.`, and for nobody else who reads the file.
    if let Some(at) = text.find(['\u{2028}', '\u{2029}']) {
        return Err(Refusal {
            line: lines.at(at),
            expected: "no Unicode line separator (U+2028, U+2029), which parsers take differently"
                .into(),
        });
    }
    Ok(LINE
        .captures_iter(text)
        .map(|found| {
            let key = found.get(1).expect("not optional");
            let separator = found.get(2).expect("not optional");
            let (from, to) = found.get(3).map_or((0, 0), |value| {
                let trimmed = value.as_str().trim_start_matches(is_space);
                let from = value.end() - trimmed.len();
                (from, from + trimmed.trim_end_matches(is_space).len())
            });
            let value = &text[from..to];
            let quote = surrounding(value);
            let (from, to) = match quote {
                _ if value.is_empty() => (separator.end(), separator.end()),
                Quote::Bare => (from, to),
                _ => (from + 1, to - 1),
            };
            Binding {
                key: key.as_str().to_owned(),
                line: lines.at(key.start()),
                source: normalised.original(from..to),
                quote,
                reading: Reading::Value(decode(value)),
            }
        })
        .collect())
}

fn surrounding(value: &str) -> Quote {
    let quote = match value.as_bytes().first() {
        Some(b'\'') => Quote::Single,
        Some(b'"') => Quote::Double,
        Some(b'`') => Quote::Backtick,
        _ => return Quote::Bare,
    };
    if value.len() >= 2 && value.as_bytes()[value.len() - 1] == value.as_bytes()[0] {
        quote
    } else {
        Quote::Bare
    }
}

/// Takes off matching quotes that begin and end lines, as the original's second pattern does; then `\n` and `\r` if the value
/// began with a double quote.
fn decode(value: &str) -> Secret {
    let bytes = value.as_bytes();
    let mut out = String::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let line_start = at == 0 || bytes[at - 1] == b'\n';
        let close = (line_start && matches!(bytes[at], b'\'' | b'"' | b'`'))
            .then(|| {
                (at + 1..value.len()).rev().find(|end| {
                    bytes[*end] == bytes[at] && (end + 1 == value.len() || bytes[end + 1] == b'\n')
                })
            })
            .flatten();
        if let Some(close) = close {
            out.push_str(&value[at + 1..close]);
            at = close + 1;
        } else {
            let c = value[at..].chars().next().expect("at is inside value");
            out.push(c);
            at += c.len_utf8();
        }
    }
    if value.starts_with('"') {
        out = out.replace("\\n", "\n").replace("\\r", "\r");
    }
    Secret::new(out)
}

/// JavaScript's `trim`: the same characters as its `\s`.
fn is_space(c: char) -> bool {
    matches!(c, '\u{feff}') || (c.is_whitespace() && c != '\u{85}')
}
