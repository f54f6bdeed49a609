//! One stream of a client connection that carries many: a client's side without a socket of its own.
//!
//! In: what a relay asks of a side. Out: the body of one request, the head and body of its answer.
//! Source: RFC 9113 §5, §8.1.

use std::io;
use std::task::{Context, Poll};

use pushgate_plugins::head::Edits;
use tokio::io::ReadBuf;

use crate::observe::end_reason::EndReason;

/// How a stream is told that it ends before its message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The answer is cut: what came of it is not whole.
    Cut,
    /// No node has had the request: the client may send it again (RFC 9113 §8.7).
    Refused,
    /// The answer is whole, the rest of the request is not wanted (RFC 9113 §8.1).
    NoError,
}

/// A stream. Bodies pass without HTTP/1's framing, and its end is a part of it.
///
/// All `poll_` functions wake one task, the one that polled last. A stream that is dropped before its end is
/// reset.
pub trait Substream: Send + Sync {
    /// Reads of the request's body; nothing at its end.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Ready when [`Substream::poll_read`] is.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes of the request's body that were read.
    fn received(&self) -> u64;

    /// The trailers of the request as lines of HTTP/1, once its body has been read; empty without any.
    fn take_trailers(&mut self) -> Vec<u8>;

    /// Sends the head of an answer; with `last` it is all of it. It leaves with the next write or flush.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn send_head(&mut self, head: &Edits, last: bool) -> io::Result<()>;

    /// Takes as much of the answer's body as client and kernel take now; with `last` it ends the answer.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>>;

    /// Sends what was written and waits in the process.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the answer, with `trailers` as lines of HTTP/1; nothing if it has ended.
    fn end(&mut self, trailers: &[u8]);

    /// Ends the stream now; nothing if both sides have ended it.
    fn reset(&mut self, how: Reset);

    /// Ready when the kernel has sent all that the connection was given.
    fn poll_all_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the client has reset the stream or its connection has ended, and which of them.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<EndReason>;

    /// Why the stream is over, where its client has ended it.
    fn gone(&self) -> Option<EndReason>;

    /// Bytes of the connection that wait here or that its client has not acknowledged.
    fn unacknowledged(&self) -> u64;
}
