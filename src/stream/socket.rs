//! Wraps the TCP socket of a side, and sets the options that keep the kernel from hiding bytes.
//!
//! In: an accepted or connected socket. Out: [`Tcp`], whose descriptor and readiness stay reachable under
//! TLS, and to which bytes already read can be returned.
//! Source: Lightstreamer clustering §1; Diffusion load balancers, "TCP retransmission timeout".

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pushgate_plugins::unix::name_of;
use rustix::event::PollFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::client_share::UpstreamCharge;
use super::dead_peer::{self, DeadPeerWatch};
use super::descriptors;
use super::kernel;
use super::last_bytes::LastBytes;
use super::pending_bytes::PendingBytes;
use super::{source, unix};

pub use super::kernel::{unacknowledged, unread};

/// A TCP socket, with bytes that were read ahead and will be read again.
#[derive(Debug)]
pub struct Tcp {
    /// The watch that finds a dead peer.
    watched: Option<Arc<DeadPeerWatch>>,
    stream: TcpStream,
    ahead: PendingBytes,
}

impl Tcp {
    /// Wraps a socket that is registered with the runtime of the task that serves it.
    pub fn new(stream: TcpStream) -> Self {
        Tcp {
            watched: None,
            stream,
            ahead: PendingBytes::default(),
        }
    }

    /// Makes this thread abort the connection when the peer is dead: it has left bytes unacknowledged for `limit`, and
    /// several retransmissions or probes unanswered.
    pub fn watch(&mut self, limit: Duration) {
        self.unwatch();
        self.watched = Some(DeadPeerWatch::on(self.fd(), limit));
    }

    /// As [`Tcp::watch`] for a socket to a node; `last` takes over its unacknowledged bytes when this is
    /// dropped. `charge` is held until then.
    pub fn watch_toward(
        &mut self,
        limit: Duration,
        last: &Arc<LastBytes>,
        charge: Option<UpstreamCharge>,
    ) {
        self.unwatch();
        self.watched = Some(DeadPeerWatch::on_node(self.fd(), limit, last, charge));
    }

    fn unwatch(&mut self) -> Option<Arc<DeadPeerWatch>> {
        let watch = self.watched.take()?;
        watch.end(self.fd());
        Some(watch)
    }

    /// Moves the socket to the runtime of another thread, which then wakes the tasks that wait for it. No
    /// task may be waiting for it here. The descriptor is duplicated and its number changes, because the
    /// socket below TLS can only be replaced, not taken out.
    ///
    /// Errors: no descriptor is left, or the runtime has ended; the socket is unchanged.
    pub fn rehome(&mut self, runtime: &Handle) -> io::Result<()> {
        // The other thread will watch it, under the new number.
        self.unwatch();
        let same = descriptors::for_flow(self.stream.as_fd().try_clone_to_owned()?)?;
        let _entered = runtime.enter();
        self.stream = TcpStream::from_std(same.into())?;
        Ok(())
    }

    /// Returns the descriptor; valid as long as this value lives.
    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Returns the socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether returned bytes wait to be read again.
    pub fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Ready when the kernel has bytes to read, or returned bytes wait.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            self.stream.poll_read_ready(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Ready once the peer has ended or reset the connection, even if earlier bytes are still unread; noticed
    /// within 2.5 s. Use when the client's read-ahead buffer is full.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        dead_peer::poll_ended(self.fd(), cx)
    }

    /// Waits for the next byte to be read and returns it without taking it; `None` if the connection has ended.
    pub async fn first_byte(&self) -> Option<u8> {
        if let Some(first) = self.ahead.bytes().first() {
            return Some(*first);
        }
        let mut first = [0];
        let looked = self.stream.peek(&mut first).await;
        looked.is_ok_and(|n| n == 1).then_some(first[0])
    }

    /// Waits until the peer has sent FIN or reset the connection; earlier bytes may still be unread.
    pub async fn peer_ended(&self) {
        // This interest reports "read closed" as reading does. Urgent data, for which it also stands, never
        // comes.
        let _ = self.stream.ready(Interest::PRIORITY).await;
    }

    /// Waits until the connection is broken: a peer that has sent FIN may still read.
    pub async fn peer_failed(&self) {
        let _ = self.stream.ready(Interest::ERROR).await;
    }

    /// Puts bytes back in front of the unread ones, to be read again.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        self.ahead.put_back(bytes);
    }

    /// Ready when the kernel has sent every byte it was given (the peer may still have to acknowledge them).
    ///
    /// With TCP_NOTSENT_LOWAT = 1 the socket is writable only then. poll(2) arms the kernel's "no space"
    /// flag, so that the next epoll edge does come; `WouldBlock` clears the runtime's cached readiness.
    pub fn poll_all_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let asked = self.stream.try_io(Interest::WRITABLE, || {
                if kernel::events(self.fd(), PollFlags::OUT).is_empty() {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match asked {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Makes closing send RST and free the send queue.
    pub fn reset_on_close(&self) {
        kernel::reset_on_close(&self.stream);
    }

    /// Calls [`Tcp::reset_on_close`] if the peer has not acknowledged everything.
    pub fn reset_on_close_if_unacknowledged(&self) {
        if self.unacknowledged() > 0 {
            self.reset_on_close();
        }
    }

    /// Calls [`Tcp::reset_on_close`] if the peer is stalled: otherwise the send queue of a client that does
    /// not read would stay in kernel memory.
    pub fn reset_on_close_if_stalled(&self) {
        if self.is_stalled() {
            self.reset_on_close();
        }
    }

    /// Returns the bytes in the kernel that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        unacknowledged(self.fd())
    }

    /// Whether bytes wait unsent in our kernel, because the peer takes no more. Unacknowledged bytes are no sign of it:
    /// with a round trip of 50 ms every busy client has some.
    pub fn is_stalled(&self) -> bool {
        kernel::unsent(self.fd()) > 0
    }

    /// Resets the connection now: the kernel frees the send queue, and reads and writes here get ECONNRESET.
    /// The descriptor stays open until this is dropped.
    pub fn abort(&self) {
        kernel::abort(self.fd());
    }

    /// Sends `words` and FIN in one segment. A peer that takes no more bytes gets only the FIN.
    pub fn send_then_fin(&self, words: &[u8]) {
        kernel::send_with_next(&self.stream, words);
        self.send_fin();
    }

    /// Holds back small segments until [`Tcp::send_fin`] or a full segment: bytes written meanwhile leave
    /// together.
    pub fn cork(&self) {
        // Fails only if the socket is not TCP; then the bytes leave separately.
        let _ = SockRef::from(&self.stream).set_tcp_cork(true);
    }

    /// Sends FIN after all written bytes, also below TLS. The descriptor stays open.
    pub fn send_fin(&self) {
        // Fails only if the connection is gone.
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let ahead = self.ahead.bytes();
            let n = ahead.len().min(buf.remaining());
            buf.put_slice(&ahead[..n]);
            self.ahead.take(n);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        // Unwatched before the descriptor is closed: its number may then belong to another socket.
        if let Some(watch) = self.unwatch()
            && let Some(last) = watch.last()
        {
            last.leave(&self.stream);
        }
    }
}

/// Options of one side's socket.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Idle time before the first keep-alive probe. Probes follow every 5 s, or every `keepalive` if that is
    /// shorter; three in all.
    pub keepalive: Duration,
    /// Receive buffer to set, in bytes; the kernel doubles it.
    pub receive_buffer: Option<usize>,
    /// Whether the receive buffer may grow while a flow carries bulk; segments are then limited to the small buffer.
    pub bulk: bool,
    /// Address of this machine to connect from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
}

/// Sets the options of both sides: no delay, keep-alive, and TCP_NOTSENT_LOWAT = 1, with which the kernel
/// takes new bytes only when it has sent the old ones. TCP_USER_TIMEOUT is not set: see [`super::dead_peer`].
pub fn tune(socket: &impl AsFd, options: &Options) -> io::Result<()> {
    let s = SockRef::from(socket);
    s.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive)
        .with_interval(options.keepalive.min(Duration::from_secs(5)))
        .with_retries(3);
    s.set_tcp_keepalive(&keepalive)?;
    if let Some(bytes) = options.receive_buffer {
        s.set_recv_buffer_size(bytes)?;
    }
    s.set_tcp_notsent_lowat(1)
}

/// Returns the receive buffer towards a node with which a flow hides at most `max_hidden` bytes.
///
/// A quarter: the kernel doubles it, so that a node can fill half, and [`unsent_allowance`] takes another
/// quarter (docs/decisions/0013-split-of-max-hidden.md). Bounds: 4 KiB (below it throughput collapses) to 1
/// MiB.
pub fn receive_buffer(max_hidden: u64) -> usize {
    (max_hidden / 4).clamp(SMALLEST, LARGEST) as usize
}

/// Returns the part of `max_hidden` that a relay may hold and leave unsent in our kernel for the client, together: a
/// quarter, 4 KiB to 1 MiB. The last quarter is for the overhead of TLS and chunks, and for the unforeseen.
pub fn unsent_allowance(max_hidden: u64) -> usize {
    (max_hidden / 4).clamp(SMALLEST, LARGEST) as usize
}

const SMALLEST: u64 = 4 << 10;
const LARGEST: u64 = 1 << 20;

/// Connects to a node.
///
/// The receive buffer is set before: below 32 KiB the kernel chooses a window scale of 0, so that no window
/// exceeds 64 KiB. Larger windows (SO_BUF_LOCK) are announced in units of 1 KiB, beyond the room for small
/// segments: a stalled node then resumes 0.4 s after its client.
///
/// Errors: those of connect(2). The caller sets the deadline.
pub async fn connect(to: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    if let Some(name) = name_of(to) {
        return descriptors::for_flow(unix::connect(&name)?);
    }
    let socket = descriptors::for_flow(source::open(to, options.source)?)?;
    tune(&socket, options)?;
    if let Some(bytes) = options.receive_buffer.filter(|_| options.bulk) {
        limit_segments(&socket, bytes);
    }
    socket.connect(to).await
}

/// Limits segments to the small receive buffer. To a node on this machine segments may have 64 KiB. After a
/// large window those would no longer fit a small one (0.1 MB/s by the sender's persist timer).
fn limit_segments(socket: &impl AsFd, receive_buffer: usize) {
    let bytes = u32::try_from(receive_buffer).unwrap_or(u32::MAX);
    // If it fails, bulk is slower, nothing else.
    let _ = SockRef::from(socket).set_tcp_mss(bytes.min(MAX_SEGMENT));
}

/// Largest segment, in bytes. Half of it doubled the CPU of bulk.
const MAX_SEGMENT: u32 = 8 * 1024;
