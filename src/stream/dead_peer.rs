//! Finds dead peers that have bytes outstanding: power off, a cable cut, a network that drops everything.
//!
//! In: sockets, each with a limit. Out: a connection is aborted, as if reset, when its peer has acknowledged
//! nothing for the limit and has left several retransmissions or probes unanswered.
//! TCP_USER_TIMEOUT is not used: it also ends a peer that answers every probe and keeps its window shut.
//! Linux 6.18 aborted such a connection with ETIMEDOUT after 4 s where 3 s were set. A client that has
//! stopped reading must stay connected, and back-pressure must reach its node.
//! Without outstanding bytes keep-alive finds a dead peer, so no timer runs for a silent flow. `unread` tells a
//! flow that its peer has ended, while the flow does not read.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; FAULTS D53, D60; RFC 1122 §4.2.2.17.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::PollFlags;

use super::client_share::UpstreamCharge;
use super::kernel::{self, Info};
use super::last_bytes::LastBytes;

mod sockets;
mod unread;

use self::sockets::{SLICE, Sockets};

pub(super) use unread::{Peer, PeerEnd, Until, forget, poll_end};

thread_local! {
    static MINE: Arc<DeadPeerWatch> = Arc::default();
}

/// A registration with the watch of a thread. All client sockets of the thread share one; each socket to a node has
/// its own. Each socket holds one pointer to its registration.
#[derive(Debug, Default)]
pub struct DeadPeerWatch {
    sockets: Arc<Sockets>,
    last: Option<Arc<LastBytes>>,
    _charge: Option<UpstreamCharge>,
}

impl DeadPeerWatch {
    /// Watches `fd` on this thread until [`DeadPeerWatch::end`], which must come before the socket is closed.
    /// A `limit` above 49 days counts as 49 days.
    pub fn on(fd: RawFd, limit: Duration) -> Arc<Self> {
        MINE.with(Arc::clone).begin(fd, limit)
    }

    /// As [`DeadPeerWatch::on`] for a socket to a node: `last` takes over its unacknowledged bytes when it
    /// closes. `charge`: what it costs its client, held until then.
    pub fn on_node(
        fd: RawFd,
        limit: Duration,
        last: &Arc<LastBytes>,
        charge: Option<UpstreamCharge>,
    ) -> Arc<Self> {
        let ours = DeadPeerWatch {
            sockets: MINE.with(|mine| mine.sockets.clone()),
            last: Some(last.clone()),
            _charge: charge,
        };
        Arc::new(ours).begin(fd, limit)
    }

    fn begin(self: Arc<Self>, fd: RawFd, limit: Duration) -> Arc<Self> {
        kernel::limit_retransmit_interval(fd, limit / INTERVALS);
        let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        unread::forget_all(fd);
        self.sockets.lock().insert(fd, limit);
        self
    }

    /// Stops watching `fd`.
    pub fn end(&self, fd: RawFd) {
        unread::forget_all(fd);
        self.sockets.lock().remove(&fd);
    }

    /// Returns the keeper of unacknowledged bytes; `None` for sockets of clients.
    pub fn last(&self) -> Option<&Arc<LastBytes>> {
        self.last.as_ref()
    }
}

/// Ready once the client of `fd` has ended or reset the connection, even if earlier bytes are still unread.
pub(super) fn poll_ended(fd: RawFd, cx: &mut Context<'_>) -> Poll<()> {
    if !kernel::events(fd, PollFlags::RDHUP).is_empty() {
        return Poll::Ready(());
    }
    poll_end(fd, Peer::Client, Until::Ended, true, cx).map(drop)
}

/// Retransmissions in a row after which a peer counts as unresponsive: one may be on its way or lost. Probes
/// need one more, because Linux answers at most one of them in half a second.
const RETRANSMITS: u8 = 2;
const PROBES: u8 = 3;

/// Retransmissions and probes within a limit of 4 s to 8 min, at least: a peer that vanishes with its window shut
/// leaves [`PROBES`] of them unanswered within it. By itself the kernel doubles the time between probes, up to two
/// minutes, and finds such a peer after up to six minutes. Before Linux 6.15 it is so, because the time cannot be
/// limited.
const INTERVALS: u32 = 4;

/// Whether the peer is dead. Silence alone proves nothing: a peer with a shut window answers the probes, which
/// come a quarter of the limit apart, but at least 1 s.
fn peer_is_gone(facts: Info, limit: Duration) -> bool {
    let unanswered = facts.retransmits >= RETRANSMITS || facts.probes >= PROBES;
    unanswered && facts.silent >= limit
}

/// Shortest and longest time between two rounds; in between, a quarter of the shortest limit. Each socket
/// costs one system call of 0.2 µs a round. A flow whose client has ended, and whose bytes still wait,
/// is gone at most two rounds (5 s) after no byte has moved for the client's limit.
const PERIOD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(2500));

/// Watches the sockets of this thread, for as long as the thread lives.
pub async fn watch() {
    let mine = MINE.with(|mine| mine.sockets.clone());
    loop {
        let all: Vec<RawFd> = mine.lock().keys().copied().collect();
        for slice in all.chunks(SLICE) {
            slice.iter().for_each(|fd| look_at(&mine, *fd));
            tokio::task::yield_now().await;
        }
        unread::round(&mine).await;
        let shortest = mine.lock().values().min().copied();
        let quarter = |limit: u32| Duration::from_millis(limit.into()) / 4;
        let period = shortest.map_or(Duration::from_secs(1), quarter);
        tokio::time::sleep(period.clamp(PERIOD.0, PERIOD.1)).await;
    }
}

fn look_at(sockets: &Sockets, fd: RawFd) {
    // Held to the end, so that the socket cannot be closed meanwhile.
    let sockets = sockets.lock();
    let Some(limit) = sockets.get(&fd) else {
        return;
    };
    let limit = Duration::from_millis((*limit).into());
    if kernel::unacknowledged(fd) > 0 && kernel::info(fd).is_some_and(|f| peer_is_gone(f, limit)) {
        kernel::abort(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn only_an_unresponsive_peer_is_dead() {
        let limit = Duration::from_secs(10);
        let cases = [
            (0, 0, 3600, false, "nothing was asked"),
            (1, 0, 3600, false, "one try may be lost"),
            (9, 0, 9, false, "the limit is not reached"),
            (2, 0, 10, true, "bytes are not acknowledged"),
            (0, 3, 10, true, "probes are not answered"),
            (0, 2, 10, false, "one is not answered, one on its way"),
            (0, 1, 119, false, "a shut window, between two probes"),
        ];
        for (retransmits, probes, seconds, gone, name) in cases {
            let facts = Info {
                retransmits,
                probes,
                silent: Duration::from_secs(seconds),
                ..Info::default()
            };
            assert_eq!(peer_is_gone(facts, limit), gone, "{name}");
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        (client, listener.accept().expect("accept").0)
    }

    #[test]
    fn a_socket_is_watched_until_end() {
        let (client, _) = pair();
        let fd = client.as_raw_fd();
        let watch = DeadPeerWatch::on(fd, Duration::ZERO);
        let mine = MINE.with(|mine| mine.sockets.clone());
        assert!(mine.lock().contains_key(&fd));
        look_at(&mine, fd);
        assert!(client.peer_addr().is_ok(), "alive and silent");
        // Ended on another thread, as idle upstreams are when their node goes Down.
        std::thread::spawn(move || watch.end(fd))
            .join()
            .expect("no panic");
        assert!(mine.lock().is_empty());
    }
}
