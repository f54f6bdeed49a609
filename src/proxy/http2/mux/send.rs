//! Sends to the client: heads at once; bodies in turns, as the windows and the socket take them.
//!
//! Source: RFC 9113 §5.2, §6.1, §6.9; Lightstreamer clustering §1 (TCP back-pressure).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use h2::Reason;
use h2::frame::{Head, Kind, StreamId};
use tokio::io::AsyncWrite;

use super::{Connection, FrameError, MAX_FRAME, Mux, OfStream};
use crate::proxy::http2::hpack::Encoded;

impl Mux {
    /// Writes the frames that wait, and wakes the streams that can go on.
    pub fn flush(&mut self) {
        if self.write_waiting() {
            self.next_turn();
            self.wake_if_sent();
        }
    }

    /// Takes a WINDOW_UPDATE: the client accepts `more` bytes on the stream, or on the connection if `id` is
    /// 0.
    pub fn window_update(&mut self, id: u32, more: u32) -> Result<(), FrameError> {
        const MOST: i64 = i32::MAX as i64;
        if id == 0 {
            self.window += i64::from(more);
            if self.window > MOST {
                return Err(Connection(Reason::FLOW_CONTROL_ERROR));
            }
            self.next_turn();
            return Ok(());
        }
        if id > self.last {
            return Err(Connection(Reason::PROTOCOL_ERROR));
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.window += i64::from(more);
            if stream.window > MOST {
                return Err(OfStream(id, Reason::FLOW_CONTROL_ERROR));
            }
            stream.wake();
        }
        Ok(())
    }

    /// Takes the client's initial window: the bytes that each stream may send at first.
    pub fn set_first_window(&mut self, window: u32) -> Result<(), FrameError> {
        let more = i64::from(window) - self.first_window;
        self.first_window = i64::from(window);
        for stream in self.streams.values_mut() {
            stream.window += more;
            if stream.window > i64::from(i32::MAX) {
                return Err(Connection(Reason::FLOW_CONTROL_ERROR));
            }
            if more > 0 {
                stream.wake();
            }
        }
        Ok(())
    }

    /// Takes a head, which leaves with the next write or flush. `last`: the answer ends with it.
    pub fn send_head(&mut self, id: u32, head: Encoded, last: bool) -> io::Result<()> {
        self.alive(id)?;
        if last {
            self.we_ended(id);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.answered = true;
        }
        self.put_head(id, head, last);
        Ok(())
    }

    /// Writes one DATA frame, if it is the stream's turn, and returns how much of `data` is in it. `last`: the answer
    /// ends with `data`.
    pub fn poll_write(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        self.alive(id)?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let window = self.streams.get(&id).map_or(0, |s| s.window);
        if window <= 0 {
            self.leave_queue(id);
            self.wait_for(id, cx);
            // A head does not wait for its body's window.
            self.write_if_open();
            return Poll::Pending;
        }
        if !self.is_turn_of(id) || self.window <= 0 || (self.has_waiting() && !self.write_waiting())
        {
            self.wait_for(id, cx);
            self.write_if_open();
            if !self.turns.contains(&id) {
                self.turns.push_back(id);
            }
            return Poll::Pending;
        }
        let most = window.min(self.window).min(MAX_FRAME as i64) as usize;
        let n = most.min(data.len());
        let is_last = last && n == data.len();
        self.put_data(id, &data[..n], is_last);
        if is_last {
            self.we_ended(id);
        }
        self.window -= n as i64;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.window -= n as i64;
            stream.sent = false;
        }
        let written = self.write_waiting();
        if self.turns.front() == Some(&id) {
            self.turns.pop_front();
        }
        if written {
            self.next_turn();
        }
        Poll::Ready(Ok(n))
    }

    /// Ends the answer, with the trailers if it has any.
    pub fn end_stream(&mut self, id: u32, trailers: Option<Encoded>) {
        if self.alive(id).is_err() || self.streams.get(&id).is_none_or(|s| s.sent_end) {
            return;
        }
        match trailers {
            Some(trailers) => self.put_head(id, trailers, true),
            None => self.put_data(id, b"", true),
        }
        self.we_ended(id);
        self.flush();
    }

    /// Ready when the kernel has sent all that the stream wrote. It does not wait for a sibling that goes on
    /// writing: a bulk stream would delay a stream of messages for ever.
    pub fn poll_all_sent(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(id)?;
        let stream = self.streams.get_mut(&id);
        if stream.is_some_and(|s| std::mem::take(&mut s.sent)) {
            return Poll::Ready(Ok(()));
        }
        if self.write_waiting() && self.is_sent() {
            self.unsent.retain(|i| *i != id);
            self.note_sent();
            return Poll::Ready(Ok(()));
        }
        self.wait_for(id, cx);
        if !self.unsent.contains(&id) {
            self.unsent.push(id);
        }
        Poll::Pending
    }

    fn is_turn_of(&self, id: u32) -> bool {
        !self.blocked && self.turns.front().is_none_or(|first| *first == id)
    }

    /// Whether frames wait that must leave first. Frames of a stalled socket do; a head that leaves with the
    /// first bytes of its body does not.
    fn has_waiting(&self) -> bool {
        self.output.len() >= MAX_FRAME
    }

    fn put_head(&mut self, id: u32, head: Encoded, last: bool) {
        let first = !std::mem::replace(&mut self.has_sent_head, true);
        head.write(id, first, last, &mut self.output);
    }

    pub(super) fn put_data(&mut self, id: u32, payload: &[u8], last: bool) {
        let head = Head::new(Kind::Data, u8::from(last), StreamId::from(id));
        head.encode(payload.len(), &mut self.output);
        self.output.extend_from_slice(payload);
    }

    pub(super) fn leave_queue(&mut self, id: u32) {
        if let Some(at) = self.turns.iter().position(|i| *i == id) {
            self.turns.remove(at);
            if at == 0 && !self.blocked {
                self.next_turn();
            }
        }
    }

    /// Wakes the stream whose turn it is.
    fn next_turn(&mut self) {
        if self.blocked || self.window <= 0 {
            return;
        }
        if let Some(stream) = self.turns.front().and_then(|id| self.streams.get_mut(id)) {
            stream.wake();
        }
    }

    fn wake_if_sent(&mut self) {
        if !self.unsent.is_empty() && self.is_sent() {
            self.note_sent();
        }
    }

    /// Wakes the streams that wait until the kernel has sent what they wrote.
    fn note_sent(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.sent = true;
                stream.wake();
            }
        }
    }

    fn is_sent(&self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        let side = self.side.as_ref();
        side.is_none_or(|side| side.poll_all_sent(&mut cx).is_ready())
    }

    /// Writes the frames that wait, unless the socket last took nothing.
    pub(super) fn write_if_open(&mut self) {
        if !self.blocked {
            self.write_waiting();
        }
    }

    /// Writes all frames that wait. True: the kernel has taken them.
    pub(super) fn write_waiting(&mut self) -> bool {
        let Some(side) = &mut self.side else {
            return false;
        };
        let mut cx = Context::from_waker(&self.waker);
        while !self.output.is_empty() {
            match Pin::new(&mut *side).poll_write(&mut cx, &self.output) {
                Poll::Ready(Ok(n)) if n > 0 => self.output.advance(n),
                // The connection's task reads, so it notices a broken connection.
                failed => {
                    self.broken = failed.is_ready();
                    self.blocked = true;
                    return false;
                }
            }
        }
        // A silent connection keeps no buffer.
        self.output = BytesMut::new();
        self.blocked = false;
        true
    }
}
