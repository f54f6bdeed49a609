//! An answer's head that waits for its body, so that both leave in one write.
//!
//! In: what Pingora writes, head first. Out: the same bytes in fewer writes. A head is kept only if
//! the body's first bytes have been read already: what follows waits for nobody. Each write saved is
//! a system call, a wake-up of the client and, under TLS, a record.
//! Source: RFC 9112 §2.1 (nothing is between head and body).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Most slices written at once: Pingora's chunk has three.
const SLICES: usize = 8;

/// The head that waits, if any.
#[derive(Debug, Default)]
pub struct Joined {
    kept: Vec<u8>,
}

impl Joined {
    /// Keeps all of `bufs` for the next write; returns how many bytes that are.
    pub fn keep(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let before = self.kept.len();
        bufs.iter().for_each(|b| self.kept.extend_from_slice(b));
        self.kept.len() - before
    }

    /// Writes what was kept, then `bufs`; returns how much of `bufs` was taken.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut S,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_kept(cx, to, bufs))? {
            0 => Pin::new(to).poll_write_vectored(cx, bufs),
            taken => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes what was kept and flushes.
    pub fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut S,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(cx, to, &[]))?;
        Pin::new(to).poll_flush(cx)
    }

    /// Writes what was kept, to its end; returns how much of `bufs` went with it.
    fn poll_kept<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut S,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.kept.is_empty() {
            let mut all = [IoSlice::new(&[]); SLICES];
            all[0] = IoSlice::new(&self.kept);
            let more = bufs.len().min(SLICES - 1);
            all[1..=more].copy_from_slice(&bufs[..more]);
            let n = ready!(Pin::new(&mut *to).poll_write_vectored(cx, &all[..=more]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if n >= self.kept.len() {
                let taken = n - self.kept.len();
                self.kept = Vec::new();
                return Poll::Ready(Ok(taken));
            }
            self.kept.drain(..n);
        }
        Poll::Ready(Ok(0))
    }
}

/// The first `n` bytes of `bufs`.
pub fn first(bufs: &[IoSlice<'_>], n: usize) -> Vec<u8> {
    let all = bufs.iter().flat_map(|b| b.iter().copied());
    all.take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Takes so many bytes in each write; 0: not now. Notes the writes.
    struct Slow {
        takes: Vec<usize>,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            b: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(b)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            match self.takes.pop() {
                Some(0) => Poll::Pending,
                takes => {
                    let data = first(bufs, takes.unwrap_or(usize::MAX));
                    self.writes.push(data.clone());
                    Poll::Ready(Ok(data.len()))
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn slow(takes: &[usize]) -> Slow {
        let takes = takes.iter().rev().copied().collect();
        Slow {
            takes,
            writes: Vec::new(),
        }
    }

    /// Fails if a byte is lost, doubled or out of order wherever the socket stops taking them.
    #[test]
    fn bytes_stay_whole_and_in_order() {
        let (head, body) = (b"head\r\n\r\n", b"and a body");
        let whole = [&head[..], &body[..]].concat();
        for first_take in 0..=whole.len() {
            for second in 0..=whole.len() {
                let (mut joined, mut to) = (Joined::default(), slow(&[first_take, second]));
                let mut cx = Context::from_waker(Waker::noop());
                assert_eq!(joined.keep(&[IoSlice::new(head)]), head.len());
                let mut left = &body[..];
                while !left.is_empty() {
                    let (one, two) = left.split_at(left.len() / 2);
                    let bufs = [IoSlice::new(one), IoSlice::new(two)];
                    if let Poll::Ready(n) = joined.poll_write(&mut cx, &mut to, &bufs) {
                        let n = n.expect("nothing fails");
                        assert!(n > 0, "a write that takes nothing would end the stream");
                        left = &left[n..];
                    }
                }
                assert_eq!(to.writes.concat(), whole, "{first_take}, {second}");
            }
        }
    }

    /// Fails if a head stays behind, or leaves in a write of its own.
    #[test]
    fn one_write_takes_both() {
        let (mut joined, mut to) = (Joined::default(), slow(&[]));
        let mut cx = Context::from_waker(Waker::noop());
        joined.keep(&[IoSlice::new(b"head")]);
        let n = joined.poll_write(&mut cx, &mut to, &[IoSlice::new(b"body")]);
        assert!(matches!(n, Poll::Ready(Ok(4))));
        joined.keep(&[IoSlice::new(b"alone")]);
        assert!(joined.poll_flush(&mut cx, &mut to).is_ready());
        assert_eq!(to.writes, [b"headbody".to_vec(), b"alone".to_vec()]);
    }
}
