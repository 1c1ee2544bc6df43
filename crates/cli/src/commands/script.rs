//! What the runbook's scripts call: the arguments of a script, handed over where no other user of the host can read them.
//!
//! `rotate-integration-secrets.sh --paystack-secret VALUE` is what a runbook shows, so the value stands in the arguments of that one command.
//! To hand it on as an argument would show it once more, for as long as the rotation takes. So a script writes its arguments into a
//! pipe, each ended by a zero byte, and gives keyroll the pipe's number. Its flags are made from the profile: a secret
//! `PAYSTACK_SECRET` has `--paystack-secret`, `--paystack-secret-file` and `--paystack-secret-env`.

use std::fs::File;
use std::io::Read as _;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueEnum};
use keyroll_rotate::{Profile, Reason, Request, Secret, Stop};
use zeroize::Zeroizing;

use crate::args::Global;
use crate::commands::{fail, finish, mode, open};
use crate::exit;
use crate::output::{Speaker, complain};
use crate::stopping::control;
use crate::values::{From, read};

/// The group that `rotate-production-secrets.sh` rotates.
const PRODUCTION: &str = "production";

/// Arguments of `keyroll script`.
#[derive(Debug, Args)]
pub(crate) struct ScriptArgs {
    /// Which one
    #[arg(value_enum)]
    pub(crate) script: Script,
    /// The open file with the script's own arguments, each ended by a zero byte
    #[arg(long, value_name = "NUMBER")]
    pub(crate) arguments_fd: u32,
}

/// The runbook's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Script {
    /// `rotate-production-secrets.sh`
    Production,
    /// `rotate-integration-secrets.sh`
    Integration,
}

impl Script {
    /// The file's name.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Production => "rotate-production-secrets.sh",
            Self::Integration => "rotate-integration-secrets.sh",
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Integration => "integration",
        }
    }
}

/// What a script was asked for.
enum Wish {
    Rotate(Box<Request>),
    Finalize,
}

/// Runs it. It never asks.
pub(crate) async fn run(args: &ScriptArgs, global: &Global) -> u8 {
    let control = control();
    let prepared = arguments(args.arguments_fd).and_then(|words| {
        let keyroll = open(global)?;
        let wish = wish(args.script, keyroll.profile(), &words, &control.stop)?;
        Ok((keyroll, wish))
    });
    let (keyroll, wish) = match prepared {
        Ok(all) => all,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let result = match wish {
        Wish::Rotate(request) => {
            keyroll
                .rotate(&request, &speaker, &|_| true, &control)
                .await
        }
        Wish::Finalize => keyroll.finalize(&[], &speaker, &|_| true, &control).await,
    };
    drop(speaker);
    match result {
        Ok(outcome) => finish(&outcome, global),
        Err(error) => fail(&error, global),
    }
}

/// The script's arguments.
fn arguments(number: u32) -> Result<Vec<Zeroizing<String>>, u8> {
    let path = format!("/proc/self/fd/{number}");
    let mut text = Zeroizing::new(String::new());
    let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
    if let Err(error) = read {
        complain(&format!(
            "the script's arguments, {path}: {error}; nothing was changed"
        ));
        return Err(exit::USAGE);
    }
    let words = text.split_terminator('\0');
    Ok(words.map(|word| Zeroizing::new(word.to_owned())).collect())
}

fn wish(
    script: Script,
    profile: &Profile,
    words: &[Zeroizing<String>],
    stop: &Stop,
) -> Result<Wish, u8> {
    let command = command(script, profile);
    let typed = words.iter().map(|word| word.as_str());
    let matches = command.try_get_matches_from(typed).map_err(|error| {
        // clap repeats what was typed, and that may be a value.
        match error.kind() {
            clap::error::ErrorKind::DisplayHelp => {
                let _ = error.print();
                return exit::DONE;
            }
            clap::error::ErrorKind::UnknownArgument => complain(&format!(
                "{}: an argument is not known{}; nothing was changed; --help lists what there is",
                script.file_name(),
                unknown(words)
            )),
            kind => complain(&format!(
                "{}: {kind}; nothing was changed; --help lists what there is",
                script.file_name()
            )),
        }
        exit::USAGE
    })?;
    let flag = |name: &str| matches.get_flag(name);
    let reason = if flag("incident") {
        Reason::Incident
    } else {
        Reason::Scheduled
    };
    if script == Script::Production {
        return Ok(Wish::Rotate(Box::new(Request {
            names: vec![PRODUCTION.to_owned()],
            reason,
            force_unhealthy: flag("force-unhealthy"),
            ..Request::default()
        })));
    }
    let given: Vec<(String, From)> = outside(profile)
        .flat_map(|name| sources(&matches, name))
        .collect();
    if flag("finalize-payment-webhook-grace") {
        if !given.is_empty() {
            complain(
                "--finalize-payment-webhook-grace goes alone: a rotation and the end of a window are two things; nothing was changed",
            );
            return Err(exit::USAGE);
        }
        return Ok(Wish::Finalize);
    }
    if given.is_empty() {
        complain(&format!(
            "{}: expected at least one new value; nothing was changed; --help lists what there is",
            script.file_name()
        ));
        return Err(exit::USAGE);
    }
    let values = read(given, stop)?;
    Ok(Wish::Rotate(Box::new(Request {
        names: values.keys().cloned().collect(),
        values,
        reason,
        skip_validation: flag("skip-validation"),
        allow_test_keys: flag("allow-test-keys"),
        replace_grace: flag("replace-grace"),
        allow_grace: matches
            .get_many::<String>("allow-grace")
            .map(|names| names.cloned().collect())
            .unwrap_or_default(),
        ..Request::default()
    })))
}

/// The first word that looks like a flag's name and nothing else, so that it can be shown.
fn unknown(words: &[Zeroizing<String>]) -> String {
    let name = |word: &&Zeroizing<String>| {
        word.len() < 64
            && word.starts_with("--")
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    let names: Vec<&str> = words.iter().filter(name).map(|w| w.as_str()).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" among {}", names.join(", "))
    }
}

fn outside(profile: &Profile) -> impl Iterator<Item = &String> {
    let all = profile.secrets.iter();
    all.filter(|(_, spec)| spec.kind.comes_from_outside())
        .map(|(name, _)| name)
}

/// `PAYSTACK_SECRET` is `paystack-secret`.
fn flag_of(secret: &str) -> String {
    secret.to_ascii_lowercase().replace('_', "-")
}

fn sources(matches: &ArgMatches, name: &str) -> Vec<(String, From)> {
    let flag = flag_of(name);
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let typed = text(&flag).map(|text| From::Typed(Secret::new(text)));
    let file = text(&format!("{flag}-file")).map(From::File);
    let variable = text(&format!("{flag}-env")).map(From::Variable);
    let all = [typed, file, variable].into_iter().flatten();
    all.map(|from| (name.to_owned(), from)).collect()
}

/// The script's flags.
fn command(script: Script, profile: &Profile) -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::SetTrue)
    };
    let mut command = Command::new(script.file_name())
        .no_binary_name(true)
        .disable_version_flag(true)
        .arg(switch("incident", "A value may have leaked"));
    if script == Script::Production {
        return command
            .about("Rotates the production secrets: all or nothing")
            .arg(switch(
                "force-unhealthy",
                "Goes on although the stack is sick; only with --incident",
            ));
    }
    command = command
        .about("Rotates secrets of providers: all that are given, or none")
        .arg(switch(
            "finalize-payment-webhook-grace",
            "Ends the open grace windows: previous values are no longer accepted",
        ))
        .arg(switch(
            "skip-validation",
            "Does not ask the providers; recorded",
        ))
        .arg(switch(
            "allow-test-keys",
            "Lets a test key replace a live one; recorded",
        ))
        .arg(switch(
            "replace-grace",
            "Drops the value of an open window; recorded",
        ))
        .arg(
            Arg::new("allow-grace")
                .long("allow-grace")
                .value_name("SECRET")
                .help("Opens the window of this secret although it is an incident")
                .action(ArgAction::Append),
        );
    for name in outside(profile) {
        let flag = flag_of(name);
        let takes = |id: String, value: &'static str, help: String| {
            Arg::new(id.clone())
                .long(id)
                .value_name(value)
                .help(help)
                .allow_hyphen_values(true)
        };
        command = command
            .arg(takes(
                flag.clone(),
                "VALUE",
                format!("The new value of {name}; others on this host could read it"),
            ))
            .arg(takes(
                format!("{flag}-file"),
                "PATH",
                "The same from a file; `-` is standard input".into(),
            ))
            .arg(takes(
                format!("{flag}-env"),
                "VARIABLE",
                "The same from an environment variable".into(),
            ));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(script: Script, words: &[&str]) -> Result<Wish, u8> {
        let profile = Profile::load("proxpanel", &[]).unwrap();
        let words: Vec<_> = words
            .iter()
            .map(|w| Zeroizing::new((*w).to_owned()))
            .collect();
        wish(script, &profile, &words, &Stop::default())
    }

    #[test]
    fn the_commands_of_the_runbook_mean_what_they_say() {
        let production = asked(Script::Production, &[]);
        assert!(matches!(production, Ok(Wish::Rotate(r)) if r.names == [PRODUCTION]));
        let words = [
            "--proxmox-token-secret",
            "new_token_secret",
            "--paystack-secret",
            "new_paystack_secret",
            "--flutterwave-webhook-hash",
            "new_hash",
        ];
        let Ok(Wish::Rotate(request)) = asked(Script::Integration, &words) else {
            panic!("it rotates");
        };
        let names = [
            "FLUTTERWAVE_WEBHOOK_HASH",
            "PAYSTACK_SECRET",
            "PROXMOX_TOKEN_SECRET",
        ];
        assert_eq!(request.names, names);
        assert_eq!(
            request.values["PAYSTACK_SECRET"].expose(),
            "new_paystack_secret"
        );
        let finalize = asked(Script::Integration, &["--finalize-payment-webhook-grace"]);
        assert!(matches!(finalize, Ok(Wish::Finalize)));
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for words in [
            &[][..],
            &["--paystack-secert", "x"],
            &["--paystack-secret"],
            &["--paystack-secret", "a", "--paystack-secret-env", "PATH"],
            &["--finalize-payment-webhook-grace", "--paystack-secret", "a"],
            &["stray"],
            &["--jwt-secret", "x"],
        ] {
            assert_eq!(
                asked(Script::Integration, words).err(),
                Some(exit::USAGE),
                "{words:?}"
            );
        }
        assert_eq!(
            asked(Script::Production, &["--paystack-secret", "x"]).err(),
            Some(exit::USAGE)
        );
    }
}
