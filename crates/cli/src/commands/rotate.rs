//! `keyroll rotate`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use keyroll_rotate::{Keyroll, Reason, Request, RotateError, Secret, Stop};

use crate::args::Global;
use crate::asking::{ROTATE_NOW, approval, ask_hidden};
use crate::commands::{fail, finish, mode, open};
use crate::exit;
use crate::output::{self, Speaker, complain, say};
use crate::stopping::control;
use crate::telling;
use crate::values::ValueArgs;

/// Arguments of `keyroll rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Secrets and groups of the profile, such as production or `JWT_SECRET`
    #[arg(required_unless_present_any = ["due", "all"], value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Instead: everything that the stack uses; asks first for the values that providers make
    #[arg(long, conflicts_with_all = ["names", "due"])]
    pub(crate) all: bool,
    /// With --all: leaves this secret or group as it is; recorded
    #[arg(long, value_name = "NAME", requires = "all")]
    pub(crate) except: Vec<String>,
    /// Instead: what is due by the profile's intervals and needs no person; in the maintenance window, if there is one
    #[arg(long, conflicts_with = "names")]
    pub(crate) due: bool,
    /// Gives a Proxmox token another value in place: no grace, no way back; the application is cut off for a moment
    #[arg(long, conflicts_with_all = ["all", "due"])]
    pub(crate) regenerate: bool,
    /// How, and why.
    #[command(flatten)]
    pub(crate) how: How,
    /// Values that keyroll cannot make.
    #[command(flatten)]
    pub(crate) values: ValueArgs,
}

/// What `rotate`, `plan` and `rollback` have in common.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Does not ask
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    /// Why it is done
    #[arg(long, value_enum, default_value_t = ReasonArg::Scheduled)]
    pub(crate) reason: ReasonArg,
    /// Goes on although the stack is sick; only with --reason incident, and recorded
    #[arg(long)]
    pub(crate) force_unhealthy: bool,
    /// Builds images before containers are recreated
    #[arg(long)]
    pub(crate) build: bool,
    /// A file with the admin's present password, where it was changed in the application since
    #[arg(long, value_name = "FILE")]
    pub(crate) current_admin_password_file: Option<PathBuf>,
}

/// Reasons, as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReasonArg {
    /// Nothing has happened
    Scheduled,
    /// A value may have leaked
    Incident,
}

impl How {
    /// The request for these names; the error is the exit code.
    pub(crate) fn request(&self, names: &[String]) -> Result<Request, u8> {
        let password = match &self.current_admin_password_file {
            None => None,
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    complain(&format!("{}: {error}", path.display()));
                    return Err(exit::USAGE);
                }
            },
        };
        Ok(Request {
            names: names.to_vec(),
            reason: match self.reason {
                ReasonArg::Scheduled => Reason::Scheduled,
                ReasonArg::Incident => Reason::Incident,
            },
            force_unhealthy: self.force_unhealthy,
            build: self.build,
            current_admin_password: password,
            ..Request::default()
        })
    }

    /// The same, with what concerns values from outside.
    pub(crate) fn request_with(
        &self,
        names: &[String],
        values: &ValueArgs,
        stop: &Stop,
    ) -> Result<Request, u8> {
        Ok(Request {
            values: values.read(stop)?,
            skip_validation: values.skip_validation,
            allow_test_keys: values.allow_test_keys,
            replace_grace: values.replace_grace,
            allow_grace: values.allow_grace.iter().cloned().collect(),
            ..self.request(names)?
        })
    }
}

/// Runs it.
pub(crate) async fn run(args: &RotateArgs, global: &Global) -> u8 {
    let control = control();
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    let request = if args.all {
        everything(&keyroll, args, global, &control.stop).await
    } else {
        let names = if args.due {
            due(&keyroll, global).await
        } else {
            Ok(args.names.clone())
        };
        names.and_then(|names| {
            let request = args.how.request_with(&names, &args.values, &control.stop)?;
            Ok(Request {
                regenerate: args.regenerate,
                ..request
            })
        })
    };
    let prepared = request.and_then(|request| {
        let stop = control.stop.clone();
        Ok((request, approval(args.how.yes, ROTATE_NOW, global, stop)?))
    });
    let (request, approve) = match prepared {
        Ok(all) => all,
        Err(code) => return code,
    };
    let speaker = Speaker::new(mode(global));
    let result = keyroll.rotate(&request, &speaker, &approve, &control).await;
    drop(speaker);
    let code = match &result {
        Ok(outcome) => finish(outcome, global),
        Err(error) => fail(error, global),
    };
    if args.due {
        telling::ended(&keyroll, result.as_ref()).await;
    }
    code
}

/// Everything that the stack uses. Somebody is asked for what providers make; the error is the exit code.
async fn everything(
    keyroll: &Keyroll,
    args: &RotateArgs,
    global: &Global,
    stop: &Stop,
) -> Result<Request, u8> {
    let mut request = args.how.request_with(&[], &args.values, stop)?;
    request.left_out = args.except.iter().cloned().collect();
    let speaker = Speaker::new(mode(global));
    let found = keyroll.everything(&request, &speaker).await;
    drop(speaker);
    let found = found.map_err(|error| fail(&error, global))?;
    request.names = found.names;
    if found.needs_value.is_empty() {
        return Ok(request);
    }
    if global.json || !std::io::stdin().is_terminal() {
        complain(&format!(
            "there is no terminal to ask on for new values of {}; give each with --value-file NAME=PATH, or leave it as it is with --except NAME; nothing was changed",
            found.needs_value.join(", ")
        ));
        return Err(exit::USAGE);
    }
    if !global.json {
        found.notes.iter().for_each(|note| say(note));
    }
    for name in found.needs_value {
        let question = format!("new value of {name} (not shown; nothing leaves it as it is): ");
        let value = ask_hidden(&question, stop);
        if stop.requested() {
            return Err(fail(&RotateError::NotConfirmed, global));
        }
        if let Some(value) = value {
            request.values.insert(name, value);
        } else {
            request.names.retain(|n| *n != name);
            request.left_out.insert(name);
        }
    }
    Ok(request)
}

/// The secrets that are due now; the error is the exit code where there is nothing to do. Somebody hears of what waits for a person.
async fn due(keyroll: &Keyroll, global: &Global) -> Result<Vec<String>, u8> {
    let due = keyroll
        .due(Timestamp::now())
        .map_err(|error| fail(&error, global))?;
    let needs = due.needs_value.iter();
    let needs = needs.map(|name| format!("{name} is due, and needs a new value from its provider"));
    let windows = due.windows_over.iter();
    let windows = windows.map(|name| {
        format!("the grace window of {name} is open beyond its time; `keyroll finalize {name}` closes it")
    });
    let waits: Vec<String> = needs.chain(windows).collect();
    telling::waits(keyroll, &waits).await;
    let nothing_now = match &due.not_before {
        _ if due.rotate.is_empty() => {
            Some("nothing is due that keyroll could rotate by itself".to_owned())
        }
        Some(window) => Some(format!(
            "due: {}; not now, the maintenance window is {window}",
            due.rotate.join(", ")
        )),
        None => None,
    };
    if !global.json {
        for line in &waits {
            say(line);
        }
    }
    match nothing_now {
        None => Ok(due.rotate),
        Some(_) if global.json => {
            output::json(&due);
            Err(exit::DONE)
        }
        Some(why) => {
            say(&why);
            Err(exit::DONE)
        }
    }
}
