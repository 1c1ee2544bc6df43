//! New values that somebody else has made, and the ways in which an operator gives them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use keyroll_rotate::{Secret, Stop};

use crate::asking;
use crate::exit;
use crate::output::complain;

/// Where new values come from, and what is asked of them.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "New values from providers")]
pub(crate) struct ValueArgs {
    /// Takes a new value from the first line of a file; `-` is standard input
    #[arg(long, value_name = "SECRET=PATH")]
    pub(crate) value_file: Vec<String>,
    /// Takes a new value from an environment variable
    #[arg(long, value_name = "SECRET=VARIABLE")]
    pub(crate) value_env: Vec<String>,
    /// Asks for a new value on the terminal, without showing it
    #[arg(long, value_name = "SECRET")]
    pub(crate) value_prompt: Vec<String>,
    /// Takes a new value as it is typed here: other users of this host could read it
    #[arg(long, value_name = "SECRET=VALUE")]
    pub(crate) value: Vec<String>,
    /// Does not ask the providers about the new values; for hosts that cannot reach them, and recorded
    #[arg(long)]
    pub(crate) skip_validation: bool,
    /// Lets a test key replace a live one; recorded
    #[arg(long)]
    pub(crate) allow_test_keys: bool,
    /// Opens a grace window where one is open, and drops the value that it was for; recorded
    #[arg(long)]
    pub(crate) replace_grace: bool,
    /// Opens the grace window of this secret although the reason is an incident
    #[arg(long, value_name = "SECRET")]
    pub(crate) allow_grace: Vec<String>,
}

/// Where one value comes from.
#[derive(Debug, Clone)]
pub(crate) enum From {
    File(String),
    Variable(String),
    Typed(Secret),
    Prompt,
}

impl ValueArgs {
    /// Reads them; the error is the exit code.
    pub(crate) fn read(&self, stop: &Stop) -> Result<BTreeMap<String, Secret>, u8> {
        let mut sources = vec![];
        for (flag, all, from) in [
            (
                "--value-file",
                &self.value_file,
                From::File as fn(String) -> From,
            ),
            ("--value-env", &self.value_env, From::Variable),
            ("--value", &self.value, |text| {
                From::Typed(Secret::new(text))
            }),
        ] {
            for text in all {
                let Some((name, rest)) = text.split_once('=') else {
                    // What it is, nobody knows: it may be the value itself.
                    complain(&format!("{flag}: expected SECRET=…, and there is no `=`"));
                    return Err(exit::USAGE);
                };
                sources.push((name.to_owned(), from(rest.to_owned())));
            }
        }
        let prompts = self.value_prompt.iter();
        sources.extend(prompts.map(|name| (name.clone(), From::Prompt)));
        read(sources, stop)
    }
}

/// Reads values by the names of their secrets; the error is the exit code.
pub(crate) fn read(
    sources: Vec<(String, From)>,
    stop: &Stop,
) -> Result<BTreeMap<String, Secret>, u8> {
    let mut values = BTreeMap::new();
    let inputs = sources
        .iter()
        .filter(|(_, from)| matches!(from, From::File(p) if p == "-"));
    if inputs.count() > 1 {
        complain("standard input holds one value, and is named for several");
        return Err(exit::USAGE);
    }
    for (name, from) in sources {
        let value = one(&name, from, stop).map_err(|why| {
            complain(&format!("{name}: {why}; nothing was changed"));
            exit::USAGE
        })?;
        if values.insert(name.clone(), value).is_some() {
            complain(&format!(
                "{name}: two values were given; nothing was changed"
            ));
            return Err(exit::USAGE);
        }
    }
    Ok(values)
}

fn one(name: &str, from: From, stop: &Stop) -> Result<Secret, String> {
    match from {
        From::Typed(value) => {
            complain(&format!(
                "{name}: its value was typed as an argument: other users of this host could have read it, and the shell may keep it in its history; a file or standard input is safer"
            ));
            Ok(value)
        }
        From::Variable(variable) => match std::env::var(&variable) {
            Ok(value) => Ok(Secret::new(value)),
            Err(_) => Err(format!(
                "the environment variable {variable} is not set to a text"
            )),
        },
        From::File(path) => {
            let mut text = zeroize::Zeroizing::new(String::new());
            if path == "-" {
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|e| format!("standard input: {e}"))?;
            } else {
                *text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            }
            line(&text).ok_or_else(|| format!("{path}: expected one line with the value alone"))
        }
        From::Prompt => {
            if !std::io::stdin().is_terminal() {
                return Err("there is no terminal to ask on".into());
            }
            let question = format!("new value of {name} (not shown): ");
            asking::ask_hidden(&question, stop).ok_or_else(|| "no value was typed".to_owned())
        }
    }
}

/// The one line of a text, without its end.
fn line(text: &str) -> Option<Secret> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.is_empty() && !text.contains('\n')).then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line_and_nothing_else() {
        for (text, value) in [
            ("sk_live_x", Some("sk_live_x")),
            ("sk_live_x\n", Some("sk_live_x")),
            ("sk_live_x\r\n", Some("sk_live_x")),
            (" sk_live_x", Some(" sk_live_x")),
            ("", None),
            ("\n", None),
            ("sk_live_x\n\n", None),
            ("PAYSTACK=a\nSTRIPE=b\n", None),
        ] {
            let read = line(text);
            assert_eq!(read.as_ref().map(Secret::expose), value, "{text:?}");
        }
    }

    #[test]
    fn a_value_is_given_once_and_by_one_way() {
        let typed = |name: &str| (name.to_owned(), From::Typed(Secret::new("x")));
        let stop = Stop::default();
        assert!(read(vec![typed("A"), typed("B")], &stop).is_ok());
        assert_eq!(
            read(vec![typed("A"), typed("A")], &stop).err(),
            Some(exit::USAGE)
        );
        let input = |name: &str| (name.to_owned(), From::File("-".into()));
        assert_eq!(
            read(vec![input("A"), input("B")], &stop).err(),
            Some(exit::USAGE)
        );
    }
}
