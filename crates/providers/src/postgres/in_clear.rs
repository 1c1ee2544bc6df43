//! Keeping a password from whoever carries the bytes.
//!
//! With SCRAM nobody on the way learns the password. But the server says how it wants to be shown it, and whoever carries the
//! bytes could say in its place: in clear. Over a relay that is refused before the client sees it.
//!
//! It is the first message that asks (protocol 3.0, `AuthenticationCleartextPassword`); the client takes no second one.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Type, length and kind of the message.
const ASKS_FOR_IT: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

/// A stream whose first message is read along.
pub(super) struct NotInClear<S> {
    inner: S,
    /// What has come of the first message so far.
    first: Vec<u8>,
}

/// The server, or somebody in between, asked for the password in clear.
#[derive(Debug)]
pub(super) struct AskedInClear;

impl fmt::Display for AskedInClear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password was asked for in clear, which keyroll does not show to a relay")
    }
}

impl std::error::Error for AskedInClear {}

impl<S> NotInClear<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            first: Vec::with_capacity(ASKS_FOR_IT.len()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NotInClear<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wanted = (ASKS_FOR_IT.len() - self.first.len()).min(buffer.remaining());
        if wanted == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let mut space = [0; ASKS_FOR_IT.len()];
        let mut part = ReadBuf::new(&mut space[..wanted]);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        self.first.extend_from_slice(part.filled());
        if self.first == ASKS_FOR_IT {
            return Poll::Ready(Err(io::Error::other(AskedInClear)));
        }
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NotInClear<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
