//! One side of a flow: a TCP socket, which stays reachable under TLS; or one stream of a client connection that
//! carries many (HTTP/2).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use openssl::ssl::{self, SslRef};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_openssl::SslStream;

use pushgate_plugins::head::Edits;

use super::kernel;
use super::socket::Tcp;
use super::substream::{Reset, Substream};
use crate::observe::end_reason::EndReason;

/// Most bytes in one TLS record.
const RECORD: usize = 16 * 1024;
/// Most bytes that [`Side::poll_more`] reads at once.
pub const MORE: usize = 4096;

/// A plain or TLS connection, or a stream of one.
pub enum Side {
    /// Plain TCP.
    Plain(Tcp),
    /// TLS that ends here. Boxed: its state takes several hundred bytes, which plain flows must not pay for.
    Tls(Box<SslStream<Tcp>>),
    /// A plain or TLS connection whose incoming bytes are also shown to a tap.
    Tapped(Box<Tapped>),
    /// A stream of a connection that carries many; clients only.
    Stream(Box<dyn Substream>),
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Side::Plain(t) => t.fmt(f),
            Side::Tls(s) => s.fmt(f),
            Side::Tapped(t) => t.fmt(f),
            Side::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Watches incoming bytes. A tap sees each byte once, as it passes, and holds none back.
pub trait Tap: Send + Sync {
    /// Shows the bytes just read. Returns whether the tap needs more.
    fn saw(&mut self, bytes: &[u8]) -> bool;
}

/// A connection with its [`Tap`], which is dropped with it.
pub struct Tapped {
    side: Side,
    tap: Box<dyn Tap>,
    over: bool,
}

impl std::fmt::Debug for Tapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.side.fmt(f)
    }
}

impl Side {
    /// Shows the connection's bytes to `tap`, from the next byte on. Replaces an earlier tap.
    pub fn tapped(self, tap: Box<dyn Tap>) -> Side {
        Side::Tapped(Box::new(Tapped {
            side: self.untapped(),
            tap,
            over: false,
        }))
    }

    /// Removes the tap.
    pub fn untapped(self) -> Side {
        match self {
            Side::Tapped(t) => t.side,
            bare => bare,
        }
    }

    /// Returns the TCP socket; `None` for a stream, which has no socket of its own.
    pub fn tcp(&self) -> Option<&Tcp> {
        match self {
            Side::Plain(t) => Some(t),
            Side::Tls(s) => Some(s.get_ref()),
            Side::Tapped(t) => t.side.tcp(),
            Side::Stream(_) => None,
        }
    }

    /// Returns the TCP socket, to change it.
    pub fn tcp_mut(&mut self) -> Option<&mut Tcp> {
        match self {
            Side::Plain(t) => Some(t),
            Side::Tls(s) => Some(s.get_mut()),
            Side::Tapped(t) => t.side.tcp_mut(),
            Side::Stream(_) => None,
        }
    }

    /// Returns the stream; `None` for a socket.
    pub fn stream(&mut self) -> Option<&mut dyn Substream> {
        match self {
            Side::Stream(s) => Some(&mut **s),
            _ => None,
        }
    }

    /// Whether the side is a stream of a connection that carries many.
    pub fn is_stream(&self) -> bool {
        matches!(self, Side::Stream(_))
    }

    /// Returns the TLS state; `None` without TLS, and for a stream.
    pub fn ssl(&self) -> Option<&SslRef> {
        match self {
            Side::Plain(_) | Side::Stream(_) => None,
            Side::Tls(s) => Some(s.ssl()),
            Side::Tapped(t) => t.side.ssl(),
        }
    }
}

/// The calls of a relay that work for a socket and for a stream.
impl Side {
    /// Ready when there may be bytes to read. Under TLS it looks at the socket only, not at what OpenSSL holds. So a
    /// read must have found nothing before.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self, self.tcp()) {
            (Side::Stream(s), _) => s.poll_readable(cx),
            (_, Some(tcp)) => tcp.poll_readable(cx),
            (_, None) => Poll::Ready(Ok(())),
        }
    }

    /// Ready when the kernel has sent every byte of this side (the peer may still have to acknowledge them).
    pub fn poll_all_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self, self.tcp()) {
            (Side::Stream(s), _) => s.poll_all_sent(cx),
            (_, Some(tcp)) => tcp.poll_all_sent(cx),
            (_, None) => Poll::Ready(Ok(())),
        }
    }

    /// Returns the bytes that the peer has not acknowledged; of a stream, those of its whole connection.
    pub fn unacknowledged(&self) -> u64 {
        match (self, self.tcp()) {
            (Side::Stream(s), _) => s.unacknowledged(),
            (_, tcp) => tcp.map_or(0, Tcp::unacknowledged),
        }
    }

    /// Makes the end of this side a visible cut: dropping a socket sends RST and frees its send queue; a stream is
    /// reset now.
    pub fn reset_on_close(&mut self) {
        match self {
            Side::Stream(s) => s.reset(Reset::Cut),
            socket => {
                if let Some(tcp) = socket.tcp() {
                    tcp.reset_on_close();
                }
            }
        }
    }

    /// Writes as much of `data` as can be taken now: by the kernel, or of a stream by its turn and the windows. `last`:
    /// nothing follows, and the last byte ends a stream.
    pub fn poll_write_part(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        match self {
            Side::Stream(s) => s.poll_write(cx, data, last),
            socket => Pin::new(socket).poll_write(cx, data),
        }
    }

    /// Sends the head of an answer, with the next write or flush, if the side is a stream; returns whether it is.
    /// `last`: the answer has no body.
    ///
    /// Errors: the stream was reset.
    pub fn send_head(&mut self, head: &Edits, last: bool) -> io::Result<bool> {
        match self {
            Side::Stream(s) => s.send_head(head, last).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Ends a stream's answer, with `trailers`, unless it has ended.
    pub fn end(&mut self, trailers: &[u8]) {
        if let Side::Stream(s) = self {
            s.end(trailers);
        }
    }

    /// Returns how many bytes of a stream's body were read; `None` for a socket.
    pub fn received(&self) -> Option<u64> {
        match self {
            Side::Stream(s) => Some(s.received()),
            _ => None,
        }
    }

    /// Returns why a stream was lost (it was reset, or its connection ended), where the relay only sees that the side
    /// broke. `None` for a socket.
    pub fn gone(&self) -> Option<EndReason> {
        match self {
            Side::Stream(s) => s.gone(),
            _ => None,
        }
    }
}

impl Side {
    /// Appends the bytes that can be read now to `into`, at most `most` and at most [`MORE`]; `Ok(0)` at the end.
    /// Allocates nothing while the peer is silent: a waiting connection keeps no buffer.
    pub fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        // Uninitialised: clearing 4 KiB for each read costs more than reading a short head.
        let mut chunk = [const { MaybeUninit::uninit() }; MORE];
        let mut buf = ReadBuf::uninit(&mut chunk[..most.min(MORE)]);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        into.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }
}

/// Maps the error of a read: `UnexpectedEof` if OpenSSL reports an end without close_notify.
fn cut(e: io::Error) -> io::Error {
    let tls = e.get_ref().and_then(|e| e.downcast_ref::<ssl::Error>());
    let stack = tls.and_then(ssl::Error::ssl_error);
    let ended = |e: &openssl::error::Error| e.reason_code() == UNEXPECTED_EOF;
    match stack.is_some_and(|s| s.errors().iter().any(ended)) {
        true => io::ErrorKind::UnexpectedEof.into(),
        false => e,
    }
}

/// `SSL_R_UNEXPECTED_EOF_WHILE_READING` of `openssl/sslerr.h`; the binding lacks it.
const UNEXPECTED_EOF: i32 = 294;

impl Tapped {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.side).poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), false) = (&read, self.over) {
            let new = &buf.filled()[before..];
            self.over = new.is_empty() || !self.tap.saw(new);
        }
        read
    }
}

impl AsyncRead for Side {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Side::Plain(t) => Pin::new(t).poll_read(cx, buf),
            Side::Tls(s) => {
                // HTTP/2 reads with each message that it sends. The runtime reports an empty socket more
                // cheaply than OpenSSL. OpenSSL reads ahead, so it may already hold the next record.
                if !kernel::holds_unread(s.ssl()) {
                    ready!(s.get_ref().poll_readable(cx))?;
                }
                let before = buf.filled().len();
                ready!(Pin::new(&mut **s).poll_read(cx, buf)).map_err(cut)?;
                let ended = buf.filled().len() == before && buf.remaining() > 0;
                // OpenSSL's binding takes the end of TCP for an orderly one. Without close_notify it is a cut
                // (RFC 9112 §9.8, RFC 8446 §6.1).
                match ended && !kernel::has_close_notify(s.ssl()) {
                    true => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    false => Poll::Ready(Ok(())),
                }
            }
            Side::Tapped(t) => t.poll_read(cx, buf),
            Side::Stream(s) => s.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Side::Plain(t) => Pin::new(t).poll_write(cx, data),
            Side::Tls(s) => Pin::new(&mut **s).poll_write(cx, data),
            Side::Tapped(t) => Pin::new(&mut t.side).poll_write(cx, data),
            Side::Stream(s) => s.poll_write(cx, data, false),
        }
    }

    /// Under TLS, joins the slices into one record: otherwise a chunk's size line, data and CRLF leave as
    /// three records in three sends.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Side::Tapped(t) => Pin::new(&mut t.side).poll_write_vectored(cx, bufs),
            Side::Stream(s) => {
                let first = bufs.iter().find(|b| !b.is_empty());
                s.poll_write(cx, first.map_or(&[], |b| b), false)
            }
            Side::Plain(t) => Pin::new(t).poll_write_vectored(cx, bufs),
            Side::Tls(s) => {
                let s = Pin::new(&mut **s);
                match bufs.iter().filter(|b| !b.is_empty()).collect::<Vec<_>>()[..] {
                    [] => Poll::Ready(Ok(0)),
                    [one] => s.poll_write(cx, one),
                    ref many => {
                        let mut record =
                            Vec::with_capacity(RECORD.min(many.iter().map(|b| b.len()).sum()));
                        for b in many {
                            let room = RECORD - record.len();
                            record.extend_from_slice(&b[..b.len().min(room)]);
                        }
                        s.poll_write(cx, &record)
                    }
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Side::Plain(t) => Pin::new(t).poll_flush(cx),
            Side::Tls(s) => Pin::new(&mut **s).poll_flush(cx),
            Side::Tapped(t) => Pin::new(&mut t.side).poll_flush(cx),
            Side::Stream(s) => s.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Side::Plain(t) => Pin::new(t).poll_shutdown(cx),
            Side::Tls(s) => Pin::new(&mut **s).poll_shutdown(cx),
            Side::Tapped(t) => Pin::new(&mut t.side).poll_shutdown(cx),
            Side::Stream(s) => {
                s.end(b"");
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::fixtures::{pair, tls_pair};
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    /// Fails if a side that waits for a silent peer keeps a buffer: 10,000 idle clients kept 40 MB. Also
    /// where the runtime still believes the socket readable, as after a read of a whole TLS record.
    #[tokio::test]
    async fn waiting_for_bytes_takes_no_buffer() {
        let (mut peer, plain) = pair().await;
        peer.write_all(b"one").await.expect("send");
        let (mut tls_peer, tls) = tls_pair().await;
        tls_peer.write_all(b"one").await.expect("send");
        for mut side in [plain, tls] {
            let mut into = Vec::new();
            let read = poll_fn(|cx| side.poll_more(cx, &mut into, MORE)).await;
            assert_eq!((read.expect("bytes"), &into[..]), (3, &b"one"[..]));
            let mut none = Vec::new();
            let waits = poll_fn(|cx| Poll::Ready(side.poll_more(cx, &mut none, MORE))).await;
            assert!(waits.is_pending() && none.capacity() == 0);
        }
    }
}
