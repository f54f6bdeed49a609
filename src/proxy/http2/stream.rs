//! Presents one stream to the exchange as the client's side of a request.
//!
//! In: heads as edits, bodies without framing. Out: HEADERS, DATA and RST_STREAM of its connection.
//! Source: RFC 9113 §8.1, §8.2 (fields of a connection), §8.7; RFC 8441 §5.

use std::io;
use std::task::{Context, Poll};

use h2::Reason;
use pushgate_plugins::head::Edits;
use tokio::io::ReadBuf;

use super::hpack::Encoded;
use super::mux::Shared;
use crate::observe::end_reason::EndReason;
use crate::stream::substream::{Reset, Substream};

/// One stream. Dropping it before its end resets the stream.
pub struct Stream {
    mux: Shared,
    id: u32,
    /// The node's side is an upgrade of HTTP/1.1, so its 101 becomes a 200 here.
    websocket: bool,
}

impl Stream {
    /// Makes the client's side of the stream `id`.
    pub fn new(mux: Shared, id: u32, websocket: bool) -> Self {
        Stream { mux, id, websocket }
    }

    fn head(&self, head: &Edits) -> Encoded {
        let mut fields = Encoded::answer(match head.head().status() {
            101 if self.websocket => 200,
            status => status,
        });
        for (name, value) in head.fields().filter(|(name, _)| !self.is_left_out(name)) {
            fields.push(name.as_bytes(), value);
        }
        fields
    }

    /// Whether a field is left out: a hop-by-hop field of HTTP/1, or the answer to a key of our own.
    fn is_left_out(&self, name: &str) -> bool {
        const LEFT_OUT: &[&str] = &[
            "connection",
            "transfer-encoding",
            "upgrade",
            "keep-alive",
            "proxy-connection",
        ];
        LEFT_OUT
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
            || (self.websocket && name.eq_ignore_ascii_case("sec-websocket-accept"))
    }
}

/// Encodes trailers, given as lines of HTTP/1.
fn trailers(lines: &[u8]) -> Encoded {
    let mut fields = Encoded::trailers();
    for line in lines.split(|b| *b == b'\n') {
        if let Some(colon) = memchr::memchr(b':', line) {
            fields.push(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    fields
}

impl Substream for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.mux.lock().poll_read(self.id, cx, buf)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.lock().poll_readable(self.id, cx)
    }

    fn received(&self) -> u64 {
        self.mux.lock().received(self.id)
    }

    fn take_trailers(&mut self) -> Vec<u8> {
        self.mux.lock().take_trailers(self.id)
    }

    fn send_head(&mut self, head: &Edits, last: bool) -> io::Result<()> {
        let head = self.head(head);
        self.mux.lock().send_head(self.id, head, last)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        self.mux.lock().poll_write(self.id, cx, data, last)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task sends what the kernel does not take now.
        self.mux.lock().flush();
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, lines: &[u8]) {
        let trailers = (!lines.is_empty()).then(|| trailers(lines));
        self.mux.lock().end_stream(self.id, trailers);
    }

    fn reset(&mut self, how: Reset) {
        let reason = match how {
            Reset::Cut => Reason::CANCEL,
            Reset::Refused => Reason::REFUSED_STREAM,
            Reset::NoError => Reason::NO_ERROR,
        };
        self.mux.lock().reset(self.id, reason);
    }

    fn poll_all_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.lock().poll_all_sent(self.id, cx)
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        self.mux.lock().poll_gone(self.id, cx)
    }

    fn gone(&self) -> Option<EndReason> {
        self.mux.lock().gone(self.id)
    }

    fn unacknowledged(&self) -> u64 {
        self.mux.lock().unacknowledged()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.mux.lock().forget(self.id);
    }
}
