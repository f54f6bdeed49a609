//! Moves bulk between two plain sockets by splice(2): pages change hands instead of being copied.
//!
//! In: sizes of the reads so far, two sockets. Out: bytes moved through a pipe. Messages never come here:
//! splice needs several large reads in a row, which only a flow with a large window makes.
//! A pipe holds no more than one read would, and belongs to a flow only while it holds bytes. An empty pipe
//! goes back to its thread. docs/decisions/0007-splice.md has the numbers.

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

/// Size from which a read counts as large, in bytes. Below it two system calls cost more than the copy they
/// save.
pub(super) const LARGE: usize = 16 * 1024;
/// Score from which a flow uses a pipe: that many large reads in a row.
const BULK: u8 = 4;
/// Highest score. A small read halves it: one short read within bulk does not end the use of a pipe, three
/// messages do.
const MAX_SCORE: u8 = 16;
/// Most pipes of the process. Each takes two descriptors, and a flow whose sink has stopped keeps one.
const MAX_PIPES: usize = 512;
/// Most empty pipes that a thread keeps.
const MAX_SPARE: usize = 8;

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// The bulk state of one direction.
#[derive(Default)]
pub(super) struct Bulk {
    score: u8,
    pipe: Option<Pipe>,
}

impl Bulk {
    /// Counts a read of `n` bytes.
    pub(super) fn saw(&mut self, n: usize) {
        self.score = match n >= LARGE {
            true => (self.score + 1).min(MAX_SCORE),
            false => self.score / 2,
        };
    }

    /// Returns how many bytes the pipe holds.
    pub(super) fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |p| p.held as usize)
    }

    /// Moves up to `most` bytes from `source` into an empty pipe; 0 at the end of the source. `None`: copy
    /// instead, because the flow carries no bulk, a side is under TLS, or no pipe is left.
    ///
    /// Errors: the source's connection broke.
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

    /// Moves bytes from the pipe to `sink`; returns how many.
    ///
    /// Errors: the sink's connection broke.
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

/// A pipe of the kernel.
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Bytes in the pipe. 32 bits, because each silent flow has room for two pipes.
    held: u32,
}

impl Pipe {
    /// Takes an empty pipe of this thread, or makes one. `None`: all pipes or descriptors are in use.
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

    /// Keeps an empty pipe for the next flow of this thread.
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
            let filled = stream.try_io(Interest::READABLE, || {
                kernel::splice(stream, &self.into, most)
            });
            match filled {
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
            match stream.try_io(Interest::WRITABLE, || {
                kernel::splice(&self.out, stream, self.held as usize)
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

/// Returns how many empty pipes this thread keeps.
#[cfg(test)]
pub(super) fn spare_here() -> usize {
    SPARE.with_borrow(Vec::len)
}
