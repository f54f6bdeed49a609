//! splice(2) where much passes between two plain sockets: pages change hands instead of being copied.
//!
//! In: sizes of the reads so far, two sockets. Out: bytes moved through a pipe. Messages never come
//! here: it takes several large reads in a row, which only a flow with a large window makes.
//! A pipe holds no more than one read would, and only while bytes are in it: in between it waits in its
//! thread for the next flow. docs/decisions/0007-splice.md has the numbers.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use crate::stream::descriptors;
use crate::stream::kernel;
use crate::stream::side::Side;
use crate::stream::socket::Tcp;

/// A read of so many bytes is one of bulk: below it two system calls cost more than the copies they save.
pub(super) const LARGE: usize = 16 * 1024;
/// Score from which a pipe is used: so many large reads in a row.
const BULK: u8 = 4;
/// Highest score. A small read halves it: what is left of a window in the midst of bulk does not end
/// the use of a pipe, three messages do.
const MAX_SCORE: u8 = 16;
/// Most pipes of the process: each is two descriptors, and a flow whose sink has stopped keeps one.
const MAX_PIPES: usize = 512;
/// Most empty pipes a thread keeps.
const MAX_SPARE: usize = 8;

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// One direction's bulk.
#[derive(Default)]
pub(super) struct Bulk {
    score: u8,
    pipe: Option<Pipe>,
}

impl Bulk {
    /// Notes a read of `n` bytes.
    pub(super) fn saw(&mut self, n: usize) {
        self.score = match n >= LARGE {
            true => (self.score + 1).min(MAX_SCORE),
            false => self.score / 2,
        };
    }

    /// Bytes in the pipe.
    pub(super) fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |p| p.held as usize)
    }

    /// Moves up to `most` bytes from `source` into an empty pipe; 0 at the source's end. `None` where
    /// bytes are to be copied: no bulk, a side under TLS, or no pipe left.
    ///
    /// Errors: the source broke.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &Side,
        sink: &Side,
        most: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        let (Side::Plain(source), Side::Plain(_)) = (source, sink) else {
            return None;
        };
        if self.score < BULK || source.has_ahead() {
            return None;
        }
        let mut pipe = Pipe::take()?;
        let filled = pipe.poll_fill(cx, source, most);
        match &filled {
            Poll::Ready(Ok(n)) if *n > 0 => {
                self.saw(*n);
                self.pipe = Some(pipe);
            }
            Poll::Ready(_) | Poll::Pending => pipe.spare(),
        }
        Some(filled)
    }

    /// Moves what the pipe holds to `sink`; how much went.
    ///
    /// Errors: the sink broke.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Tcp,
    ) -> Poll<io::Result<usize>> {
        let Some(mut pipe) = self.pipe.take() else {
            return Poll::Ready(Ok(0));
        };
        let drained = pipe.poll_drain(cx, sink);
        match pipe.held {
            0 => pipe.spare(),
            _ => self.pipe = Some(pipe),
        }
        drained
    }
}

/// A pipe of the kernel's.
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Bytes in it. 32 bits: each silent flow has room for two pipes.
    held: u32,
}

impl Pipe {
    /// An empty one: the thread's, or a new one. `None`: the limit is reached, or descriptors are.
    fn take() -> Option<Pipe> {
        if let Some(pipe) = SPARE.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        if PIPES.fetch_add(1, Ordering::Relaxed) >= MAX_PIPES {
            PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok([out, into]) = kernel::pipe() else {
            PIPES.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let pipe = Pipe { out, into, held: 0 };
        descriptors::for_flow(pipe.into.as_raw_fd()).ok()?;
        Some(pipe)
    }

    /// Keeps an empty pipe for the thread's next flow.
    fn spare(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(self);
            }
        });
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &Tcp,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let stream = source.stream();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let (from, to) = (stream.as_raw_fd(), self.into.as_raw_fd());
            match stream.try_io(Interest::READABLE, || kernel::splice(from, to, most)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                filled => {
                    self.held = *filled.as_ref().unwrap_or(&0) as u32;
                    return Poll::Ready(filled);
                }
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, sink: &Tcp) -> Poll<io::Result<usize>> {
        let stream = sink.stream();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let (from, to) = (self.out.as_raw_fd(), stream.as_raw_fd());
            match stream.try_io(Interest::WRITABLE, || {
                kernel::splice(from, to, self.held as usize)
            }) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(n) => {
                    self.held -= n as u32;
                    return Poll::Ready(Ok(n));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Empty pipes this thread keeps.
#[cfg(test)]
pub(super) fn spare_here() -> usize {
    SPARE.with_borrow(Vec::len)
}
