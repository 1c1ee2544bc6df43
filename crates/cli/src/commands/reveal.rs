//! `keyroll reveal`.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use keyroll_rotate::{RotationId, Secret, Which};

use crate::args::Global;
use crate::commands::{fail, mode, open};
use crate::exit;
use crate::output::{self, Speaker, complain, say};

/// Arguments of `keyroll reveal`.
#[derive(Debug, Args)]
pub(crate) struct RevealArgs {
    /// The secret, as the profile names it
    #[arg(value_name = "SECRET")]
    pub(crate) secret: String,
    /// Which version: what a rotation rotates to, what is in force, or what was before
    #[arg(long, value_enum)]
    pub(crate) version: WhichArg,
    /// The versions as they were while this rotation ran: `pending` is what it rotated to, `current` what it replaced
    #[arg(long, value_name = "ROTATION")]
    pub(crate) rotation: Option<String>,
    /// Writes it to a new file that only root can read, instead of to the terminal
    #[arg(long, value_name = "PATH")]
    pub(crate) to_file: Option<PathBuf>,
    /// Why, for the trail
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub(crate) because: String,
}

/// [`Which`], as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WhichArg {
    /// What an unfinished rotation rotates to.
    Pending,
    /// What is in force.
    Current,
    /// What was in force before.
    Previous,
}

impl From<WhichArg> for Which {
    fn from(arg: WhichArg) -> Self {
        match arg {
            WhichArg::Pending => Self::Pending,
            WhichArg::Current => Self::Current,
            WhichArg::Previous => Self::Previous,
        }
    }
}

/// Runs it.
pub(crate) fn run(args: &RevealArgs, global: &Global) -> u8 {
    let terminal = std::io::stdout().is_terminal() && !global.json;
    if args.to_file.is_none() && !terminal {
        complain(
            "a value is shown on a terminal alone: what a pipe or a log holds stays there; use --to-file PATH",
        );
        return exit::USAGE;
    }
    let keyroll = match open(global) {
        Ok(keyroll) => keyroll,
        Err(code) => return code,
    };
    // Before the trail says that the value was shown: a path that cannot be written must not cost a record.
    let file = match args.to_file.as_deref().map(make).transpose() {
        Ok(file) => file,
        Err(code) => return code,
    };
    let rotation = args.rotation.as_ref().map(RotationId::from_text);
    let speaker = Speaker::new(mode(global));
    let result = keyroll.reveal(
        &args.secret,
        args.version.into(),
        rotation.as_ref(),
        &args.because,
        &speaker,
    );
    drop(speaker);
    let shown = match result {
        Ok(shown) => shown,
        Err(error) => {
            if let Some((_, path)) = file {
                let _ = std::fs::remove_file(path);
            }
            return fail(&error, global);
        }
    };
    for line in &shown.found {
        complain(line);
    }
    match file {
        None => say(shown.value.expose()),
        Some((file, path)) => {
            if let Err(error) = write(file, &shown.value) {
                let _ = std::fs::remove_file(path);
                complain(&format!(
                    "{}: {error}; nothing is left of it",
                    path.display()
                ));
                return exit::FAILED;
            }
            if global.json {
                output::json(&serde_json::json!({
                    "file": path, "fingerprint": shown.fingerprint, "head": shown.head
                }));
            } else {
                say(&format!(
                    "{} has the value ({}), without a newline at its end, for root alone; remove it when it has served",
                    path.display(),
                    shown.fingerprint
                ));
            }
        }
    }
    exit::DONE
}

/// A file that was not there before and that only its owner can read.
fn make(path: &Path) -> Result<(File, &Path), u8> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => Ok((file, path)),
        Err(error) => {
            complain(&format!(
                "{}: {error}; nothing was shown or recorded. Name a file that does not exist yet",
                path.display()
            ));
            Err(exit::FAILED)
        }
    }
}

fn write(mut file: File, value: &Secret) -> std::io::Result<()> {
    file.write_all(value.expose().as_bytes())?;
    file.sync_all()
}
