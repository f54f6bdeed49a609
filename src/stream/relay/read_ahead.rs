//! Keeps the bytes a client sends behind its request, until the next request.
//!
//! In: the client's side. Out: at most [`MAX_READ_AHEAD`] bytes. The client's end is the end of the exchange.
//! Source: RFC 9112 §9.3.2 (pipelining), §9.5; Lightstreamer clustering §1 (TCP back-pressure).

use std::io;
use std::task::{Context, Poll, ready};

use crate::observe::end_reason::EndReason;
use crate::stream::side::Side;

/// Most bytes kept of a client's next requests, or of early WebSocket frames.
pub const MAX_READ_AHEAD: usize = 16 * 1024;

/// Bytes of the client's next requests.
#[derive(Default)]
pub struct ReadAhead {
    kept: Vec<u8>,
    /// The socket had nothing when it was asked last.
    dry: bool,
}

impl ReadAhead {
    /// Keeps bytes that were read elsewhere, behind those kept so far.
    pub fn keep(&mut self, more: Vec<u8>) {
        match self.kept.is_empty() {
            // An empty one may still have the memory in which the request's head was read.
            true if more.is_empty() => {}
            true => self.kept = more,
            false => self.kept.extend_from_slice(&more),
        }
    }

    /// Takes what is kept.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Keeps bytes as they come; ready when the client has ended.
    pub fn watch(&mut self, cx: &mut Context<'_>, client: &mut Side) -> Poll<EndReason> {
        watch(cx, client, &mut self.kept, &mut self.dry)
    }
}

/// Reads the client's bytes into `kept`, up to [`MAX_READ_AHEAD`] bytes; ready when it has ended. `dry`: its
/// socket had nothing when it was asked last.
pub fn watch(
    cx: &mut Context<'_>,
    client: &mut Side,
    kept: &mut Vec<u8>,
    dry: &mut bool,
) -> Poll<EndReason> {
    if let Side::Stream(stream) = client {
        // Its body waits in the stream, and behind it comes no other request.
        return stream.poll_gone(cx);
    }
    while kept.len() < MAX_READ_AHEAD {
        if *dry && ready!(client.poll_readable(cx)).is_err() {
            return Poll::Ready(EndReason::ClientFailed);
        }
        let read = client.poll_more(cx, kept, MAX_READ_AHEAD - kept.len());
        *dry = read.is_pending();
        match ready!(read) {
            // Between requests and behind one, an end without close_notify cuts nothing.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(EndReason::ClientClosed);
            }
            Err(_) => return Poll::Ready(EndReason::ClientFailed),
            Ok(0) => return Poll::Ready(EndReason::ClientClosed),
            Ok(_) => {}
        }
    }
    match client.tcp() {
        Some(tcp) => tcp.poll_ended(cx).map(|()| EndReason::ClientClosed),
        None => Poll::Pending,
    }
}
