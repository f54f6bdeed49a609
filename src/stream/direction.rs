//! One direction of a relay: moves bytes from one side, the source, to the other, the sink, up to the end of their
//! message.
//!
//! In: bytes from the source. Out: the same data at the sink, at once, framed anew if the heads differ ([`Wrap`]);
//! none after the end of the message. The next read waits until the sink has taken all bytes of the last one. A
//! silent direction allocates nothing.
//! Source: Lightstreamer clustering §1; RFC 9112 §6, §7.1.

mod waits;

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::bulk::Bulk;
use super::frames::Frames;
use super::framing::{Framing, FramingError, Wrap};
use super::pending_bytes::PendingBytes;
use super::side::Side;
use super::window::Window;

/// Why a direction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectionError {
    /// The source's connection broke.
    Source,
    /// The source ended within a message.
    Ended,
    /// The sink's connection broke.
    Sink,
    /// The source's message is illegally framed.
    Framing(FramingError),
}

/// `Ready(Ok)`: the message or the source has ended, and the sink took every byte.
pub type Pumped = Poll<Result<(), DirectionError>>;

thread_local! {
    /// One read buffer for each thread: a relay holds memory only for bytes that wait.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE_LINE + MAX_READ + CRLF.len()]);
}

/// Most bytes of one read.
const MAX_READ: usize = 64 * 1024;
/// Room for the size line of a chunk in front of the bytes read: 8 digits and CRLF.
const SIZE_LINE: usize = 10;
const CRLF: &[u8] = b"\r\n";
/// Longest message, in bytes, of which a copy is kept for a retry.
pub const MAX_COPY: usize = 64 * 1024;
const LAST_CHUNK: &[u8] = b"0\r\n";

/// One direction of a relay.
pub struct Direction {
    /// Bytes that were read and that the sink has not taken.
    pending: PendingBytes,
    /// Framing of the source's message.
    framing: Framing,
    wrap: Wrap,
    /// Most bytes of one read. On demand also: most bytes unsent in our kernel for the sink. Bulk raises both.
    most: usize,
    /// On demand: bytes given to our kernel for the sink since we last saw none unsent. `None`: not on demand.
    unsent: Option<u32>,
    /// On demand: the receive window that we offer to the source.
    window: Window,
    /// The source has nothing more to read now: wait for its readiness before the next read.
    dry: bool,
    ended: bool,
    /// Bytes that the source sent after the end of its message.
    surplus: PendingBytes,
    passed: u64,
    frames: Option<Frames>,
    bulk: Bulk,
    /// A copy of the message so far, for a retry.
    #[allow(
        clippy::box_collection,
        reason = "a silent flow has none, and two such places"
    )]
    copy: Option<Box<Vec<u8>>>,
}

impl Direction {
    /// Creates a direction that moves every byte until the source ends. `on_demand`: at most `most` bytes are
    /// unsent in our kernel for the sink; from half of it on, the direction waits until all are sent. Otherwise
    /// `most` only bounds one read. `bulk`: a fast flow is offered a receive window of up to the sink's TCP window
    /// plus the small one.
    pub fn new(on_demand: bool, most: usize, bulk: bool) -> Self {
        Direction {
            pending: PendingBytes::default(),
            framing: Framing::UntilClose,
            wrap: Wrap::AsIs,
            most,
            unsent: on_demand.then_some(0),
            window: Window::new(on_demand && bulk, most),
            dry: false,
            ended: false,
            surplus: PendingBytes::default(),
            passed: 0,
            frames: None,
            bulk: Bulk::default(),
            copy: None,
        }
    }

    /// Limits the direction to one message in `framing`; the sink gets it in `wrap`.
    pub fn set_message(&mut self, framing: Framing, wrap: Wrap) {
        (self.framing, self.wrap) = (framing, wrap);
    }

    /// Appends to `out` what the sink must get of `begun`, bytes of the source that were read elsewhere. The
    /// caller writes `out` and reports with [`Direction::wrote`] how much the sink took.
    ///
    /// Errors: `begun` is illegally framed.
    pub fn begin(&mut self, begun: &[u8], out: &mut Vec<u8>) -> Result<(), DirectionError> {
        if begun.is_empty() {
            return Ok(());
        }
        let mut bytes = begun.to_vec();
        let n = self.follow(&mut bytes)?;
        if n > 0 {
            let mut size = [0; SIZE_LINE];
            let from = self.size_line(n, &mut size);
            out.extend_from_slice(&size[from..]);
            out.extend_from_slice(&bytes[..n]);
            out.extend_from_slice(self.tail());
        }
        Ok(())
    }

    /// Counts the first `n` bytes of `out` as taken; the rest waits for the sink.
    pub fn wrote(&mut self, n: usize, out: &[u8]) {
        self.took(n);
        if n < out.len() {
            self.pending.push(&out[n..]);
        }
    }

    /// Keeps a copy of the message from here on, of at most [`MAX_COPY`] bytes.
    pub fn keep_copy(&mut self) {
        self.copy = Some(Box::default());
    }

    /// Takes the copy of the message so far; `None` if no copy was kept or the message is longer.
    pub fn copy(&mut self) -> Option<Vec<u8>> {
        self.copy.take().map(|copy| *copy)
    }

    /// Follows the WebSocket frames that pass, beginning with `begun`, which was read elsewhere.
    pub fn follow_frames(&mut self, begun: &[u8]) {
        let mut following = Frames::default();
        following.pass(begun);
        self.frames = Some(following);
    }

    /// Whether frames are followed and the last byte read ended a frame.
    pub fn is_between_frames(&self) -> bool {
        self.frames.is_some_and(|f| f.between())
    }

    /// Bytes that the sink took, with heads and chunk lines that were written here.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Bytes that were read and that the sink has not taken.
    pub fn held(&self) -> usize {
        self.pending.bytes().len() + self.bulk.held()
    }

    /// Whether the message is complete by its framing, and the sink took all of it. Stays false for a message that
    /// only a close ends.
    pub fn is_over(&self) -> bool {
        self.framing.is_done() && self.held() == 0
    }

    /// Takes the trailers, as lines of HTTP/1, that were stripped together with the chunks ([`Wrap::Bare`]).
    pub fn take_trailers(&mut self) -> Vec<u8> {
        self.framing.take_trailers().unwrap_or_default()
    }

    /// Takes the bytes that the source sent after the end of its message.
    pub fn take_surplus(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.surplus).into_vec()
    }

    /// Moves bytes until the source is empty, the sink is full, or the message ends.
    pub fn pump(&mut self, cx: &mut Context<'_>, source: &mut Side, sink: &mut Side) -> Pumped {
        loop {
            ready!(self.pass_pending(cx, sink))?;
            if self.ended || self.framing.is_done() {
                return Poll::Ready(Ok(()));
            }
            if self.dry {
                ready!(source.poll_readable(cx)).map_err(|_| DirectionError::Source)?;
                self.dry = false;
            }
            // A system call costs much beside a small message: poll(2) runs only once half the allowance is
            // used.
            let most = self.window.most(self.most);
            if self.unsent.is_some_and(|n| n as usize >= most / 2) {
                ready!(sink.poll_all_sent(cx)).map_err(|_| DirectionError::Sink)?;
                self.unsent = Some(0);
            }
            match self.read_and_pass(cx, source, sink) {
                Poll::Pending => {
                    self.dry = true;
                    return Poll::Pending;
                }
                Poll::Ready(passed) => passed?,
            }
        }
    }

    /// Writes the bytes that wait for the sink; ready when none are left.
    pub fn pass_pending(&mut self, cx: &mut Context<'_>, sink: &mut Side) -> Pumped {
        while self.bulk.held() > 0 {
            let tcp = sink.tcp().ok_or(DirectionError::Sink)?;
            let n = ready!(self.bulk.poll_drain(cx, tcp)).map_err(|_| DirectionError::Sink)?;
            self.took(n);
        }
        while !self.pending.is_empty() {
            let wrote = sink.poll_write_part(cx, self.pending.bytes(), self.ends_sink());
            let n = ready!(wrote).map_err(|_| DirectionError::Sink)?;
            self.pending.take(n);
            self.took(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Does one read and one write.
    fn read_and_pass(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Side,
        sink: &mut Side,
    ) -> Pumped {
        let room = self.room(source, sink);
        let framed = self.framing.left().min(room as u64) as usize;
        if self.may_splice()
            && let Some(filled) = self.bulk.poll_fill(cx, source, sink, framed)
        {
            let n = ready!(filled).map_err(|_| DirectionError::Source)?;
            self.window.saw(n, self.most);
            if n == 0 {
                return Poll::Ready(self.at_the_end(Vec::new()));
            }
            self.framing.skip(n as u64);
            return Poll::Ready(Ok(()));
        }
        let plain = matches!(source, Side::Plain(_));
        BUFFER.with_borrow_mut(|buffer| {
            let mut buf = ReadBuf::new(&mut buffer[SIZE_LINE..SIZE_LINE + room]);
            ready!(Pin::new(&mut *source).poll_read(cx, &mut buf))
                .map_err(|_| DirectionError::Source)?;
            let got = buf.filled().len();
            if got == 0 {
                let trailers = source.stream().map(|stream| stream.take_trailers());
                return Poll::Ready(self.at_the_end(trailers.unwrap_or_default()));
            }
            // The runtime notes a short read of a plain socket, too. OpenSSL may hold more than it returned.
            self.dry = got < room && plain;
            self.window.saw(got, self.most);
            let used = self.follow(&mut buffer[SIZE_LINE..SIZE_LINE + got])?;
            if used == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut size = [0; SIZE_LINE];
            let from = self.size_line(used, &mut size);
            let end = SIZE_LINE + used;
            buffer[from..SIZE_LINE].copy_from_slice(&size[from..]);
            buffer[end..end + self.tail().len()].copy_from_slice(self.tail());
            let out = &buffer[from..end + self.tail().len()];
            let taken = write_now(cx, sink, out, self.ends_sink())?;
            self.took(taken);
            if taken < out.len() {
                // OpenSSL requires the same bytes again; `pending` offers them.
                self.pending = out[taken..].to_vec().into();
            }
            Poll::Ready(Ok(()))
        })
    }

    fn took(&mut self, n: usize) {
        self.passed += n as u64;
        self.unsent = self.unsent.map(|unsent| unsent.saturating_add(n as u32));
    }

    /// Returns how many bytes to read now, at most.
    fn room(&mut self, source: &Side, sink: &Side) -> usize {
        let Some(unsent) = self.unsent else {
            return self.most.min(MAX_READ);
        };
        let most = self.window.most(self.most);
        let room = most.saturating_sub(unsent as usize).min(MAX_READ);
        let framed = self.wrap != Wrap::AsIs || sink.ssl().is_some();
        self.window
            .before_read((source, sink), self.most, room, framed)
    }

    /// Whether no byte needs inspection: no frames, no chunks, no copy.
    fn may_splice(&self) -> bool {
        let by_count = matches!(self.framing, Framing::UntilClose | Framing::Length(_));
        let seen = self.frames.is_some() || self.copy.is_some();
        by_count && self.wrap == Wrap::AsIs && !seen
    }

    /// Counts the bytes at the front of `data` that go to the sink. Keeps the bytes after the message.
    fn follow(&mut self, data: &mut [u8]) -> Result<usize, DirectionError> {
        let (used, for_sink) = match self.wrap {
            Wrap::Bare => self.framing.advance_bare(data),
            Wrap::AsIs | Wrap::Chunks => self.framing.advance(data).map(|n| (n, n)),
        }
        .map_err(DirectionError::Framing)?;
        if used < data.len() {
            self.surplus.push(&data[used..]);
        }
        match &mut self.frames {
            Some(frames) => frames.pass(&data[..used]),
            None => self.bulk.saw(used),
        }
        match &mut self.copy {
            Some(copy) if copy.len() + used <= MAX_COPY => copy.extend_from_slice(&data[..used]),
            copy => *copy = None,
        }
        Ok(for_sink)
    }

    /// Handles the end of the source, which completes a message that ends by closing, and cuts any other.
    fn at_the_end(&mut self, trailers: Vec<u8>) -> Result<(), DirectionError> {
        if self.framing != Framing::UntilClose {
            return Err(DirectionError::Ended);
        }
        self.ended = true;
        if self.wrap == Wrap::Chunks {
            let last = [LAST_CHUNK, &trailers, CRLF].concat();
            self.pending = last.into();
        }
        Ok(())
    }

    /// Whether the message is complete and no trailers follow, so that the next write is its last.
    pub fn ends_sink(&self) -> bool {
        self.framing.is_done() && !self.framing.has_trailers()
    }

    /// Writes the size line of a chunk of `n` bytes into the end of `line`; returns where it begins.
    fn size_line(&self, n: usize, line: &mut [u8; SIZE_LINE]) -> usize {
        if self.wrap != Wrap::Chunks {
            return SIZE_LINE;
        }
        line[SIZE_LINE - 2..].copy_from_slice(CRLF);
        let (mut left, mut at) = (n, SIZE_LINE - 2);
        while at > 0 && (left > 0 || at == SIZE_LINE - 2) {
            at -= 1;
            line[at] = b"0123456789abcdef"[left % 16];
            left /= 16;
        }
        at
    }

    fn tail(&self) -> &'static [u8] {
        match self.wrap {
            Wrap::AsIs | Wrap::Bare => b"",
            Wrap::Chunks => CRLF,
        }
    }
}

/// Writes as many of `bytes` as `to` takes now. `last`: nothing follows them.
///
/// Errors: the connection of `to` is broken.
pub(super) fn write_now(
    cx: &mut Context<'_>,
    to: &mut Side,
    bytes: &[u8],
    last: bool,
) -> Result<usize, DirectionError> {
    // OpenSSL takes one record of 16 KiB a call. A full plain socket costs no second system call: the runtime
    // remembers it.
    let mut taken = 0;
    while taken < bytes.len() {
        match to.poll_write_part(cx, &bytes[taken..], last) {
            Poll::Ready(Ok(n)) if n > 0 => taken += n,
            Poll::Ready(Err(_)) => return Err(DirectionError::Sink),
            Poll::Ready(Ok(_)) | Poll::Pending => break,
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests;
