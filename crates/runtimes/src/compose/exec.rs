//! A command inside a running container, by the engine's own interface.
//!
//! What a command is given is not private: its words stand in the host's process table, and its environment can be read by
//! whoever has its user. Secrets go by standard input, or not at all.
//!
//! Closing the connection does not stop the command. So it carries marks in its environment, by which it is found and ended
//! when it takes too long, or when the caller dies ([`crate::orphans`]).

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt as _;
use keyroll_secret::Secret;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use super::child::{call_mark, end_call};
use super::engine::{Engine, chain};
use crate::orphans;

/// Of standard error the end counts.
pub(super) const STDERR_CAP: usize = 16 << 10;
/// The engine tells the exit code a moment after the output's end.
const EXIT_CODE: Duration = Duration::from_secs(10);
/// What [`Engine::exec`] keeps of standard output.
const STDOUT_CAP: usize = 4 << 20;

/// A command to be run inside a container.
#[derive(Debug, Clone)]
pub struct Exec {
    container: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<String>,
    rotation: Option<String>,
    pub(super) limit: Duration,
}

/// How a command ended.
#[derive(Debug)]
pub struct ExecOutcome {
    /// Its exit code; 126 and 127 also when it could not be started.
    pub exit_code: i64,
    /// The end of its standard error, redacted.
    pub stderr: String,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub struct ExecOutput {
    /// Its exit code; 126 and 127 also when it could not be started.
    pub exit_code: i64,
    /// Its standard output. Not redacted.
    pub stdout: Secret,
    /// The end of its standard error, redacted.
    pub stderr: String,
}

/// Why it is not known how a command ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It is certain that it never ran.
    #[error("`{command}` in {container} was not started: {reason}; nothing was changed")]
    NotStarted {
        /// Its first word.
        command: String,
        /// The container.
        container: String,
        /// The engine's words, redacted.
        reason: String,
    },
    /// It ran, at least in part. What it did has to be looked at.
    #[error(
        "`{command}` in {container} may have done its work: {reason}; {}",
        if *ended { "it no longer runs" } else { "it may still run, look with `docker top`" }
    )]
    Indeterminate {
        /// Its first word.
        command: String,
        /// The container.
        container: String,
        /// What happened.
        reason: String,
        /// Whether nothing of it runs any more.
        ended: bool,
    },
}

impl Exec {
    /// This command in this container, for a minute at most, as the container's own user.
    pub fn new(
        container: impl Into<String>,
        command: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            container: container.into(),
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            user: None,
            rotation: None,
            limit: Duration::from_secs(60),
        }
    }

    /// With another time limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Carrying this rotation's id, for [`crate::orphans::find`].
    #[must_use]
    pub fn rotation(mut self, rotation: &str) -> Self {
        self.rotation = Some(rotation.to_owned());
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// With one more variable. Never a secret: others can read it.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    fn config(&self, call: &str, input: bool) -> ExecConfig {
        let mut environment: Vec<String> = self
            .environment
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        environment.push(format!("{}={call}", orphans::CALL));
        environment.extend(
            self.rotation
                .as_ref()
                .map(|id| format!("{}={id}", orphans::MARK)),
        );
        ExecConfig {
            attach_stdin: Some(input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(environment),
            cmd: Some(self.command.clone()),
            user: self.user.clone(),
            ..Default::default()
        }
    }

    fn not_started(&self, reason: String) -> ExecError {
        ExecError::NotStarted {
            command: self.command.first().cloned().unwrap_or_default(),
            container: self.container.clone(),
            reason,
        }
    }

    async fn indeterminate(&self, call: &str, reason: String) -> ExecError {
        ExecError::Indeterminate {
            command: self.command.first().cloned().unwrap_or_default(),
            container: self.container.clone(),
            reason,
            ended: end_call(call).await,
        }
    }
}

/// Nothing to be read.
pub type NoInput = tokio::io::Empty;

impl Engine {
    /// Runs a command without input and keeps what it writes, 4 MiB at most.
    pub async fn exec(&self, exec: &Exec) -> Result<ExecOutput, ExecError> {
        let mut stdout = Bounded(Zeroizing::new(Vec::with_capacity(64 << 10)));
        let done = self
            .exec_streamed(exec, None::<NoInput>, &mut stdout)
            .await?;
        Ok(ExecOutput {
            exit_code: done.exit_code,
            stdout: Secret::new(String::from_utf8_lossy(&stdout.0)),
            stderr: done.stderr,
        })
    }

    /// Runs a command, feeds it `input` to its end and writes what it writes to `output`, as it comes. When `output` or
    /// `input` fails, or at the limit, the command is ended.
    pub async fn exec_streamed(
        &self,
        exec: &Exec,
        input: Option<impl AsyncRead + Unpin + Send>,
        output: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<ExecOutcome, ExecError> {
        let until = Instant::now() + exec.limit;
        let Running {
            id,
            call,
            stream,
            pipe,
        } = self.start_command(exec, input.is_some(), until).await?;
        let moved = timeout_at(until, carry(input, pipe, stream, output)).await;
        let late = || format!("it took longer than {:?}", exec.limit);
        let stderr = match moved.unwrap_or_else(|_| Err(late())) {
            Ok(stderr) => stderr,
            Err(reason) => return Err(exec.indeterminate(&call, self.clean(&reason)).await),
        };
        match self.exit_code(&id).await {
            Ok(exit_code) => Ok(ExecOutcome {
                exit_code,
                stderr: self.clean(&stderr),
            }),
            Err(reason) => Err(exec.indeterminate(&call, self.clean(&reason)).await),
        }
    }

    /// Starts a command, its input and output attached.
    pub(super) async fn start_command(
        &self,
        exec: &Exec,
        input: bool,
        until: Instant,
    ) -> Result<Running, ExecError> {
        let call = call_mark();
        let created = self
            .docker
            .create_exec(&exec.container, exec.config(&call, input));
        let id = match timeout_at(until, created).await {
            Ok(Ok(created)) => created.id,
            Ok(Err(e)) => return Err(exec.not_started(self.clean(&chain(&e)))),
            Err(_) => return Err(exec.not_started("no answer from the container engine".into())),
        };
        let options = StartExecOptions {
            output_capacity: Some(64 << 10),
            ..Default::default()
        };
        let started = self.docker.start_exec(&id, Some(options));
        // Whatever goes wrong from here on: the request may have reached the engine.
        let reason = match timeout_at(until, started).await {
            Ok(Ok(StartExecResults::Attached {
                output: stream,
                input: pipe,
            })) => {
                return Ok(Running {
                    id,
                    call,
                    stream,
                    pipe,
                });
            }
            Ok(Ok(StartExecResults::Detached)) => "the engine attached nothing".to_owned(),
            Ok(Err(e)) => self.clean(&chain(&e)),
            Err(_) => "no answer from the container engine".to_owned(),
        };
        Err(exec.indeterminate(&call, reason).await)
    }

    pub(super) async fn exit_code(&self, id: &str) -> Result<i64, String> {
        let asked = async {
            loop {
                let found = self.docker.inspect_exec(id).await.map_err(|e| chain(&e))?;
                if let (Some(false), Some(code)) = (found.running, found.exit_code) {
                    return Ok(code);
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let late = |_| Err("its output ended, but it goes on".to_owned());
        timeout(EXIT_CODE, asked).await.unwrap_or_else(late)
    }
}

pub(super) type Stream = std::pin::Pin<
    Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
>;
pub(super) type Pipe = std::pin::Pin<Box<dyn AsyncWrite + Send>>;

/// A command that was started.
pub(super) struct Running {
    /// The engine's name for it.
    pub(super) id: String,
    /// The mark in its environment.
    pub(super) call: String,
    pub(super) stream: Stream,
    pub(super) pipe: Pipe,
}

/// Moves input and output until the command has closed its output. Returns the end of standard error.
async fn carry(
    input: Option<impl AsyncRead + Unpin>,
    mut pipe: Pipe,
    mut stream: Stream,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<String, String> {
    let feed = async {
        if let Some(mut input) = input {
            // A command that ends before it has read everything closes the pipe; its exit code tells the rest.
            if let Err(e) = tokio::io::copy(&mut input, &mut pipe).await
                && e.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(format!("its input could not be written: {e}"));
            }
            let _ = pipe.shutdown().await;
        }
        Ok(())
    };
    let drain = async {
        let mut stderr = Zeroizing::new(Vec::new());
        while let Some(chunk) = stream.next().await {
            match chunk.map_err(|e| format!("its output broke off: {}", chain(&e)))? {
                LogOutput::StdErr { message } => {
                    stderr.extend_from_slice(&message);
                    if stderr.len() > STDERR_CAP {
                        let cut = stderr.len() - STDERR_CAP;
                        stderr.drain(..cut);
                    }
                }
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message } => {
                    let written = output.write_all(&message).await;
                    written.map_err(|e| format!("its output could not be kept: {e}"))?;
                }
            }
        }
        let flushed = output.flush().await;
        flushed.map_err(|e| format!("its output could not be kept: {e}"))?;
        Ok(String::from_utf8_lossy(&stderr).into_owned())
    };
    tokio::pin!(feed, drain);
    // The command may close its output while input is still waiting to be read.
    tokio::select! {
        stderr = &mut drain => stderr,
        written = &mut feed => {
            written?;
            drain.await
        }
    }
}

/// Keeps what is written, up to a limit.
struct Bounded(Zeroizing<Vec<u8>>);

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if self.0.len() + bytes.len() > STDOUT_CAP {
            let reason = format!("more than {STDOUT_CAP} bytes");
            return std::task::Poll::Ready(Err(std::io::Error::other(reason)));
        }
        self.0.extend_from_slice(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
