//! Queries sockets and sets their options. Every `unsafe` for `stream` and its sockets is here.
//!
//! In: a descriptor. Out: bytes in its queues, the facts of `TCP_INFO`, its readiness now, pipes. Each
//! function is one system call that never waits. On a descriptor that is no socket it reports nothing.
//! Source: tcp(7), socket(7), `linux/tcp.h`, `linux/sockios.h`; RFC 9293 §3.8.6 (the window).

use std::ffi::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use foreign_types::ForeignTypeRef;
use openssl::ssl::SslRef;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns the bytes in the kernel that the peer of `fd` has not acknowledged.
pub fn unacknowledged(fd: RawFd) -> u64 {
    ioctl_int::<TIOCOUTQ>(fd)
}

/// Returns the bytes in the kernel that were never sent, because the window of the peer of `fd` is shut.
pub fn unsent(fd: RawFd) -> u64 {
    ioctl_int::<SIOCOUTQNSD>(fd)
}

/// Returns the bytes in the kernel that we have not read.
pub fn unread(fd: RawFd) -> u64 {
    ioctl_int::<FIONREAD>(fd)
}

const TIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
const FIONREAD: Opcode = libc::FIONREAD as Opcode;
/// From `linux/sockios.h`; libc lacks it.
const SIOCOUTQNSD: Opcode = 0x894b;

fn ioctl_int<const REQUEST: Opcode>(fd: RawFd) -> u64 {
    // SAFETY: each request of this file writes one int.
    let n = unsafe { ioctl(borrowed(fd), Getter::<REQUEST, c_int>::new()) };
    n.unwrap_or(0).max(0) as u64
}

/// Borrows `fd` for one system call of this file.
fn borrowed<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the caller has this socket open, so it is not -1; nobody keeps the borrow.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// What the kernel reports about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Retransmissions of the same bytes in a row without an answer.
    pub retransmits: u8,
    /// Probes of a shut window in a row without an answer.
    pub probes: u8,
    /// Time since the peer last acknowledged anything.
    pub silent: Duration,
    /// Bytes that the peer has acknowledged since the connection began.
    pub acknowledged: u64,
    /// The peer's window: bytes that may follow the acknowledged ones. 0 before Linux 5.4, which does not
    /// report it.
    pub window: u64,
    /// Bytes that the kernel has not sent.
    pub unsent: u64,
    /// Segments received.
    pub segments: u32,
    /// Whether the connection is over: reset, timed out or aborted.
    pub is_broken: bool,
    /// Time since the last byte was sent, also again.
    pub since_sent: Duration,
    /// Time since the peer last sent a byte.
    pub since_received: Duration,
    /// Round trip, smoothed.
    pub round_trip: Duration,
    /// Time in which the connection had bytes to send.
    pub busy: Duration,
    /// Part of `busy` in which the peer's window was full.
    pub window_limited: Duration,
    /// Part of `busy` in which our send buffer was too small.
    pub buffer_limited: Duration,
}

/// Reads `TCP_INFO` (0.3 µs) through libc, since neither rustix nor socket2 does. `None`: not TCP, or closed.
pub fn info(fd: RawFd) -> Option<Info> {
    let mut raw = TcpInfo::default();
    let mut size = size_of::<TcpInfo>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: `raw` has room for `size` bytes and every bit pattern is valid; an older kernel fills less.
    let rc = unsafe { libc::getsockopt(fd, level, option, (&raw mut raw).cast(), &mut size) };
    (rc == 0).then(|| Info {
        retransmits: raw.retransmits,
        probes: raw.probes,
        silent: Duration::from_millis(raw.last_ack_recv.into()),
        acknowledged: raw.bytes_acked,
        window: raw.snd_wnd.into(),
        unsent: raw.notsent_bytes.into(),
        segments: raw.segs_in,
        is_broken: raw.state == TCP_CLOSE,
        since_sent: Duration::from_millis(raw.last_data_sent.into()),
        since_received: Duration::from_millis(raw.last_data_recv.into()),
        round_trip: Duration::from_micros(raw.rtt.into()),
        busy: Duration::from_micros(raw.busy_time),
        window_limited: Duration::from_micros(raw.rwnd_limited),
        buffer_limited: Duration::from_micros(raw.sndbuf_limited),
    })
}

/// From `linux/tcp_states.h`; libc lacks it.
const TCP_CLOSE: u8 = 7;

/// The beginning of `struct tcp_info` in `linux/tcp.h`; libc's ends before `snd_wnd`.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    bits: [u8; 4],
    from_rto: [u32; 9],
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    from_pmtu: [u32; 2],
    rtt: u32,
    from_rttvar: [u32; 8],
    pacing: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    from_min_rtt: [u32; 3],
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    from_delivered: [u32; 2],
    from_bytes_sent: [u64; 2],
    from_dsack_dups: [u32; 3],
    snd_wnd: u32,
}

const _: () = assert!(
    offset_of!(TcpInfo, last_ack_recv) == 56
        && offset_of!(TcpInfo, rtt) == 68
        && offset_of!(TcpInfo, rwnd_limited) == 176
        && offset_of!(TcpInfo, bytes_acked) == 120
        && offset_of!(TcpInfo, segs_in) == 140
        && offset_of!(TcpInfo, notsent_bytes) == 144
        && offset_of!(TcpInfo, snd_wnd) == 228
        && size_of::<TcpInfo>() == 232
);

/// Returns the time since the machine started in 1/64 s, cut to 32 bits. The coarse clock, a few ms behind, costs a
/// fifth of the exact one (5 ns).
pub fn coarse_time() -> u32 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a timespec, which the call fills. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    (now.tv_sec as u32).wrapping_mul(64) + (now.tv_nsec as u32) / (1_000_000_000 / 64)
}

/// Returns which of the `events` of poll(2) have come. POLLOUT arms the kernel's "no space" flag.
pub fn events(fd: RawFd, events: PollFlags) -> PollFlags {
    let fd = borrowed(fd);
    let mut asked = [PollFd::from_borrowed_fd(fd, events)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(1..) => asked[0].revents(),
        _ => PollFlags::empty(),
    }
}

/// Aborts the connection: the kernel frees its send queue, and reads and writes get ECONNRESET.
pub fn abort(fd: RawFd) {
    // Cannot fail for TCP (tcp(7): connecting to AF_UNSPEC dissolves the association). A Unix socket can only end.
    if rustix::net::connect_unspec(borrowed(fd)).is_err() {
        let _ = rustix::net::shutdown(borrowed(fd), Shutdown::Both);
    }
}

/// Limits the time between two retransmissions, and between two probes of a shut window; at least 1 s. The
/// kernel's own limit is two minutes.
pub fn limit_retransmit_interval(fd: RawFd, most: Duration) {
    let most = most.as_millis().clamp(1000, 120_000) as c_int;
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value is one int. Before Linux 6.15 the call fails, and the kernel's limit stays.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const most).cast(),
            size,
        )
    };
}

/// Makes bind(2) leave the choice of the port to connect(2), which may take one that is in use towards elsewhere.
pub fn choose_port_late(socket: &impl AsFd) {
    let on: c_int = 1;
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value is one int. If the call fails, fewer connections have room.
    unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
}

/// From `linux/tcp.h`; libc lacks it.
const TCP_RTO_MAX_MS: c_int = 44;

/// Gives the kernel `words`, to be sent with the next bytes. A peer that takes no more bytes does not get
/// them.
pub fn send_with_next(socket: &impl AsFd, words: &[u8]) {
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(socket, words, flags);
}

/// Whether the connection is open with no byte to read.
pub fn is_silent(socket: &impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let got = rustix::net::recv(socket, &mut [0; 1], flags);
    got.is_err_and(|e| e == Errno::WOULDBLOCK)
}

/// Makes closing send RST and free the send queue.
pub fn reset_on_close(socket: &impl AsFd) {
    // Fails only if it is not a socket.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Whether closing would send RST.
pub fn resets_on_close(socket: &impl AsFd) -> bool {
    matches!(SockRef::from(socket).linger(), Ok(Some(Duration::ZERO)))
}

/// Returns the receive buffer in bytes as the kernel counts: twice the value of SO_RCVBUF that was set; 0 if
/// it is not a socket.
pub fn receive_buffer(socket: &impl AsFd) -> usize {
    SockRef::from(socket).recv_buffer_size().unwrap_or(0)
}

/// Sets the receive buffer to `bytes` as the kernel counts, at most twice `net.core.rmem_max`.
pub fn set_receive_buffer(socket: &impl AsFd, bytes: usize) {
    // Fails only if it is not a socket.
    let _ = SockRef::from(socket).set_recv_buffer_size(bytes / 2);
}

/// Makes a pipe that does not block; returns the end to read from and the end to write to.
///
/// Errors: no descriptor is left.
pub fn pipe() -> io::Result<[OwnedFd; 2]> {
    let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    Ok([out, into])
}

/// Moves up to `most` bytes between a pipe and a socket without waiting. Without `SPLICE_F_MORE`, which would
/// make the sink hold the last bytes back.
///
/// Errors: those of splice(2); `WouldBlock` if no byte can move now.
pub fn splice(from: &impl AsFd, to: &impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}

/// Whether the peer has ended its TLS in order, by close_notify.
pub fn has_close_notify(ssl: &SslRef) -> bool {
    // SAFETY: `ssl` is a live connection, which the call only reads.
    let shut = unsafe { openssl_sys::SSL_get_shutdown(ssl.as_ptr()) };
    shut & openssl_sys::SSL_RECEIVED_SHUTDOWN != 0
}

/// Whether OpenSSL holds unread bytes of the peer, decrypted or not.
pub fn holds_unread(ssl: &SslRef) -> bool {
    // SAFETY: `ssl` is a live connection, which the call only reads.
    unsafe { SSL_has_pending(ssl.as_ptr()) == 1 }
}

unsafe extern "C" {
    /// From `openssl/ssl.h`; the binding lacks it.
    fn SSL_has_pending(ssl: *const openssl_sys::SSL) -> c_int;
}

/// Registers `source` with the runtime of this thread, for readiness to read. `source` must keep the same
/// descriptor open for as long as it lives.
///
/// Errors: no descriptor, or no memory.
pub fn watch_readable<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the registration ends with `source`, which keeps its descriptor until then.
    let watched = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        (client, listener.accept().expect("accept").0)
    }

    /// Asks the kernel itself for the behaviour that an abort relies on.
    #[test]
    fn an_aborted_socket_fails_at_once() {
        let (mut client, mut ours) = pair();
        ours.write_all(b"x").expect("send");
        abort(ours.as_raw_fd());
        let failed = ours.read(&mut [0]).expect_err("no connection");
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
        let mut end = Vec::new();
        assert!(
            client.read_to_end(&mut end).is_err(),
            "the peer sees an orderly end"
        );
    }

    /// Fails if a field of `TCP_INFO` is read at the wrong offset: the client's window, less what it was
    /// sent, is the room it has left.
    #[test]
    fn promises_are_read_where_they_are() {
        let (client, mut ours) = pair();
        let fd = ours.as_raw_fd();
        let before = info(fd).expect("facts");
        assert_eq!((before.acknowledged, before.unsent), (0, 0));
        assert!((1 << 14..1 << 24).contains(&before.window), "{before:?}");
        ours.write_all(&[7; 1000]).expect("send");
        while unacknowledged(fd) > 0 {
            std::thread::yield_now();
        }
        let after = info(fd).expect("facts");
        assert_eq!((after.acknowledged, after.unsent), (1000, 0));
        assert_eq!(unread(client.as_raw_fd()), 1000);
        ours.set_nonblocking(true).expect("a socket");
        while ours.write(&[7; 1 << 16]).is_ok() {}
        let full = info(fd).expect("facts");
        assert!(full.unsent > 0 && full.unsent == unsent(fd), "{full:?}");
    }
}
