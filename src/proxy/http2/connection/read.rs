//! Reads the frames of a client, as many as are fair to other clients: a bounded number in each turn of the
//! runtime, and no stream before its turn at the client's rate.
//!
//! In: the socket. Out: frames, taken one by one. Source: RFC 9113 §10.5; FAULTS D58.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::Connection;
use super::end::End;
use crate::proxy::http2::mux::Mux;

/// Most reads before other tasks on this thread have their turn.
const MAX_READS: usize = 8;
/// Most bytes of a read.
const READ: usize = 16 * 1024;
/// Streams that a client begins before other tasks on this thread have their turn. A read may hold 500 heads; taking
/// them all at once held up other clients for milliseconds.
const MAX_HEADS: usize = 8;

thread_local! {
    /// One read buffer for each thread, so an idle connection keeps none.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Connection {
    /// Takes the frames that have arrived. Ready when the connection ends.
    pub(super) fn poll_frames(&mut self, cx: &mut Context<'_>, mux: &mut Mux) -> Poll<End> {
        let mut buffer = BUFFER.take();
        buffer.resize(READ, 0);
        let polled = self.poll_reads(cx, mux, &mut buffer);
        BUFFER.set(buffer);
        polled
    }

    fn poll_reads(&mut self, cx: &mut Context<'_>, mux: &mut Mux, buffer: &mut [u8]) -> Poll<End> {
        self.heads = 0;
        for _ in 0..MAX_READS {
            if mux.is_clogged() {
                // The edge reads no more from a client that does not read.
                return Poll::Pending;
            }
            if self.poll_stalled(cx).is_pending() {
                return mux.poll_ended(cx).map(|()| End::Closed);
            }
            let taken = if self.unread.is_empty() {
                let mut buf = ReadBuf::new(buffer);
                match ready!(mux.poll_input(cx, &mut buf)) {
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                        return Poll::Ready(End::Closed);
                    }
                    Err(_) => return Poll::Ready(End::Broken),
                    Ok(()) if buf.filled().is_empty() => return Poll::Ready(End::Closed),
                    Ok(()) => self.take_all(mux, buf.filled()),
                }
            } else {
                let unread = std::mem::take(&mut self.unread);
                self.take_all(mux, &unread)
            };
            if let Err(end) = taken {
                return Poll::Ready(end);
            }
            if self.heads >= MAX_HEADS {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins the stream that waits, when its turn comes.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(stalled) = &mut self.stalled {
            ready!(Pin::new(&mut stalled.turn).poll(cx));
            let stalled = self.stalled.take();
            self.new_streams.extend(stalled.and_then(|s| s.stream));
        }
        Poll::Ready(())
    }

    /// Takes the frames of `bytes` until they are used up, or the connection has had its turn; then the rest
    /// is kept.
    ///
    /// Errors: why the connection ends.
    fn take_all(&mut self, mux: &mut Mux, mut bytes: &[u8]) -> Result<(), End> {
        while self.stalled.is_none() && self.heads < MAX_HEADS {
            match self.input.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.take(mux, frame)?,
                Err(e) => self.fail(mux, e)?,
            }
        }
        self.unread = bytes.to_vec();
        Ok(())
    }
}
