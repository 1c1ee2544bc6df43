//! Compose v2 and v5: a port of compose-go's `dotenv/parser.go`.
//!
//! Stricter in two places, where compose goes on but what it makes cannot be given to a container: a value without a name
//! (`=x`), and a bare name at the very end without a line break (which compose takes for a value without a name).

use std::ops::Range;

use super::{Binding, Lines, Quote, Reading, Refusal, start, template};
use keyroll_secret::Secret;

pub(super) fn read(text: &str) -> Result<Vec<Binding>, Refusal> {
    let mut parser = Parser {
        text,
        at: start(text),
        lines: Lines::of(text),
        found: Vec::new(),
    };
    while parser.skip_to_statement() {
        parser.statement()?;
    }
    Ok(parser.found)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    lines: Lines,
    found: Vec<Binding>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn refuse<T>(&self, at: usize, expected: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal {
            line: self.lines.at(at),
            expected: expected.into(),
        })
    }

    /// Skips white space and comment lines; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return !rest.is_empty();
            }
            match rest.find('\n') {
                Some(newline) => self.at += newline,
                None => return false,
            }
        }
    }

    fn trim_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(is_blank).len();
    }

    fn statement(&mut self) -> Result<(), Refusal> {
        let rest = self.rest();
        // Go's `^export\s+`: its `\s` is ASCII, and takes line breaks.
        if let Some(after) = rest.strip_prefix("export")
            && after.starts_with(['\t', '\n', '\x0C', '\r', ' '])
        {
            self.at += "export".len();
            self.trim_blanks();
        }
        let begin = self.at;
        let Some((end, separator)) = self.key_end()? else {
            return self.refuse(
                begin,
                "`=`, or a line break after a name that stands alone (at the end of the file, docker compose takes the name for a value)",
            );
        };
        let key = self.text[begin..end].trim_end();
        if key.contains(' ') {
            return self.refuse(begin, "a name without spaces before `=`");
        }
        self.at = end + 1;
        let line = self.lines.at(begin);
        if separator == '\n' {
            self.trim_blanks();
            if !key.is_empty() {
                let after = begin + key.len();
                self.push(key, line, after..after, Quote::Bare, Reading::Inherited);
            }
            return Ok(());
        }
        if key.is_empty() {
            return self.refuse(begin, "a name before `=`");
        }
        let after_separator = self.at;
        self.trim_blanks();
        match self.rest().as_bytes().first() {
            Some(b'\'') => self.quoted(key, line, '\'', Quote::Single),
            Some(b'"') => self.quoted(key, line, '"', Quote::Double),
            _ => self.bare(key, line, after_separator),
        }
    }

    /// Where the name ends, and with what: `=`, `:` or a line break.
    fn key_end(&self) -> Result<Option<(usize, char)>, Refusal> {
        for (i, c) in self.rest().char_indices() {
            match c {
                '=' | ':' | '\n' => return Ok(Some((self.at + i, c))),
                '_' | '.' | '-' | '[' | ']' => {}
                c if is_blank(c) || c.is_alphabetic() || c.is_numeric() => {}
                // The character is not shown: after a stray quote this may be the middle of a value.
                _ => {
                    return self.refuse(
                        self.at + i,
                        "a name of letters, digits and `_ . - [ ]`, then `=`; any other character (also one left over after a closing quote) makes docker compose refuse the whole file",
                    );
                }
            }
        }
        Ok(None)
    }

    fn bare(&mut self, key: &str, line: usize, after_separator: usize) -> Result<(), Refusal> {
        let begin = self.at;
        let rest = self.rest();
        let (content, consumed) = match rest.find('\n') {
            Some(newline) => (&rest[..newline], newline + 1),
            None => (rest, rest.len()),
        };
        let content = content.split(" #").next().unwrap_or(content).trim_end();
        let reading = self.resolve(begin, content)?;
        self.at += consumed;
        // An empty value is put right after the separator: the blanks that were skipped may include a `\r`.
        let source = if content.is_empty() {
            after_separator..after_separator
        } else {
            begin..begin + content.len()
        };
        self.push(key, line, source, Quote::Bare, reading);
        Ok(())
    }

    fn quoted(&mut self, key: &str, line: usize, mark: char, quote: Quote) -> Result<(), Refusal> {
        let begin = self.at + 1;
        let mut content = String::with_capacity(self.rest().len());
        let mut escaped = false;
        for (i, c) in self.text[begin..].char_indices() {
            if c == mark && !escaped {
                let reading = if quote == Quote::Double {
                    self.resolve(begin, &unescape(&content))?
                } else {
                    Reading::Value(Secret::new(content))
                };
                self.push(key, line, begin..begin + i, quote, reading);
                self.at = begin + i + 1;
                return Ok(());
            }
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && c != mark {
                content.push('\\');
            }
            escaped = false;
            content.push(c);
        }
        self.refuse(begin, format!("a closing {mark} for this value"))
    }

    fn resolve(&self, at: usize, content: &str) -> Result<Reading, Refusal> {
        template::compose(content).or_else(|_| {
            self.refuse(
                at,
                "`${NAME}` or `${NAME:-default}` after `${`, or `$$` for a literal dollar sign",
            )
        })
    }

    fn push(
        &mut self,
        key: &str,
        line: usize,
        source: Range<usize>,
        quote: Quote,
        reading: Reading,
    ) {
        self.found.push(Binding {
            key: key.to_owned(),
            line,
            source,
            quote,
            reading,
        });
    }
}

/// Go dotenv's `isSpace`: white space that does not end a line.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0B' | '\x0C' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// Go dotenv's `expandEscapes`: `\a \b \f \n \r \t \v \" \\`, `\$` to `$$` (still to be interpolated), and octal `\0ooo`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let taken = match c {
            'a' => escape(&mut out, '\x07'),
            'b' => escape(&mut out, '\x08'),
            'f' => escape(&mut out, '\x0C'),
            'n' => escape(&mut out, '\n'),
            'r' => escape(&mut out, '\r'),
            't' => escape(&mut out, '\t'),
            'v' => escape(&mut out, '\x0B'),
            '"' | '\\' => escape(&mut out, c),
            '$' => {
                out.push_str("$$");
                1
            }
            '0' => octal(&mut out, rest),
            _ => {
                out.push('\\');
                0
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

fn escape(out: &mut String, c: char) -> usize {
    out.push(c);
    1
}

/// `rest` begins with the `0` of `\0`. What is no octal number under 256 loses its `0` and keeps the backslash, as in Go.
fn octal(out: &mut String, rest: &str) -> usize {
    let digits = rest[1..]
        .bytes()
        .take(3)
        .take_while(u8::is_ascii_digit)
        .count();
    let number = &rest[1..=digits];
    match u8::from_str_radix(number, 8) {
        Ok(value) if digits == 3 => out.push(char::from(value)),
        _ => {
            out.push('\\');
            out.push_str(number);
        }
    }
    1 + digits
}
