//! Finding a secret inside a text, and writing another one in its place.

use std::ops::Range;

use keyroll_secret::{Secret, percent_encode};
use percent_encoding::percent_decode_str;

/// How a value holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// The whole value is the secret.
    Copy,
    /// The whole value is the secret, percent-encoded.
    EncodedCopy,
    /// As the password of a URL (or as its only credential, before the `@`), percent-encoded where it has to be.
    Url {
        /// Such as `postgresql`; tells a database's URL from that of something else with the same password.
        scheme: String,
    },
    /// As a parameter after the `?` of a URL, percent-encoded where it has to be.
    UrlParameter,
    /// As `password=…` in a libpq or ADO.NET connection string, or another list of names and values.
    Parameter,
}

/// One place of the secret in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) range: Range<usize>,
    pub(crate) how: How,
}

/// What the search made of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Not at all.
    No,
    /// Exactly in these places, in order.
    In(Vec<Place>),
    /// The same text, but so common that it says nothing, under a name that is not a secret's.
    Coincidence,
    /// The same text under a secret's name, but too common to tell a copy from another secret.
    Common,
    /// In a way that is not understood.
    Somehow,
}

/// Looks for `old` in `text`, the value of `key`. `derived`: the key is known to be made from this secret, so that a whole
/// value that equals it is a copy, however common.
pub(crate) fn search(key: &str, text: &str, old: &Secret, derived: bool) -> Held {
    let raw = old.expose();
    if raw.is_empty() {
        return Held::No;
    }
    let distinctive = is_distinctive(raw);
    if text == raw {
        return if derived || distinctive {
            Held::In(vec![Place {
                range: 0..text.len(),
                how: How::Copy,
            }])
        } else if is_named_like_a_secret(key) {
            Held::Common
        } else {
            Held::Coincidence
        };
    }
    if decodes_to(text, raw) {
        return Held::In(vec![Place {
            range: 0..text.len(),
            how: How::EncodedCopy,
        }]);
    }
    let mut places = in_urls(text, raw, distinctive);
    for place in in_parameters(text, raw, distinctive) {
        if places
            .iter()
            .all(|p| p.range.end <= place.range.start || place.range.end <= p.range.start)
        {
            places.push(place);
        }
    }
    places.sort_by_key(|p| p.range.start);
    if has_more(key, text, raw, distinctive, &places) {
        Held::Somehow
    } else if places.is_empty() {
        Held::No
    } else {
        Held::In(places)
    }
}

/// `text` with `new` in each place, in the form of that place; none where `new` cannot stand there.
pub(crate) fn put(text: &str, places: &[Place], new: &Secret) -> Option<Secret> {
    let encoded = new.percent_encoded();
    let longest = new.expose().len().max(encoded.expose().len());
    let mut out = String::with_capacity(text.len() + places.len() * longest);
    let mut at = 0;
    for place in places {
        let value = match place.how {
            How::EncodedCopy | How::Url { .. } | How::UrlParameter => &encoded,
            How::Parameter if new.expose().contains(needs_quoting) => return None,
            How::Copy | How::Parameter => new,
        };
        out.push_str(&text[at..place.range.start]);
        out.push_str(value.expose());
        at = place.range.end;
    }
    out.push_str(&text[at..]);
    Some(Secret::new(out))
}

/// Whether two values are equal for a reason rather than by chance. Weak ones (`postgres`, `changeme`, a host or database name)
/// stand in many places that have nothing to do with the secret.
fn is_distinctive(raw: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| raw.as_bytes().iter().any(kind);
    let digit = has(u8::is_ascii_digit);
    let letter = has(u8::is_ascii_alphabetic);
    let classes = [
        has(u8::is_ascii_lowercase),
        has(u8::is_ascii_uppercase),
        digit,
        has(|b| !b.is_ascii_alphanumeric()),
    ];
    let classes = classes.iter().filter(|c| **c).count();
    raw.len() >= 24 || (raw.len() >= 12 && digit && letter) || (raw.len() >= 8 && classes >= 3)
}

fn is_named_like_a_secret(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    ["PASS", "PWD", "PW", "SECRET", "TOKEN", "CRED", "AUTH"]
        .iter()
        .any(|word| key.contains(word))
        || key.ends_with("KEY")
}

fn decodes_to(text: &str, raw: &str) -> bool {
    text.len() >= raw.len()
        && percent_decode_str(text)
            .decode_utf8()
            .is_ok_and(|decoded| decoded == raw)
}

fn in_urls(text: &str, raw: &str, distinctive: bool) -> Vec<Place> {
    let mut places = Vec::new();
    for (at, separator) in text.match_indices("://") {
        let scheme = text[..at]
            .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'))
            .len();
        let how = How::Url {
            scheme: text[scheme..at].to_owned(),
        };
        let begin = at + separator.len();
        let rest = &text[begin..];
        let authority = rest
            .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
            .map_or(rest, |end| &rest[..end]);
        let userinfo = authority.rfind('@').map(|end| &authority[..end]);
        let colon = rest.find(':').filter(|colon| {
            !rest[..*colon]
                .contains(|c: char| matches!(c, '/' | '?' | '#' | '@') || c.is_whitespace())
        });
        let place = match (userinfo, colon) {
            (Some(info), Some(colon))
                if colon < info.len() && decodes_to(&info[colon + 1..], raw) =>
            {
                Some(colon + 1..info.len())
            }
            // A credential alone, such as a token. A weak one would be a user name like any other.
            (Some(info), None) if distinctive && decodes_to(info, raw) => Some(0..info.len()),
            // Characters that should have been encoded; lenient clients take them.
            (_, Some(colon))
                if raw.contains(['/', '?', '#', '@'])
                    && rest[colon + 1..]
                        .strip_prefix(raw)
                        .is_some_and(|after| after.starts_with('@')) =>
            {
                Some(colon + 1..colon + 1 + raw.len())
            }
            _ => None,
        };
        if let Some(range) = place {
            places.push(Place {
                range: begin + range.start..begin + range.end,
                how,
            });
        }
    }
    places
}

/// `name=value` with a password's name; any name will do for a value that cannot be there by chance.
fn in_parameters(text: &str, raw: &str, distinctive: bool) -> Vec<Place> {
    let mut places = Vec::new();
    for (equals, _) in text.match_indices('=') {
        let before = text[..equals].trim_end_matches(' ');
        let name_at = before
            .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
            .len();
        let name = before[name_at..].to_ascii_lowercase();
        let alone = before[..name_at]
            .chars()
            .next_back()
            .is_none_or(|c| c.is_whitespace() || matches!(c, ';' | ',' | '?' | '&'));
        let is_password = matches!(
            name.as_str(),
            "password" | "pwd" | "passwd" | "pass" | "passphrase"
        );
        if name.is_empty() || !alone || !(is_password || distinctive) {
            continue;
        }
        let token = before
            .rfind(char::is_whitespace)
            .map_or(before, |at| &before[at..]);
        let after = &text[equals + 1..];
        if token.contains("://") && token.contains('?') {
            let end = after
                .find(|c: char| matches!(c, '&' | '#' | '"' | '\'') || c.is_whitespace())
                .unwrap_or(after.len());
            if decodes_to(&after[..end], raw) {
                places.push(Place {
                    range: equals + 1..equals + 1 + end,
                    how: How::UrlParameter,
                });
            }
            continue;
        }
        let value = after.trim_start_matches(' ');
        let begin = text.len() - value.len();
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let skip = usize::from(quote.is_some());
        let Some(rest) = value[skip..].strip_prefix(raw) else {
            continue;
        };
        let rest = match quote {
            Some(quote) => match rest.strip_prefix(quote) {
                Some(rest) => rest,
                None => continue,
            },
            None => rest,
        };
        let ends = rest
            .chars()
            .next()
            .is_none_or(|c| c.is_whitespace() || matches!(c, ';' | ',' | '&'));
        if ends && !raw.contains(needs_quoting) {
            places.push(Place {
                range: begin + skip..begin + skip + raw.len(),
                how: How::Parameter,
            });
        }
    }
    places
}

/// Characters for which the connection strings differ in how they are quoted or escaped.
fn needs_quoting(c: char) -> bool {
    c.is_whitespace() || matches!(c, ';' | ',' | '&' | '\'' | '"' | '\\' | '=')
}

/// Whether `raw` also stands outside `places`. A weak value counts only as a word of its own, with eight characters or more,
/// under a secret's name: inside other words it is nothing but a coincidence.
fn has_more(key: &str, text: &str, raw: &str, distinctive: bool, places: &[Place]) -> bool {
    if !distinctive && (raw.len() < 8 || !is_named_like_a_secret(key)) {
        return false;
    }
    let encoded = percent_encode(raw);
    let outside = |needle: &str| {
        text.match_indices(needle).any(|(at, found)| {
            let inside = places
                .iter()
                .any(|p| p.range.start <= at && at + found.len() <= p.range.end);
            let word = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
            let alone = word(text[..at].chars().next_back())
                && word(text[at + found.len()..].chars().next());
            !inside && (distinctive || alone)
        })
    };
    if outside(raw) || outside(&encoded) {
        return true;
    }
    // Encoded in another way, such as with lower-case hex: more occurrences after decoding than are accounted for.
    percent_decode_str(text)
        .decode_utf8()
        .is_ok_and(|decoded| distinctive && decoded.matches(raw).count() > places.len())
}
