//! Compose v1: a port of python-dotenv 0.21's `parser.py`. A line that it cannot parse is skipped with a warning, so it
//! never refuses a file; it loses keys instead.

use super::newlines::Normalised;
use super::{Binding, Lines, Quote, Reading, template};

pub(super) fn read(source: &str) -> Vec<Binding> {
    let normalised = Normalised::of(source);
    let text = normalised.text();
    let lines = Lines::of(text);
    let mut reader = Reader { text, at: 0 };
    let mut found = Vec::new();
    while reader.at < text.len() {
        match reader.binding() {
            Some(Some(seen)) => found.push(Binding {
                key: seen.key.to_owned(),
                line: lines.at(seen.begin),
                source: normalised.original(seen.from..seen.to),
                quote: seen.quote,
                reading: seen.reading,
            }),
            Some(None) => {}
            None => reader.skip_line(),
        }
    }
    found
}

struct Seen<'a> {
    key: &'a str,
    begin: usize,
    from: usize,
    to: usize,
    quote: Quote,
    reading: Reading,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn trim(&mut self, what: fn(char) -> bool) {
        self.at = self.text.len() - self.rest().trim_start_matches(what).len();
    }

    fn skip_line(&mut self) {
        self.at += self
            .rest()
            .find('\n')
            .map_or(self.rest().len(), |at| at + 1);
    }

    /// One statement: `Some(None)` for a comment or the end, `None` for an error.
    #[allow(clippy::option_option)] // the three outcomes of the original, close to its shape
    fn binding(&mut self) -> Option<Option<Seen<'a>>> {
        self.trim(is_space);
        if self.rest().is_empty() {
            return Some(None);
        }
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with(is_blank)
        {
            self.at += "export".len();
            self.trim(is_blank);
        }
        let begin = self.at;
        let key = self.key()?;
        let key_end = self.at;
        self.trim(is_blank);
        let mut seen = Seen {
            key: key.unwrap_or_default(),
            begin,
            from: key_end,
            to: key_end,
            quote: Quote::Bare,
            reading: Reading::Inherited,
        };
        if self.rest().starts_with('=') {
            self.at += 1;
            let after_separator = self.at;
            self.trim(is_blank);
            (seen.from, seen.to, seen.quote, seen.reading) = self.value(after_separator)?;
        }
        self.end_of_statement()?;
        Some(key.is_some().then_some(seen))
    }

    /// `Some(None)` before a comment.
    #[allow(clippy::option_option)]
    fn key(&mut self) -> Option<Option<&'a str>> {
        let rest = self.rest();
        if rest.starts_with('#') {
            return Some(None);
        }
        let (from, to, skip) = if let Some(quoted) = rest.strip_prefix('\'') {
            let end = quoted.find('\'').filter(|end| *end > 0)? + 1;
            (1, end, end + 1)
        } else {
            let end = rest
                .find(|c: char| c == '=' || c == '#' || is_space(c))
                .unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            (0, end, end)
        };
        self.at += skip;
        Some(Some(&rest[from..to]))
    }

    fn value(&mut self, after_separator: usize) -> Option<(usize, usize, Quote, Reading)> {
        let rest = self.rest();
        let (quote, escapes) = match rest.as_bytes().first() {
            Some(b'\'') => (Quote::Single, "\\'"),
            Some(b'"') => (Quote::Double, "\\'\"abfnrtv"),
            _ => {
                let line = rest.split('\n').next().unwrap_or(rest);
                let content = before_comment(line).trim_end_matches(is_space);
                let from = if content.is_empty() {
                    after_separator
                } else {
                    self.at
                };
                self.at += line.len();
                let to = from + content.len();
                return Some((from, to, Quote::Bare, template::python(content)));
            }
        };
        let end = closing(rest)?;
        let from = self.at + 1;
        let to = self.at + end;
        self.at += end + 1;
        let content = unescape(&self.text[from..to], escapes);
        Some((from, to, quote, template::python(&content)))
    }

    fn end_of_statement(&mut self) -> Option<()> {
        self.trim(is_blank);
        if self.rest().starts_with('#') {
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
        if self.rest().is_empty() {
            return Some(());
        }
        self.at += self.rest().starts_with('\n').then_some(1)?;
        Some(())
    }
}

/// An unquoted value ends at the first `#` that follows white space.
fn before_comment(line: &str) -> &str {
    line.match_indices('#')
        .find(|(at, _)| line[..*at].ends_with(is_space))
        .map_or(line, |(at, _)| &line[..at])
}

/// Where the value that begins with a quote closes. As the original's pattern backtracks: without an unescaped quote, the last
/// escaped one closes, and its backslash belongs to the value.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mark = bytes[0];
    let mut last_escaped = None;
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == b'\\' && bytes.get(at + 1) == Some(&mark) {
            last_escaped = Some(at + 1);
            at += 2;
            continue;
        }
        if bytes[at] == mark {
            return Some(at);
        }
        at += 1;
    }
    last_escaped
}

fn unescape(text: &str, escapes: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next) if c == '\\' && escapes.contains(*next) => {
                out.push(match next {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0C',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0B',
                    other => *other,
                });
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// Python's `str.isspace`, which `\s` and `strip` go by: Unicode's white space and four more control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1C'..='\x1F').contains(&c)
}

/// `[^\S\r\n]`
fn is_blank(c: char) -> bool {
    is_space(c) && c != '\n' && c != '\r'
}
