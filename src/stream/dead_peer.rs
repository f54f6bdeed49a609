//! Finds peers that are gone while bytes wait for them: power off, a cable cut, a network that drops all.
//!
//! In: sockets with a limit each. Out: the connection of a peer that has acknowledged nothing for so long,
//! although it was asked again and again, is aborted, as if it had been reset. The kernel's own
//! TCP_USER_TIMEOUT would do, but it also ends a peer that answers every probe and keeps its window shut
//! (seen on Linux 6.18: aborted with ETIMEDOUT after 4 s where 3 s were set, every probe answered), and a
//! client that has stopped reading must stay: its node is to feel it. Without outstanding bytes it is
//! keep-alive that finds a dead peer, so no timer runs for a silent flow.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; FAULTS D53, D60; RFC 1122 §4.2.2.17.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::kernel::{self, Info};
use super::last_bytes::LastBytes;

/// The sockets of one thread, with their limits in milliseconds: half of what a `Duration` takes, twice for
/// each flow. Whoever closes one takes it out first, so a descriptor in here is open.
type Sockets = Mutex<HashMap<RawFd, u32>>;

thread_local! {
    /// Tasks of this thread to be woken at the next look, by the socket whose end they wait for.
    static ENDS: RefCell<HashMap<RawFd, Waker>> = RefCell::default();
    static MINE: Arc<DeadPeerWatch> = Arc::default();
    /// One for each node this thread has sockets of, by the address of what is shared.
    static NODES: RefCell<HashMap<usize, Weak<DeadPeerWatch>>> = RefCell::default();
}

/// A thread that looks after sockets: those of clients, or of one node. Each socket has one pointer to it.
#[derive(Debug, Default)]
pub struct DeadPeerWatch {
    sockets: Arc<Sockets>,
    last: Option<Arc<LastBytes>>,
}

impl DeadPeerWatch {
    /// Has this thread look after `fd`, until [`DeadPeerWatch::end`], which must be before the socket is closed.
    /// A limit beyond 49 days is 49 days.
    pub fn on(fd: RawFd, limit: Duration) -> Arc<Self> {
        MINE.with(Arc::clone).begin(fd, limit)
    }

    /// The same for a socket of a node, whose last bytes are `last`'s when it is closed.
    pub fn on_node(fd: RawFd, limit: Duration, last: &Arc<LastBytes>) -> Arc<Self> {
        let key = Arc::as_ptr(last).addr();
        let known = NODES.with_borrow(|nodes| nodes.get(&key)?.upgrade());
        let ours = known.unwrap_or_else(|| {
            let new = Arc::new(DeadPeerWatch {
                sockets: MINE.with(|mine| mine.sockets.clone()),
                last: Some(last.clone()),
            });
            NODES.with_borrow_mut(|nodes| {
                nodes.retain(|_, v| v.strong_count() > 0);
                nodes.insert(key, Arc::downgrade(&new));
            });
            new
        });
        ours.begin(fd, limit)
    }

    fn begin(self: Arc<Self>, fd: RawFd, limit: Duration) -> Arc<Self> {
        let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        self.sockets.lock().insert(fd, limit);
        self
    }

    /// No longer looks after `fd`.
    pub fn end(&self, fd: RawFd) {
        self.sockets.lock().remove(&fd);
    }

    /// Who takes the last bytes of its sockets, where they are a node's.
    pub fn last(&self) -> Option<&Arc<LastBytes>> {
        self.last.as_ref()
    }
}

/// Ready once the peer of `fd` has ended or reset the connection, though bytes before that wait unread. Asked
/// again at each look: no edge of readiness comes behind bytes that nobody reads.
pub(super) fn poll_ended(fd: RawFd, cx: &mut Context<'_>) -> Poll<()> {
    if kernel::events(fd, libc::POLLRDHUP) != 0 {
        return Poll::Ready(());
    }
    ENDS.with_borrow_mut(|ends| ends.insert(fd, cx.waker().clone()));
    Poll::Pending
}

/// Tries in a row that show that a peer does not answer: one may be on its way, or be lost. A probe more:
/// Linux answers no two of them within half a second.
const RETRANSMITS: u8 = 2;
const PROBES: u8 = 3;

/// Whether the peer is gone. One that keeps its window shut answers the probes, which come as seldom as
/// every two minutes after a while: time alone says nothing.
fn peer_is_gone(facts: Info, limit: Duration) -> bool {
    let unanswered = facts.retransmits >= RETRANSMITS || facts.probes >= PROBES;
    unanswered && facts.silent >= limit
}

/// Longest and shortest time between two looks; a quarter of the shortest limit where that is between.
/// A look costs a system call of 0.2 µs for each socket.
const PERIOD: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Sockets looked at before others of the thread have their turn.
const SLICE: usize = 128;

/// Looks after the sockets of this thread, as long as it lives.
pub async fn watch() {
    let mine = MINE.with(|mine| mine.sockets.clone());
    loop {
        let all: Vec<RawFd> = mine.lock().keys().copied().collect();
        for slice in all.chunks(SLICE) {
            slice.iter().for_each(|fd| look_at(&mine, *fd));
            tokio::task::yield_now().await;
        }
        ENDS.take().into_values().for_each(Waker::wake);
        let shortest = mine.lock().values().min().copied();
        let quarter = |limit: u32| Duration::from_millis(limit.into()) / 4;
        let period = shortest.map_or(Duration::from_secs(1), quarter);
        tokio::time::sleep(period.clamp(PERIOD.0, PERIOD.1)).await;
    }
}

fn look_at(sockets: &Sockets, fd: RawFd) {
    // Held all the while: who wants to close the socket waits.
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
    fn only_who_does_not_answer_is_gone() {
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
    fn a_socket_is_watched_until_it_is_not() {
        let (client, _) = pair();
        let fd = client.as_raw_fd();
        let watch = DeadPeerWatch::on(fd, Duration::ZERO);
        let mine = MINE.with(|mine| mine.sockets.clone());
        assert!(mine.lock().contains_key(&fd));
        look_at(&mine, fd);
        assert!(client.peer_addr().is_ok(), "alive and silent");
        // Ended elsewhere, as idle upstreams are when their node goes Down.
        std::thread::spawn(move || watch.end(fd))
            .join()
            .expect("no panic");
        assert!(mine.lock().is_empty());
    }
}
