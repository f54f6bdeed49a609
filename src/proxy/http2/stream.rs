//! One stream, as the exchange sees it: the client's side of a request.
//!
//! In: heads as edits, bodies without framing. Out: HEADERS, DATA and RST_STREAM of its connection.
//! Source: RFC 9113 §8.1, §8.2 (fields of a connection), §8.7; RFC 8441 §5.

use std::io;
use std::task::{Context, Poll};

use h2::Reason;
use h2::frame::{Headers, Pseudo, StreamId};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pushgate_plugins::head::Edits;
use tokio::io::ReadBuf;

use super::mux::Shared;
use crate::observe::end_reason::EndReason;
use crate::stream::substream::{Reset, Substream};

/// One stream. It is reset when this is dropped before its end.
pub struct Stream {
    mux: Shared,
    id: u32,
    /// An upgrade of HTTP/1.1 behind it: the 101 is a 200 here.
    websocket: bool,
}

impl Stream {
    /// The stream `id` of a connection.
    pub fn new(mux: Shared, id: u32, websocket: bool) -> Self {
        Stream { mux, id, websocket }
    }

    fn head(&self, head: &Edits) -> Box<Headers> {
        let status = match head.head().status() {
            101 if self.websocket => StatusCode::OK,
            status => StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
        };
        let pseudo = Pseudo {
            status: Some(status),
            ..Pseudo::default()
        };
        let mut fields = HeaderMap::new();
        for (name, value) in head.fields().filter(|(name, _)| !self.is_left_out(name)) {
            append(&mut fields, name.as_bytes(), value);
        }
        Box::new(Headers::new(StreamId::from(self.id), pseudo, fields))
    }

    /// Fields of a connection of HTTP/1, and the answer to a key that is ours.
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

/// Adds a field, unless it is none that HTTP/2 could carry.
fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) {
    let name = HeaderName::from_bytes(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}

/// The fields of lines of HTTP/1.
fn fields_of(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines.split(|b| *b == b'\n') {
        if let Some(colon) = memchr::memchr(b':', line) {
            append(&mut fields, &line[..colon], line[colon + 1..].trim_ascii());
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
        // What the kernel does not take now is the connection's to send.
        self.mux.lock().flush();
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: &[u8]) {
        let trailers = (!trailers.is_empty()).then(|| {
            Box::new(Headers::trailers(
                StreamId::from(self.id),
                fields_of(trailers),
            ))
        });
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
