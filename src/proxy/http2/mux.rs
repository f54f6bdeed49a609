//! Holds the streams of one connection and its socket, shared by the tasks of the connection and its streams.
//!
//! In: the bytes that a stream writes, windows. Out: frames. A stream writes into the socket itself, so a
//! message wakes one task. While the socket takes nothing, streams wait in line, and each turn is one frame:
//! no stream delays another by more.
//! Source: RFC 9113 §5.2 (flow control), §6.9; Lightstreamer clustering §1 (TCP back-pressure).

mod receive;
mod send;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use h2::Reason;
use h2::frame::{GoAway, Reset, StreamId};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

use super::input::FrameError::{self, Connection, Stream as OfStream};
use crate::observe::end_reason::EndReason;
use crate::stream::side::Side;

/// The streams of a connection, as its tasks share them.
pub type Shared = Arc<Mutex<Mux>>;

/// Bytes of a request's body that a stream may hold. This is RFC 9113's default, so no client waits for us to
/// announce a larger window.
pub const STREAM_WINDOW: u32 = 65_535;
/// Most bytes of a DATA frame that we send, even if the client accepts more: one TLS record.
const MAX_FRAME: usize = 16 * 1024;
/// Bytes waiting for a client that does not read, from which on the edge reads nothing more from it. Heads of answers
/// may still be added.
const MAX_OUTPUT: usize = 64 * 1024;
/// How many of the streams we reset are remembered. Frames that a client sent before it saw our reset are no
/// fault.
const MAX_RESET: usize = 128;

/// The streams of one connection, and its socket.
pub struct Mux {
    /// `None` once the connection is over.
    side: Option<Side>,
    has_sent_head: bool,
    /// Frames that the socket has not taken. No byte of a body is added while the socket takes nothing.
    output: BytesMut,
    streams: HashMap<u32, Stream>,
    /// The connection's task. It is woken when the socket takes bytes again, and when a stream is forgotten.
    waker: Waker,
    /// The socket took nothing at the last write.
    blocked: bool,
    /// The socket failed at the last write.
    broken: bool,
    /// Streams that wait for the socket or for the connection's window, in the order of their turns.
    turns: VecDeque<u32>,
    /// Streams that wait until the kernel has sent all bytes.
    unsent: Vec<u32>,
    /// Bytes that the client accepts on this connection, and at first on each stream.
    window: i64,
    first_window: i64,
    /// Bytes that the client may still send on this connection, and bytes of its window to give back.
    receives: i64,
    owed: u32,
    /// Number of streams that are not closed.
    open: usize,
    /// Number of the newest stream.
    last: u32,
    /// The streams that we reset last, the oldest first.
    reset: VecDeque<u32>,
    /// The end reason of a stream that is not in `streams`.
    over: EndReason,
}

/// One stream.
struct Stream {
    /// Bytes of the body that were not read yet. One buffer, because a client may send single bytes.
    body: BytesMut,
    trailers: Vec<u8>,
    /// The client has ended its side.
    ended: bool,
    /// Bytes of the body that have not arrived, if its length is known.
    expected: Option<u64>,
    /// Bytes that the client may still send, and bytes of its window to give back.
    receives: i64,
    owed: u32,
    /// Bytes of the body that were read.
    received: u64,
    /// Bytes that the client accepts.
    window: i64,
    /// A head was sent: of its answer, or of an interim answer (1xx).
    answered: bool,
    /// The kernel has sent all bytes for which the stream last waited.
    sent: bool,
    /// We have ended our side.
    sent_end: bool,
    /// Why the stream was lost.
    gone: Option<EndReason>,
    /// The stream's task, if it waits.
    waker: Option<Waker>,
}

impl Stream {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn is_closed(&self) -> bool {
        self.gone.is_some() || (self.ended && self.sent_end)
    }
}

impl Mux {
    /// Makes the state of a connection whose preface has been read, without streams. `receives`: bytes that
    /// the client may send on the connection.
    pub fn new(side: Side, receives: u32) -> Shared {
        Arc::new(Mutex::new(Mux {
            side: Some(side),
            has_sent_head: false,
            output: BytesMut::new(),
            streams: HashMap::new(),
            waker: Waker::noop().clone(),
            blocked: false,
            broken: false,
            turns: VecDeque::new(),
            unsent: Vec::new(),
            window: i64::from(STREAM_WINDOW),
            first_window: i64::from(STREAM_WINDOW),
            receives: i64::from(receives),
            owed: 0,
            open: 0,
            last: 0,
            reset: VecDeque::new(),
            over: EndReason::ClientClosed,
        }))
    }

    /// Makes the task of `cx` the connection's task.
    pub fn wait(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
        }
    }

    /// Reads from the socket; nothing at its end.
    ///
    /// Errors: the connection is broken.
    pub fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.side {
            Some(side) => Pin::new(side).poll_read(cx, buf),
            None => Poll::Ready(Err(broken())),
        }
    }

    /// Ready once the client has left, although the edge does not read it.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = self.side.as_ref().and_then(Side::tcp);
        tcp.map_or(Poll::Pending, |tcp| tcp.poll_ended(cx))
    }

    /// Returns the number of the newest stream.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Counts the streams that are not closed.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether no stream is left.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether a client that does not read has [`MAX_OUTPUT`] bytes waiting, so the edge must not read it
    /// either. A broken connection is still read, so that its task notices.
    pub fn is_clogged(&self) -> bool {
        self.blocked && !self.broken && self.output.len() >= MAX_OUTPUT
    }

    /// Begins the stream `id`. `ended`: its client has ended its side. `expected`: bytes of the body, if
    /// known.
    pub fn begin(&mut self, id: u32, ended: bool, expected: Option<u64>) {
        self.last = id;
        self.open += 1;
        let stream = Stream {
            body: BytesMut::new(),
            trailers: Vec::new(),
            ended,
            expected,
            receives: i64::from(STREAM_WINDOW),
            owed: 0,
            received: 0,
            window: self.first_window,
            answered: false,
            sent: false,
            sent_end: false,
            gone: None,
            waker: None,
        };
        self.streams.insert(id, stream);
    }

    /// Resets a stream that never began; its number is used up.
    pub fn refuse(&mut self, id: u32, reason: Reason) {
        self.last = self.last.max(id);
        self.send_reset(id, reason);
    }

    /// Takes the client's reset of a stream. True: the stream was open and its answer had not begun.
    ///
    /// Errors: no such stream has begun.
    pub fn was_reset(&mut self, id: u32) -> Result<bool, FrameError> {
        if id > self.last || id.is_multiple_of(2) {
            return Err(Connection(Reason::PROTOCOL_ERROR));
        }
        let stream = self.streams.get(&id);
        let unanswered = stream.is_some_and(|s| !s.is_closed() && !s.answered);
        self.lose(id, EndReason::ClientClosed);
        Ok(unanswered)
    }

    /// Judges a frame of a stream that is not open. If we have reset that stream, the client is not at fault.
    pub fn unknown(&self, id: u32) -> Result<(), FrameError> {
        match id {
            _ if self.reset.contains(&id) => Ok(()),
            _ if id > self.last => Err(Connection(Reason::PROTOCOL_ERROR)),
            _ => Err(Connection(Reason::STREAM_CLOSED)),
        }
    }

    /// Whether the stream `id` has begun, and was neither lost nor forgotten.
    pub fn has(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| s.gone.is_none())
    }

    /// Whether the client has ended its side of the stream `id`.
    pub fn has_ended(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| s.ended)
    }

    /// Resets a stream whose client broke the protocol.
    pub fn fail(&mut self, id: u32, reason: Reason) {
        self.send_reset(id, reason);
        self.lose(id, EndReason::BadRequest);
    }

    /// Sends GOAWAY: no stream behind `last` is served.
    pub fn go_away(&mut self, last: u32, reason: Reason) {
        GoAway::new(StreamId::from(last), reason).encode(&mut self.output);
    }

    /// Returns the frames that leave with the next flush.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Ends all streams because of `reason`. Returns the socket, so that the caller can end the connection, and the
    /// streams that wait, which the caller must wake.
    pub fn end(&mut self, reason: EndReason) -> (Option<Side>, Vec<Waker>) {
        self.over = reason;
        let waiting = self.streams.values_mut().filter_map(|stream| {
            stream.gone.get_or_insert(reason);
            stream.waker.take()
        });
        let waiting = waiting.collect();
        (self.side.take(), waiting)
    }

    /// Resets a stream, unless it is closed.
    pub fn reset(&mut self, id: u32, reason: Reason) {
        if self.streams.get(&id).is_some_and(|s| !s.is_closed()) {
            self.send_reset(id, reason);
            self.lose(id, EndReason::ClientClosed);
            self.flush();
        }
    }

    /// Ready when the stream was reset or its connection is over.
    pub fn poll_gone(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<EndReason> {
        match self.gone(id) {
            Some(reason) => Poll::Ready(reason),
            None => {
                self.wait_for(id, cx);
                Poll::Pending
            }
        }
    }

    /// Returns why the stream was lost; `None`: it was not.
    pub fn gone(&self, id: u32) -> Option<EndReason> {
        match self.streams.get(&id) {
            Some(stream) => stream.gone,
            None => Some(self.over),
        }
    }

    /// Counts the connection's bytes that its client has not acknowledged, and those that wait here.
    pub fn unacknowledged(&self) -> u64 {
        let kernel = self.side.as_ref().map_or(0, Side::unacknowledged);
        kernel + self.output.len() as u64
    }

    /// Forgets a stream whose exchange is over, and resets it if it is not closed.
    pub fn forget(&mut self, id: u32) {
        let open = self.streams.get(&id).filter(|s| !s.is_closed());
        // A complete answer does not need the rest of its request (RFC 9113 §8.1).
        let how = open.map(|s| match s.sent_end {
            true => Reason::NO_ERROR,
            false => Reason::CANCEL,
        });
        if let Some(reason) = how {
            self.reset(id, reason);
        }
        self.streams.remove(&id);
        self.leave_queue(id);
        self.unsent.retain(|i| *i != id);
        // Wakes the connection's task. A drain ends with the last stream, and the task watches the idle
        // upstream that this stream leaves.
        self.waker.wake_by_ref();
    }

    fn alive(&self, id: u32) -> io::Result<()> {
        match self.gone(id) {
            None if self.side.is_some() => Ok(()),
            _ => Err(broken()),
        }
    }

    fn wait_for(&mut self, id: u32, cx: &Context<'_>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.wait(cx);
        }
    }

    fn send_reset(&mut self, id: u32, reason: Reason) {
        if self.reset.len() == MAX_RESET {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
        Reset::new(StreamId::from(id), reason).encode(&mut self.output);
    }

    /// Marks a stream as lost: it is over before both sides ended it.
    fn lose(&mut self, id: u32, why: EndReason) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let was_open = !stream.is_closed();
            stream.gone.get_or_insert(why);
            stream.body = BytesMut::new();
            stream.wake();
            self.open -= usize::from(was_open);
        }
        self.leave_queue(id);
    }

    fn client_ended(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ended = true;
            self.open -= usize::from(stream.is_closed());
        }
    }

    fn we_ended(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.sent_end
        {
            stream.sent_end = true;
            self.open -= usize::from(stream.is_closed());
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
