//! The stack's own `docker compose`, which is the judge of its own formats.
//!
//! How it is called matters as much as what it is asked. An exported variable beats the env file, so it gets an environment
//! of a few named variables. Without `-p`, `--project-directory`, `-f` and `--env-file` it looks around and guesses, so each
//! call has them, as the running containers' labels say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use keyroll_secret::{Redactor, Secret};
use zeroize::Zeroizing;

use super::child::{self, Broken, Call, Done};
use super::engine::Engine;
use super::error::CliError;
use super::project::Project;
use crate::orphans;

/// The default limit of a call that only reads.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// What compose inherits: nothing but this, `LC_ALL=C`, and `DOCKER_HOST` of the engine that is asked.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `PATH`, where `docker` or `docker-compose` is found.
    pub path: OsString,
    /// `HOME`, where `docker` finds its plugins and settings. Compose files may refer to it too.
    pub home: Option<OsString>,
    /// `DOCKER_CONFIG`, where the operator has moved these.
    pub docker_config: Option<OsString>,
    /// The rotation's id, carried by compose and its children under [`orphans::MARK`].
    pub rotation: Option<String>,
}

/// Which compose is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compose {
    /// `docker compose`, with its version.
    V2(String),
    /// `docker-compose`, with its version.
    V1(String),
}

impl Compose {
    /// Its version, as it says.
    pub fn version(&self) -> &str {
        match self {
            Self::V2(version) | Self::V1(version) => version,
        }
    }
}

impl fmt::Display for Compose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V2(version) => write!(f, "docker compose {version}"),
            Self::V1(version) => write!(f, "docker-compose {version}"),
        }
    }
}

/// compose, called for one project. Cheap to clone.
#[derive(Clone)]
pub struct Cli {
    compose: Compose,
    pub(super) project: Project,
    surroundings: Surroundings,
    socket: PathBuf,
    pub(super) limit: Duration,
    redactor: Redactor,
}

impl fmt::Debug for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cli({} for {})", self.compose, self.project.name)
    }
}

impl Cli {
    /// Finds out which compose is there: version 2, else version 1; the other way round for containers that version 1 made.
    /// The engine is the one that was connected to, whatever the operator's current context is. Calls that read have a limit of 60 seconds.
    pub async fn connect(
        engine: &Engine,
        project: Project,
        surroundings: Surroundings,
    ) -> Result<Self, CliError> {
        let mut cli = Self {
            compose: Compose::V2(String::new()),
            project,
            surroundings,
            socket: engine.socket().to_owned(),
            limit: READ_LIMIT,
            redactor: Redactor::new(),
        };
        // Each hashes a configuration in its own way, so the one that made the containers is asked first.
        let first_v1 = cli.project.made_by_v1();
        let mut said = Vec::new();
        for v1 in [first_v1, !first_v1] {
            let found = if v1 {
                cli.version("docker-compose", &["version", "--short"]).await
            } else {
                cli.version("docker", &["compose", "version", "--short"])
                    .await
            };
            match found {
                Ok(version) if !v1 => {
                    cli.compose = Compose::V2(version);
                    return Ok(cli);
                }
                Ok(version) if version.starts_with("1.") => {
                    cli.compose = Compose::V1(version);
                    return Ok(cli);
                }
                Ok(version) => said.push(format!(
                    "docker-compose is version {version}, which is wanted as a plugin of docker"
                )),
                Err(reason) if v1 => said.push(format!("docker-compose: {reason}")),
                Err(reason) => said.push(format!("docker compose: {reason}")),
            }
        }
        Err(CliError::NotThere {
            reason: said.join("; "),
        })
    }

    /// The same, whose errors are cleaned by this redactor.
    #[must_use]
    pub fn redacting(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// The same, with another limit for each call that reads.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same, whose children carry this rotation's id.
    #[must_use]
    pub fn for_rotation(mut self, rotation: &str) -> Self {
        self.surroundings.rotation = Some(rotation.to_owned());
        self
    }

    /// Which compose it is.
    pub fn compose(&self) -> &Compose {
        &self.compose
    }

    /// The project it is called for.
    pub fn project(&self) -> &Project {
        &self.project
    }

    pub(super) fn clean(&self, text: &str) -> String {
        self.redactor.clean(text)
    }

    /// compose with the project's own files; `env_file` in place of the project's env files.
    pub(super) fn stack(&self, env_file: Option<&std::path::Path>) -> Asked {
        let mut asked = self.bare(&self.project.name, &self.project.working_dir);
        for file in &self.project.config_files {
            asked.option("-f", file);
        }
        match env_file {
            Some(path) => asked.option("--env-file", path),
            None => {
                for file in &self.project.env_files {
                    asked.option("--env-file", file);
                }
            }
        }
        asked
    }

    /// compose for a project and a directory, without files yet.
    pub(super) fn bare(&self, name: &str, directory: &std::path::Path) -> Asked {
        let (program, first) = match self.compose {
            Compose::V2(_) => ("docker", vec![OsString::from("compose")]),
            Compose::V1(_) => ("docker-compose", vec![]),
        };
        let mut asked = Asked {
            program: program.into(),
            arguments: first,
            directory: directory.to_owned(),
            input: None,
        };
        asked.option("-p", name);
        asked.option("--project-directory", directory);
        asked
    }

    /// Runs it; an exit status other than 0 is an error. Returns standard output and standard error (not redacted).
    pub(super) async fn ask(
        &self,
        asked: Asked,
        command: &[&str],
    ) -> Result<(Zeroizing<Vec<u8>>, String), CliError> {
        let name = asked.name(command);
        let done = match self.run(asked, command, self.limit).await {
            Ok(done) => done,
            Err(Broken::NotStarted(reason) | Broken::Output(reason)) => {
                return Err(CliError::NotRun {
                    command: name,
                    reason,
                });
            }
            Err(Broken::Timeout(_)) => {
                return Err(CliError::Timeout {
                    command: name,
                    limit: self.limit,
                });
            }
        };
        if done.status.success() {
            return Ok((done.stdout, done.stderr));
        }
        Err(CliError::Failed {
            command: name,
            status: done.status.to_string(),
            said: self.said(&done.stderr),
        })
    }

    /// Runs it, however it ends.
    pub(super) async fn run(
        &self,
        asked: Asked,
        command: &[&str],
        limit: Duration,
    ) -> Result<Done, Broken> {
        let mut arguments = asked.arguments;
        arguments.extend(command.iter().map(OsString::from));
        child::run(Call {
            program: asked.program,
            arguments,
            environment: self.environment(),
            directory: asked.directory,
            input: asked.input,
            limit,
        })
        .await
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let s = &self.surroundings;
        let mut host = OsString::from("unix://");
        host.push(&self.socket);
        let mut all: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), s.path.clone()),
            ("LC_ALL".into(), "C".into()),
            ("DOCKER_HOST".into(), host),
        ];
        let optional = [
            ("HOME", s.home.clone()),
            ("DOCKER_CONFIG", s.docker_config.clone()),
            (orphans::MARK, s.rotation.as_ref().map(OsString::from)),
        ];
        all.extend(
            optional
                .into_iter()
                .filter_map(|(k, v)| Some((k.into(), v?))),
        );
        all
    }

    /// The end of a failed call's standard error, fit to be shown.
    pub(super) fn said(&self, stderr: &str) -> String {
        let text = self.clean(&without_quotations(stderr));
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(6);
        lines[from..].join(" / ")
    }

    async fn version(&self, program: &str, command: &[&str]) -> Result<String, String> {
        let call = Call {
            program: program.into(),
            arguments: command.iter().map(OsString::from).collect(),
            environment: self.environment(),
            directory: "/".into(),
            input: None,
            limit: self.limit,
        };
        match child::run(call).await {
            Ok(done) if done.status.success() => {
                let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
                let version = text.trim_start_matches('v').to_owned();
                if version.starts_with(|c: char| c.is_ascii_digit()) {
                    Ok(version)
                } else {
                    Err("it says no version".into())
                }
            }
            Ok(done) => Err(self.said(&done.stderr)),
            Err(Broken::NotStarted(reason) | Broken::Output(reason)) => Err(reason),
            Err(Broken::Timeout(_)) => Err(format!("no answer within {:?}", self.limit)),
        }
    }
}

/// A call in the making.
pub(super) struct Asked {
    program: OsString,
    arguments: Vec<OsString>,
    directory: PathBuf,
    /// Standard input.
    pub(super) input: Option<Secret>,
}

impl Asked {
    pub(super) fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.arguments.push(name.into());
        self.arguments.push(value.into());
    }

    /// The program and the command, for messages.
    fn name(&self, command: &[&str]) -> String {
        let program = self.program.to_string_lossy();
        let middle = if program == "docker" { " compose" } else { "" };
        format!("{program}{middle} {}", command.first().unwrap_or(&""))
    }
}

/// compose quotes what it cannot read, and that may be a secret or the rest of an env file (`line 3: unterminated quoted
/// value "…`, `invalid interpolation format … "…`, ``cannot unmarshal !!str `…` ``). So of such a message nothing is shown
/// from the first quotation on; file, line and the kind of mistake come before it. Log lines are left out.
fn without_quotations(stderr: &str) -> String {
    let mut kept = String::new();
    for line in stderr.lines().filter(|l| !l.starts_with("time=\"")) {
        if quotes_files(line)
            && let Some(quote) = line.find(['"', '`', '\''])
        {
            // A quoted value may go on over the next lines.
            let _ = write!(kept, "{}…", line[..quote].trim_end());
            return kept;
        }
        let _ = writeln!(kept, "{line}");
        if line.contains("invalid interpolation format") {
            break; // the value itself follows, on lines of its own
        }
    }
    kept
}

/// Whether a line of compose's speaks of the content of a file.
fn quotes_files(line: &str) -> bool {
    let at_line = line.split("line ").skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest[digits..].starts_with(':')
    });
    let words = [
        "interpolat",
        "unmarshal",
        "failed to read",
        "failed to parse",
        "yaml:",
        "env file",
    ];
    at_line || words.iter().any(|word| line.contains(word))
}

/// Reads `name hash` lines.
pub(super) fn hash_lines(stdout: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = std::str::from_utf8(stdout).ok()?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, hash) = line.trim().split_once(' ')?;
            Some((name.to_owned(), hash.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_from_a_file_is_not_repeated() {
        for (said, shown) in [
            (
                "failed to read /srv/.env: line 3: unterminated quoted value \"hunter2\nNEXT=secret",
                "failed to read /srv/.env: line 3: unterminated quoted value…",
            ),
            (
                "time=\"x\" level=warning msg=\"y\"\nline 1: unexpected character \"$\" in variable name \"A$B=hunter2\"",
                "line 1: unexpected character…",
            ),
            (
                "invalid interpolation format for services.api.environment.X.\nYou may need to escape any $ with another $.\nhunter2${",
                "invalid interpolation format for services.api.environment.X.\n",
            ),
            (
                "yaml: unmarshal errors:\n  line 4: cannot unmarshal !!str `hunter2` into map",
                "yaml: unmarshal errors:\n  line 4: cannot unmarshal !!str…",
            ),
            ("no such service: x", "no such service: x\n"),
            (
                "Error response from daemon: the name \"/x\" is in use",
                "Error response from daemon: the name \"/x\" is in use\n",
            ),
        ] {
            assert_eq!(without_quotations(said), shown);
        }
    }

    #[test]
    fn hash_lines_are_read_and_anything_else_is_not() {
        let read = hash_lines(b"api 11aa\ndb 22bb\n\n").unwrap();
        assert_eq!(read["db"], "22bb");
        assert!(hash_lines(b"api\n").is_none());
    }
}
