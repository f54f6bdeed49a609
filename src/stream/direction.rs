//! One direction of a relay: bytes of one socket to the other, up to the end of what they are.
//!
//! In: bytes as the source has them. Out: the same at the sink, at once; of a framed message not a
//! byte beyond its end. A byte is read only when the sink took the one before, and nothing is
//! allocated while nothing waits.
//! Source: Lightstreamer clustering §1; RFC 9112 §6, §7.1.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bulk::Bulk;
use super::frames::Frames;
use super::framing::{Fault, Framing};
use super::handoff::Wrap;
use super::side::Side;
use super::waiting::Waiting;

/// Which socket of a direction broke, or how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The source failed, or ended within a message.
    Source,
    /// The sink failed.
    Sink,
    /// The source's message is not framed as it should be.
    Framing(Fault),
}

/// `Ready(Ok)`: the source's message, or the source, is at its end, and the sink has taken all.
pub type Pumped = Poll<Result<(), Broken>>;

thread_local! {
    /// One read buffer per thread: a relay holds memory only for bytes that wait.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SIZE_LINE + MAX_READ + CRLF.len()]);
}

/// Most bytes of one read.
const MAX_READ: usize = 64 * 1024;
/// Room for a chunk's size line in front of what is read: 8 digits and CRLF.
const SIZE_LINE: usize = 10;
const CRLF: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One direction of a relay.
pub struct Direction {
    /// Read and not yet taken.
    waiting: Waiting,
    /// What of the source's bytes belongs to the message.
    framing: Framing,
    wrap: Wrap,
    /// Most bytes read at once; on demand, most that the sink's kernel has and has not sent.
    most: usize,
    /// On demand: how many bytes the sink's kernel may not have sent.
    unsent: Option<usize>,
    /// The source had nothing when it was asked last, or has given all: only its readiness says when to
    /// ask again.
    dry: bool,
    ended: bool,
    beyond: bool,
    passed: u64,
    frames: Option<Frames>,
    bulk: Bulk,
}

impl Direction {
    /// All that comes, until the source ends; `waiting` goes first. With `on_demand` the source is
    /// read only as far as the sink's kernel has less than `most` bytes to send; else `most` is of one read.
    pub fn new(waiting: Vec<u8>, on_demand: bool, most: usize) -> Self {
        Direction {
            waiting: waiting.into(),
            framing: Framing::UntilClose,
            wrap: Wrap::AsIs,
            most,
            unsent: on_demand.then_some(0),
            dry: false,
            ended: false,
            beyond: false,
            passed: 0,
            frames: None,
            bulk: Bulk::default(),
        }
    }

    /// One message in `framing`, of which `begun` was read already; on demand, with at most `most` unsent.
    ///
    /// Errors: `begun` is not legal framing.
    pub fn message(
        begun: &[u8],
        framing: Framing,
        wrap: Wrap,
        most: usize,
    ) -> Result<Self, Broken> {
        let mut this = Direction {
            framing,
            wrap,
            ..Direction::new(Vec::new(), true, most)
        };
        let used = this.follow(begun)?;
        if used > 0 {
            let mut size = [0; SIZE_LINE];
            let from = this.size_line(used, &mut size);
            let begun = [&size[from..], &begun[..used], this.tail()].concat();
            this.waiting = begun.into();
        }
        Ok(this)
    }

    /// Follows the WebSocket frames in what passes, from what waits already.
    pub fn follow_frames(&mut self, frames: bool) {
        if frames {
            let mut following = Frames::default();
            following.pass(self.waiting.bytes());
            self.frames = Some(following);
        }
    }

    /// Whether frames are followed and the last byte read was the last of one.
    pub fn is_between_frames(&self) -> bool {
        self.frames.is_some_and(|f| f.between())
    }

    /// Bytes the sink took.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Bytes that wait for the sink.
    pub fn held(&self) -> usize {
        self.waiting.bytes().len() + self.bulk.held()
    }

    /// Whether the source sent bytes behind the end of the message.
    pub fn went_beyond(&self) -> bool {
        self.beyond
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, cx: &mut Context<'_>, source: &mut Side, sink: &mut Side) -> Pumped {
        loop {
            ready!(self.pass_waiting(cx, sink))?;
            if self.ended || self.framing.is_done() {
                return Poll::Ready(Ok(()));
            }
            if self.dry {
                ready!(source.tcp().poll_readable(cx)).map_err(|_| Broken::Source)?;
                self.dry = false;
            }
            // poll(2) is dear beside a small message, so it is asked only when half of `most` may wait.
            if self.unsent.is_some_and(|n| n >= self.most / 2) {
                ready!(sink.tcp().poll_all_sent(cx)).map_err(|_| Broken::Sink)?;
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

    fn pass_waiting(&mut self, cx: &mut Context<'_>, sink: &mut Side) -> Pumped {
        while self.bulk.held() > 0 {
            let n = ready!(self.bulk.poll_drain(cx, sink.tcp())).map_err(|_| Broken::Sink)?;
            self.took(n);
        }
        while !self.waiting.is_empty() {
            let n = ready!(Pin::new(&mut *sink).poll_write(cx, self.waiting.bytes()))
                .map_err(|_| Broken::Sink)?;
            self.waiting.take(n);
            self.took(n);
        }
        Poll::Ready(Ok(()))
    }

    /// One read and one write.
    fn read_and_pass(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Side,
        sink: &mut Side,
    ) -> Pumped {
        let room = self.most.saturating_sub(self.unsent.unwrap_or(0));
        let room = room.min(MAX_READ);
        if let Some(filled) = self.bulk.poll_fill(cx, source, sink, room) {
            let n = ready!(filled).map_err(|_| Broken::Source)?;
            self.ended = n == 0;
            return Poll::Ready(Ok(()));
        }
        let plain = matches!(source, Side::Plain(_));
        BUFFER.with_borrow_mut(|buffer| {
            let mut buf = ReadBuf::new(&mut buffer[SIZE_LINE..SIZE_LINE + room]);
            ready!(Pin::new(source).poll_read(cx, &mut buf)).map_err(|_| Broken::Source)?;
            let got = buf.filled().len();
            if got == 0 {
                return Poll::Ready(self.at_the_end());
            }
            // Of a plain socket the runtime notes it, too. OpenSSL may have more than it gave.
            self.dry = got < room && plain;
            let used = self.follow(&buffer[SIZE_LINE..SIZE_LINE + got])?;
            let mut size = [0; SIZE_LINE];
            let from = self.size_line(used, &mut size);
            let end = SIZE_LINE + used;
            buffer[from..SIZE_LINE].copy_from_slice(&size[from..]);
            buffer[end..end + self.tail().len()].copy_from_slice(self.tail());
            let out = &buffer[from..end + self.tail().len()];
            // OpenSSL takes a record of 16 KiB at a time; of a plain socket the runtime knows that it is full.
            let mut taken = 0;
            while taken < out.len() {
                match Pin::new(&mut *sink).poll_write(cx, &out[taken..]) {
                    Poll::Ready(Ok(n)) if n > 0 => taken += n,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sink)),
                    Poll::Ready(Ok(_)) | Poll::Pending => break,
                }
            }
            self.took(taken);
            if taken < out.len() {
                // Under TLS the same bytes must be offered again, which `waiting` does.
                self.waiting = out[taken..].to_vec().into();
            }
            Poll::Ready(Ok(()))
        })
    }

    fn took(&mut self, n: usize) {
        self.passed += n as u64;
        self.unsent = self.unsent.map(|unsent| unsent + n);
    }

    /// How many of `data` belong to the message.
    fn follow(&mut self, data: &[u8]) -> Result<usize, Broken> {
        let used = self.framing.advance(data).map_err(Broken::Framing)?;
        self.beyond |= used < data.len();
        match &mut self.frames {
            Some(frames) => frames.pass(&data[..used]),
            // Frames and framing can only be followed in bytes that are copied.
            None if self.framing == Framing::UntilClose && self.wrap == Wrap::AsIs => {
                self.bulk.saw(used);
            }
            None => {}
        }
        Ok(used)
    }

    /// The source closed: the end where nothing else says so, a cut within a message.
    fn at_the_end(&mut self) -> Result<(), Broken> {
        if self.framing != Framing::UntilClose {
            return Err(Broken::Source);
        }
        self.ended = true;
        if self.wrap == Wrap::Chunks {
            self.waiting = LAST_CHUNK.to_vec().into();
        }
        Ok(())
    }

    /// Writes the size line of a chunk of `n` bytes at the end of `line`; returns where it begins.
    fn size_line(&self, n: usize, line: &mut [u8; SIZE_LINE]) -> usize {
        if self.wrap == Wrap::AsIs {
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
            Wrap::AsIs => b"",
            Wrap::Chunks => CRLF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::{pair_with, tls_pair};
    use crate::stream::socket;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A read of 64 KiB goes to a TLS sink as four records, and nothing of it is kept: three quarters were
    /// allocated, copied and written from there. Fails if only the first record is written at once.
    #[tokio::test]
    async fn a_large_read_is_not_kept() {
        let ((mut node, mut source), (client, mut sink)) =
            (pair_with(1 << 20).await, tls_pair().await);
        let read = tokio::spawn(async move {
            let mut client = client;
            client.read_exact(&mut vec![0; MAX_READ]).await.map(drop)
        });
        node.write_all(&vec![7; MAX_READ]).await.expect("send");
        while socket::unread(source.tcp().fd()) < MAX_READ as u64 {
            tokio::task::yield_now().await;
        }
        let mut down = Direction::new(Vec::new(), false, MAX_READ);
        let passed = poll_fn(|cx| {
            ready!(source.tcp().poll_readable(cx)).expect("readable");
            down.read_and_pass(cx, &mut source, &mut sink)
        });
        passed.await.expect("a read");
        assert_eq!((down.passed(), down.held()), (MAX_READ as u64, 0));
        read.await.expect("a client").expect("all of it");
    }

    /// Fails if a chunk's size is written wrong, or beyond its room.
    #[test]
    fn sizes_of_chunks() {
        let chunks = Direction {
            wrap: Wrap::Chunks,
            ..Direction::new(Vec::new(), true, MAX_READ)
        };
        for n in [1, 9, 10, 15, 16, 255, 4096, MAX_READ] {
            let mut line = [0; SIZE_LINE];
            let from = chunks.size_line(n, &mut line);
            assert_eq!(line[from..], *format!("{n:x}\r\n").as_bytes());
        }
        let as_is = Direction::new(Vec::new(), true, MAX_READ);
        assert_eq!(as_is.size_line(5, &mut [0; SIZE_LINE]), SIZE_LINE);
    }
}
