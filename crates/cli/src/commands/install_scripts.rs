//! `keyroll install-scripts`: the commands that a runbook shows, as a few lines that call keyroll.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use keyroll_rotate::Profile;

use crate::args::Global;
use crate::commands::script::Script;
use crate::exit;
use crate::output::{self, complain, say};

/// The line by which keyroll knows its own scripts.
const OWN: &str = "# Written by `keyroll install-scripts`, which writes it again.";

/// Arguments of `keyroll install-scripts`.
#[derive(Debug, Args)]
pub(crate) struct InstallScriptsArgs {
    /// Where to; `paths.scripts` of the profile where it is not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs it. A script of the same name that is not keyroll's own is kept beside it.
pub(crate) fn run(args: &InstallScriptsArgs, global: &Global) -> u8 {
    let written = Profile::load(&global.profile, &global.layers())
        .map_err(|error| (exit::USAGE, error.to_string()))
        .and_then(|profile| {
            let own = profile.paths.scripts.clone();
            let directory = args.dir.clone().or(own).ok_or_else(|| {
                (
                    exit::USAGE,
                    "the profile names no paths.scripts; give --dir".to_owned(),
                )
            })?;
            install(&directory, global).map_err(|why| (exit::FAILED, why))
        });
    let written = match written {
        Ok(written) => written,
        Err((code, why)) => {
            complain(&why);
            return code;
        }
    };
    if global.json {
        let all = written
            .iter()
            .map(|(path, kept)| serde_json::json!({"script": path, "kept": kept}));
        output::json(&all.collect::<Vec<_>>());
    } else {
        for (path, kept) in written {
            say(&format!("{}: written", path.display()));
            if let Some(kept) = kept {
                say(&format!("  what was there is {} now", kept.display()));
            }
        }
    }
    exit::DONE
}

type Written = (PathBuf, Option<PathBuf>);

fn install(directory: &Path, global: &Global) -> Result<Vec<Written>, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
    let program = program
        .to_str()
        .ok_or("this program's own path is not UTF-8")?;
    let mut words = vec![program.to_owned()];
    words.extend(global.again()?);
    let mut written = vec![];
    for script in [Script::Production, Script::Integration] {
        let path = directory.join(script.file_name());
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let kept = match fs::read_to_string(&path) {
            Ok(text) if !text.contains(OWN) => {
                let kept = path.with_extension("sh.before-keyroll");
                // The first that was there counts; a second one would be another installer's.
                if kept.exists() {
                    return Err(format!(
                        "{}: is not keyroll's own, and {} is there already; move one of them away",
                        path.display(),
                        kept.display()
                    ));
                }
                fs::rename(&path, &kept).map_err(failed)?;
                Some(kept)
            }
            _ => None,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let beside = path.with_extension("sh.partial");
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&beside)
            .map_err(failed)?;
        file.write_all(text(&words, script).as_bytes())
            .map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&beside, &path).map_err(failed)?;
        written.push((path, kept));
    }
    Ok(written)
}

fn text(words: &[String], script: Script) -> String {
    let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!(
        "#!/usr/bin/env bash\n\
         {OWN}\n\
         # The arguments go to keyroll through a pipe: a value among them stands in the arguments of no other command.\n\
         set -euo pipefail\n\
         exec {} script {} --arguments-fd 3 3< <(if (( $# )); then printf '%s\\0' \"$@\"; fi)\n",
        command.join(" "),
        script.name()
    )
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_a_few_lines_that_call_keyroll() {
        let words = [
            "/usr/local/bin/keyroll",
            "--set",
            "admin.email={ value = \"it's\" }",
        ];
        let words = words.map(str::to_owned);
        insta::assert_snapshot!(text(&words, Script::Integration));
    }
}
