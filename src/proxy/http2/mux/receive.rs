//! Takes what the client sends on a stream: its body and its trailers, within the windows.
//!
//! Source: RFC 9113 §5.1, §5.2, §6.1, §6.9.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use h2::Reason;
use h2::frame::{StreamId, WindowUpdate};
use tokio::io::ReadBuf;

use super::{Connection, FrameError, Mux, OfStream, STREAM_WINDOW, broken};

impl Mux {
    /// Takes DATA that counts `length` bytes in the windows. `last`: the client ends its side with it.
    pub fn data(
        &mut self,
        id: u32,
        payload: &[u8],
        length: u32,
        last: bool,
    ) -> Result<(), FrameError> {
        self.receives -= i64::from(length);
        if self.receives < 0 {
            return Err(Connection(Reason::FLOW_CONTROL_ERROR));
        }
        self.owed += length;
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.gone.is_none()) else {
            return self.unknown(id);
        };
        if stream.ended {
            return Err(OfStream(id, Reason::STREAM_CLOSED));
        }
        stream.receives -= i64::from(length);
        if stream.receives < 0 {
            return Err(OfStream(id, Reason::FLOW_CONTROL_ERROR));
        }
        let n = payload.len() as u64;
        if let Some(expected) = &mut stream.expected {
            let left = expected.checked_sub(n).filter(|left| !last || *left == 0);
            *expected = left.ok_or(OfStream(id, Reason::PROTOCOL_ERROR))?;
        }
        // No reader takes padding, so its part of the window is given back at once.
        stream.owed += length - payload.len() as u32;
        stream.body.extend_from_slice(payload);
        stream.wake();
        match last {
            true => self.client_ended(id),
            false => drop(self.give_back_of(id)),
        }
        Ok(())
    }

    /// Takes trailers, as lines of HTTP/1.
    pub fn trailers(&mut self, id: u32, lines: Vec<u8>) -> Result<(), FrameError> {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.gone.is_none()) else {
            return self.unknown(id);
        };
        if stream.expected.is_some_and(|left| left > 0) {
            return Err(OfStream(id, Reason::PROTOCOL_ERROR));
        }
        stream.trailers = lines;
        stream.wake();
        self.client_ended(id);
        Ok(())
    }

    /// Gives the connection's window back when a quarter of it is used. The windows of the streams bound what
    /// waits here. `whole`: the window's size in bytes.
    pub fn give_back(&mut self, whole: u32) {
        if self.owed >= whole / 4 {
            self.receives += i64::from(self.owed);
            let more = std::mem::take(&mut self.owed);
            WindowUpdate::new(StreamId::ZERO, more).encode(&mut self.output);
        }
    }

    /// Reads from the body of a stream.
    pub fn poll_read(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(id, cx))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(broken()));
        };
        let n = stream.body.len().min(buf.remaining());
        buf.put_slice(&stream.body[..n]);
        stream.body.advance(n);
        if stream.body.is_empty() {
            stream.body = BytesMut::new();
        }
        stream.owed += n as u32;
        stream.received += n as u64;
        if self.give_back_of(id) {
            self.write_if_open();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when [`Mux::poll_read`] is.
    pub fn poll_readable(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(broken()));
        };
        if !stream.body.is_empty() || stream.ended {
            return Poll::Ready(Ok(()));
        }
        if stream.gone.is_some() {
            return Poll::Ready(Err(broken()));
        }
        stream.wait(cx);
        Poll::Pending
    }

    /// Returns how many bytes of a stream's body were read.
    pub fn received(&self, id: u32) -> u64 {
        self.streams.get(&id).map_or(0, |s| s.received)
    }

    /// Takes the trailers of a request.
    pub fn take_trailers(&mut self, id: u32) -> Vec<u8> {
        let stream = self.streams.get_mut(&id);
        stream.map_or_else(Vec::new, |s| std::mem::take(&mut s.trailers))
    }

    /// Gives a stream's window back when half of it is used. True: it did.
    fn give_back_of(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        if stream.owed < STREAM_WINDOW / 2 || stream.ended {
            return false;
        }
        stream.receives += i64::from(stream.owed);
        let more = std::mem::take(&mut stream.owed);
        WindowUpdate::new(StreamId::from(id), more).encode(&mut self.output);
        true
    }
}
