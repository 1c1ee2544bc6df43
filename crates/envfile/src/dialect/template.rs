//! Interpolation: is a text literal, does it refer to other variables, or is it an error?
//!
//! Ported as a classification from compose-go `template/template.go` and python-dotenv `variables.py`.

use super::Reading;
use keyroll_secret::Secret;

/// A `${` that is not followed by a valid reference: compose refuses the whole file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadReference;

/// How compose reads `text` after quotes and escapes are off.
pub(super) fn compose(text: &str) -> Result<Reading, BadReference> {
    let mut literal = String::with_capacity(text.len());
    Ok(if resolve(text, &mut literal)? {
        Reading::Interpolated(Secret::new(text))
    } else {
        Reading::Value(Secret::new(literal))
    })
}

/// Writes what is literal to `out`; true when there is a reference.
fn resolve(text: &str, out: &mut String) -> Result<bool, BadReference> {
    let mut refers = false;
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        match rest.as_bytes().first() {
            Some(b'$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some(b'{') => {
                refers = true;
                rest = &rest[braced(rest)?..];
            }
            Some(c) if name_start(*c) => {
                refers = true;
                rest = rest.trim_start_matches(|c: char| c == '_' || c.is_ascii_alphanumeric());
            }
            // `$` before a digit, a space or the end stays as it is.
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    Ok(refers)
}

/// The length of a valid `{…}` at the start of `text`.
fn braced(text: &str) -> Result<usize, BadReference> {
    let name = text[1..]
        .bytes()
        .take_while(|c| *c == b'_' || c.is_ascii_alphanumeric())
        .count();
    if name == 0 || !name_start(text.as_bytes()[1]) {
        return Err(BadReference);
    }
    let after = &text[1 + name..];
    if after.starts_with('}') {
        return Ok(1 + name + 1);
    }
    let operator = after.strip_prefix(':').unwrap_or(after);
    if !operator.starts_with(['-', '+', '?']) {
        return Err(BadReference);
    }
    // Compose's pattern takes everything up to the last brace of the line, then looks for the one that closes.
    let line = text.split('\n').next().unwrap_or(text);
    let last = line.rfind('}').ok_or(BadReference)?;
    if last < text.len() - operator.len() {
        return Err(BadReference);
    }
    let close = closing(&line[..=last]).unwrap_or(last);
    let default = operator
        .get(1..close - (text.len() - operator.len()))
        .unwrap_or("");
    resolve(default, &mut String::new())?;
    Ok(close + 1)
}

/// The brace that closes the first one, counted as compose counts.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            b'{' => {
                open += 1;
                at += 1; // it skips the character after an opening brace
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn name_start(c: u8) -> bool {
    c == b'_' || c.is_ascii_alphabetic()
}

/// How python-dotenv reads `text` after quotes and escapes are off: `${NAME}` and `${NAME:-default}` refer, also inside
/// single quotes; everything else is literal.
pub(super) fn python(text: &str) -> Reading {
    let refers = text.match_indices("${").any(|(at, _)| {
        let rest = &text[at + 2..];
        match rest.find(['}', ':']) {
            Some(end) if rest[end..].starts_with('}') => true,
            Some(end) => rest[end..].starts_with(":-") && rest[end..].contains('}'),
            None => false,
        }
    });
    let text = Secret::new(text);
    if refers {
        Reading::Interpolated(text)
    } else {
        Reading::Value(text)
    }
}
