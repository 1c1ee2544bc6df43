//! A command inside a container as a stream: what is written goes to its standard input, what is read is its standard output.
//!
//! The command lives as long as the stream. Where this side is closed, also by the end of this process, the command sees the
//! end of its input and should end. One that does not is ended here, or, where nobody is left here, by whoever looks for its
//! mark ([`crate::orphans`]).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bollard::container::LogOutput;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::time::{Instant, timeout};

use super::child::end_call;
use super::engine::{Engine, chain};
use super::exec::{Exec, ExecError, Pipe, Running, STDERR_CAP, Stream};

/// Held for whichever side is slower.
const BUFFER: usize = 64 << 10;
/// Time for a command to end by itself at the end of its input.
const GRACE: Duration = Duration::from_secs(2);
/// What a container has that was asked for a program that it does not have.
const NOT_THERE: [i64; 2] = [126, 127];

/// Standard input and output of a command that runs. Dropped, the command ends.
///
/// A command that ends by itself is the end of what can be read, or an error with its last words where it had any;
/// [`io::ErrorKind::NotFound`] where the program is not there or cannot be run.
#[derive(Debug)]
pub struct ExecStream {
    near: DuplexStream,
    ended: Arc<OnceLock<(io::ErrorKind, String)>>,
}

impl Engine {
    /// Starts a command, within its limit; from then on it runs as long as the stream is kept.
    pub async fn exec_stream(&self, exec: &Exec) -> Result<ExecStream, ExecError> {
        let running = self
            .start_command(exec, true, Instant::now() + exec.limit)
            .await?;
        let (near, far) = tokio::io::duplex(BUFFER);
        let ended = Arc::new(OnceLock::new());
        tokio::spawn(self.clone().carry_on(running, far, Arc::clone(&ended)));
        Ok(ExecStream { near, ended })
    }

    /// Moves bytes until either side ends, and sees to it that the command has ended then.
    async fn carry_on(
        self,
        running: Running,
        mut far: DuplexStream,
        ended: Arc<OnceLock<(io::ErrorKind, String)>>,
    ) {
        let Running {
            id,
            call,
            mut stream,
            mut pipe,
        } = running;
        match carry(&mut far, &mut pipe, &mut stream).await {
            Carried::CommandEnded(said) => {
                let kind = match self.exit_code(&id).await {
                    Ok(code) if NOT_THERE.contains(&code) => io::ErrorKind::NotFound,
                    Ok(_) => io::ErrorKind::ConnectionAborted,
                    Err(_) => {
                        end_call(&call).await;
                        io::ErrorKind::ConnectionAborted
                    }
                };
                let said = self.clean(said.trim());
                if kind == io::ErrorKind::NotFound {
                    let _ = ended.set((kind, "it cannot be run there".to_owned()));
                } else if !said.is_empty() {
                    let _ = ended.set((kind, said));
                }
            }
            Carried::OwnerGone => {
                // The engine closes the command's input with the connection.
                drop(pipe);
                let rest = async { while stream.next().await.is_some() {} };
                if timeout(GRACE, rest).await.is_err() {
                    end_call(&call).await;
                }
            }
        }
        // Only now, so that whoever reads the end finds the reason.
        drop(far);
    }
}

/// Which side ended.
enum Carried {
    /// With the end of its standard error.
    CommandEnded(String),
    OwnerGone,
}

async fn carry(far: &mut DuplexStream, pipe: &mut Pipe, stream: &mut Stream) -> Carried {
    let (mut from_owner, mut to_owner) = tokio::io::split(far);
    let up = async {
        let copied = tokio::io::copy(&mut from_owner, pipe).await;
        match copied {
            Ok(_) => {
                let _ = pipe.shutdown().await;
            }
            // The command has closed its input: its output tells the rest.
            Err(_) => std::future::pending().await,
        }
    };
    let down = async {
        let mut stderr = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                // The engine's own words come without a header.
                Ok(LogOutput::StdErr { message } | LogOutput::Console { message }) => {
                    stderr.extend_from_slice(&message);
                    let over = stderr.len().saturating_sub(STDERR_CAP);
                    stderr.drain(..over);
                }
                Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message }) => {
                    if to_owner.write_all(&message).await.is_err() {
                        return Carried::OwnerGone;
                    }
                }
                Err(e) => {
                    return Carried::CommandEnded(format!("its output broke off: {}", chain(&e)));
                }
            }
        }
        Carried::CommandEnded(String::from_utf8_lossy(&stderr).into_owned())
    };
    tokio::select! {
        ended = down => ended,
        () = up => Carried::OwnerGone,
    }
}

impl AsyncRead for ExecStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.near).poll_read(cx, buffer))?;
        let at_end = buffer.filled().len() == before && buffer.remaining() > 0;
        match self.ended.get().filter(|_| at_end) {
            Some((kind, why)) => Poll::Ready(Err(io::Error::new(*kind, why.clone()))),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ExecStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(cx)
    }
}
