//! One stream of a client connection that carries many: the client's side of a relay, without a socket of its
//! own.
//!
//! In: the calls of a relay. Out: the body of one request; the head and body of its answer.
//! Source: RFC 9113 §5, §8.1.

use std::io;
use std::task::{Context, Poll};

use pushgate_plugins::head::Edits;
use tokio::io::ReadBuf;

use crate::observe::end_reason::EndReason;

/// Why a stream ends before its message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The answer is cut: the client must not take it for whole.
    Cut,
    /// No node has seen the request: the client may send it again (RFC 9113 §8.7).
    Refused,
    /// The answer is whole and the rest of the request is not needed (RFC 9113 §8.1).
    NoError,
}

/// A stream, as a relay sees it. Bodies pass without HTTP/1's framing, and the end of a body is part of the
/// stream.
///
/// All `poll_` functions wake one task, the one that polled last. A stream that is dropped before its end is
/// reset.
pub trait Substream: Send + Sync {
    /// Reads bytes of the request's body; no bytes at its end.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Ready when [`Substream::poll_read`] is.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Returns how many bytes of the request's body were read.
    fn received(&self) -> u64;

    /// Takes the trailers of the request, as lines of HTTP/1, once its body is read; empty if it has no
    /// trailers.
    fn take_trailers(&mut self) -> Vec<u8>;

    /// Sends the head of an answer, which leaves with the next write or flush. `last`: the answer has no
    /// body.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn send_head(&mut self, head: &Edits, last: bool) -> io::Result<()>;

    /// Writes as much of the answer's body as client and kernel take now. `last`: the last byte ends the
    /// answer.
    ///
    /// Errors: the stream was reset, or its connection ended.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>>;

    /// Sends bytes that were written and still wait in the process.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the answer, with `trailers` as lines of HTTP/1. Does nothing if the answer has ended.
    fn end(&mut self, trailers: &[u8]);

    /// Resets the stream now. Does nothing if both sides have ended it.
    fn reset(&mut self, how: Reset);

    /// Ready when the kernel has sent every byte of the connection.
    fn poll_all_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready, with the reason, when the client has reset the stream or its connection has ended.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<EndReason>;

    /// Returns why the stream is over, if its client or its connection ended it.
    fn gone(&self) -> Option<EndReason>;

    /// Returns how many bytes of the connection wait in the process or are unacknowledged by its client.
    fn unacknowledged(&self) -> u64;
}
