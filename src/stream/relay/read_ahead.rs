//! Keeps the bytes that a client sends after its request, for the next request.
//!
//! In: the client's side. Out: at most [`MAX_READ_AHEAD`] bytes. The client's end ends the exchange.
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
    /// The last read found the socket empty.
    dry: bool,
}

impl ReadAhead {
    /// Appends bytes that were read elsewhere.
    pub fn keep(&mut self, more: Vec<u8>) {
        match self.kept.is_empty() {
            // An empty vector may still have the memory into which the request's head was read.
            true if more.is_empty() => {}
            true => self.kept = more,
            false => self.kept.extend_from_slice(&more),
        }
    }

    /// Takes the kept bytes.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Keeps bytes as they come; ready, with the reason, when the client has ended.
    pub fn watch(&mut self, cx: &mut Context<'_>, client: &mut Side) -> Poll<EndReason> {
        watch(cx, client, &mut self.kept, &mut self.dry)
    }
}

/// Reads the client's bytes into `kept`, up to [`MAX_READ_AHEAD`]; ready, with the reason, when the client
/// has ended. `dry`: the last read found its socket empty.
pub fn watch(
    cx: &mut Context<'_>,
    client: &mut Side,
    kept: &mut Vec<u8>,
    dry: &mut bool,
) -> Poll<EndReason> {
    if let Side::Stream(stream) = client {
        // Its body waits in the stream, and no other request follows it.
        return stream.poll_gone(cx);
    }
    while kept.len() < MAX_READ_AHEAD {
        if *dry && ready!(client.poll_readable(cx)).is_err() {
            return Poll::Ready(EndReason::ClientFailed);
        }
        let read = client.poll_more(cx, kept, MAX_READ_AHEAD - kept.len());
        *dry = read.is_pending();
        match ready!(read) {
            // No message is open here, so an end without close_notify cuts nothing.
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
