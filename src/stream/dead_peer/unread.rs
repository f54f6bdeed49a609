//! Notices the end of a peer from which no direction of a relay reads: its FIN was passed on, or its bytes
//! wait for the other side.
//!
//! In: sockets, each with what ends its wait. Out: a [`PeerEnd`], and the waiting task is woken.
//! epoll does not report such an end: no task waits to read, and behind unread bytes or a FIN no new edge
//! comes. So each round of the watch for dead peers asks poll(2) and TCP_INFO, which cost 0.8 µs a flow.
//! The bytes of a peer that has ended go on to the other side for as long as that takes them. Only when no
//! byte has moved for `user_timeout` does the end count; after a FIN, which may be that of a client that reads
//! on, that time begins anew.
//! Source: FAULTS D20, D53, D60; RFC 9293 §3.6 (half-closed connections).

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::RawFd;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::sockets::{SLICE, Sockets};
use crate::stream::kernel;
use crate::stream::turns::wake_in_turns;

thread_local! {
    static UNREAD: RefCell<HashMap<Key, Watch>> = RefCell::default();
}

/// A socket, and the peer that is watched by it.
type Key = (RawFd, Peer);

/// Whose end is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A client, by its own socket. Its FIN ends the wait once no byte moves.
    Client,
    /// A node, by its own socket. Its FIN is reported at once: what it sent before is complete.
    Node,
    /// The client of a stream that is over, by the socket of the node that must take the rest.
    Stream,
}

/// What ends the wait for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// FIN, reset or death.
    Ended,
    /// Reset or death: the peer's FIN was passed on, and the peer may still read.
    Failed,
    /// As `Ended`, but only when the bytes of the peer no longer move.
    Stalled {
        /// The socket that must take the bytes; `None`: they go to a stream.
        to: Option<RawFd>,
        /// Bytes that the relay has passed. A different number begins a new wait.
        passed: u64,
    },
}

/// How a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    /// By FIN.
    Closed,
    /// By reset, or it was found dead.
    Failed,
}

/// A wait for the end of one peer.
struct Watch {
    waker: Waker,
    until: Until,
    /// Bytes that both sides had acknowledged when they last acknowledged any.
    acknowledged: u64,
    /// Since when no byte has moved; `None` until the first round.
    since: Option<Instant>,
    /// The peer's FIN was seen.
    finished: bool,
    end: Option<PeerEnd>,
}

impl Watch {
    fn new(until: Until, waker: &Waker) -> Self {
        Watch {
            waker: waker.clone(),
            until,
            acknowledged: 0,
            since: None,
            finished: false,
            end: None,
        }
    }

    /// Judges one round. `events`: those of the peer's socket. `limit`: its `user_timeout`.
    fn judge(
        &mut self,
        peer: Peer,
        events: PollFlags,
        acknowledged: u64,
        (now, limit): (Instant, Duration),
    ) -> Option<PeerEnd> {
        // Not by POLLHUP: it also stands for a FIN of each side.
        let failed = events.contains(PollFlags::ERR);
        let ended = events.intersects(PollFlags::RDHUP | PollFlags::HUP);
        if ended && !failed && !std::mem::replace(&mut self.finished, true) {
            self.since = None;
        }
        let stalled = self.is_stalled(acknowledged, now, limit);
        match (self.until, peer) {
            (Until::Ended, _) if failed || ended => Some(PeerEnd::Closed),
            (Until::Failed, _) if failed => Some(PeerEnd::Failed),
            (Until::Stalled { .. }, Peer::Stream) if stalled => Some(PeerEnd::Closed),
            (Until::Stalled { .. }, Peer::Client | Peer::Node) if failed && stalled => {
                Some(PeerEnd::Failed)
            }
            (Until::Stalled { .. }, Peer::Client) if ended && stalled => Some(PeerEnd::Closed),
            (Until::Stalled { .. }, Peer::Node) if ended && !failed => Some(PeerEnd::Closed),
            _ => None,
        }
    }

    fn is_stalled(&mut self, acknowledged: u64, now: Instant, limit: Duration) -> bool {
        match self.since {
            Some(since) if acknowledged == self.acknowledged => now - since >= limit,
            _ => {
                self.acknowledged = acknowledged;
                self.since = Some(now);
                false
            }
        }
    }
}

/// Ready, with how, when the wait for `peer` is over; the socket must be watched by this thread. `again`: the
/// caller has waited for this peer since it last called [`forget`].
pub fn poll_end(
    fd: RawFd,
    peer: Peer,
    until: Until,
    again: bool,
    cx: &mut Context<'_>,
) -> Poll<PeerEnd> {
    UNREAD.with_borrow_mut(|all| {
        let watch = match all.entry((fd, peer)) {
            Entry::Occupied(known) if again && known.get().until == until => known.into_mut(),
            entry => entry.insert_entry(Watch::new(until, cx.waker())).into_mut(),
        };
        watch.waker.clone_from(cx.waker());
        watch.end.map_or(Poll::Pending, Poll::Ready)
    })
}

/// Ends the wait for `peer`, because a direction reads from it again.
pub fn forget(fd: RawFd, peer: Peer) {
    UNREAD.with_borrow_mut(|all| all.remove(&(fd, peer)));
}

/// Ends all waits by the socket `fd`, whose number may now belong to another connection.
pub fn forget_all(fd: RawFd) {
    // A thread that ends drops sockets after its table.
    let _ = UNREAD.try_with(|all| {
        let mut all = all.borrow_mut();
        for peer in [Peer::Client, Peer::Node, Peer::Stream] {
            if !all.is_empty() {
                all.remove(&(fd, peer));
            }
        }
    });
}

/// Looks at each peer once, and wakes the tasks whose wait is over.
pub(super) async fn round(sockets: &Sockets) {
    let all: Vec<Key> = UNREAD.with_borrow(|all| all.keys().copied().collect());
    for slice in all.chunks(SLICE) {
        let over = slice.iter().filter_map(|key| look_at(sockets, *key));
        wake_in_turns(over.collect()).await;
        tokio::task::yield_now().await;
    }
}

/// Returns the waker of a task whose wait is over.
fn look_at(sockets: &Sockets, (fd, peer): Key) -> Option<Waker> {
    // Held to the end, so that the socket cannot be closed meanwhile.
    let sockets = sockets.lock();
    UNREAD.with_borrow_mut(|all| {
        let Some(limit) = sockets.get(&fd) else {
            // The task registers again if it still waits.
            return all.remove(&(fd, peer)).map(|watch| watch.waker);
        };
        let limit = Duration::from_millis((*limit).into());
        let watch = all.get_mut(&(fd, peer)).filter(|w| w.end.is_none())?;
        let acknowledged = match watch.until {
            Until::Stalled { to, .. } => acknowledged(fd) + to.map_or(0, acknowledged),
            Until::Ended | Until::Failed => 0,
        };
        let events = kernel::events(fd, PollFlags::RDHUP);
        watch.end = watch.judge(peer, events, acknowledged, (Instant::now(), limit));
        watch.end.map(|_| watch.waker.clone())
    })
}

/// Returns how many bytes the peer of `fd` has acknowledged. A client that reads acknowledges the node's
/// bytes, so it has not left, even if the node takes none of its own.
fn acknowledged(fd: RawFd) -> u64 {
    kernel::info(fd).map_or(0, |facts| facts.acknowledged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED: Until = Until::Stalled {
        to: None,
        passed: 7,
    };
    const NONE: PollFlags = PollFlags::empty();
    const RESET: PollFlags = PollFlags::ERR.union(FINS);
    const FIN: PollFlags = PollFlags::RDHUP;
    /// FIN of both sides.
    const FINS: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP);

    /// Aim: an end counts when nothing of the peer can still arrive. Fails if a half-closed client that reads
    /// is taken for gone, if bytes that still move are cut, or if a node's last bytes are dropped.
    #[test]
    fn an_end_counts_when_no_byte_moves() {
        let limit = Duration::from_secs(10);
        let (closed, failed) = (Some(PeerEnd::Closed), Some(PeerEnd::Failed));
        let cases = [
            (Peer::Client, Until::Failed, NONE, 60, None, "silent"),
            (Peer::Client, Until::Failed, FIN, 60, None, "half-closed"),
            (Peer::Client, Until::Failed, RESET, 0, failed, "FIN, reset"),
            (Peer::Client, Until::Ended, FIN, 0, closed, "left"),
            (Peer::Client, Until::Ended, NONE, 60, None, "still there"),
            (Peer::Client, STALLED, NONE, 60, None, "node does not read"),
            (Peer::Client, STALLED, FIN, 9, None, "closed, node slow"),
            (Peer::Client, STALLED, RESET, 9, None, "reset, node slow"),
            (Peer::Client, STALLED, FIN, 10, closed, "closed, stalled"),
            (Peer::Client, STALLED, FINS, 10, closed, "both, stalled"),
            (Peer::Client, STALLED, RESET, 10, failed, "reset, stalled"),
            (Peer::Node, STALLED, NONE, 60, None, "client does not read"),
            (Peer::Node, STALLED, FIN, 0, closed, "complete"),
            (Peer::Node, STALLED, FINS, 0, closed, "complete, both"),
            (Peer::Node, STALLED, RESET, 9, None, "reset, client slow"),
            (Peer::Node, STALLED, RESET, 10, failed, "reset, stalled"),
            (Peer::Stream, STALLED, NONE, 9, None, "stream, node slow"),
            (Peer::Stream, STALLED, NONE, 10, closed, "stream, stalled"),
        ];
        for (peer, until, events, seconds, end, name) in cases {
            let (begun, mut watch) = (Instant::now(), Watch::new(until, Waker::noop()));
            let mut at = |seconds| {
                let now = begun + Duration::from_secs(seconds);
                watch.judge(peer, events, 5, (now, limit))
            };
            assert_eq!(at(0).or_else(|| at(seconds)), end, "{name}");
        }
    }

    /// Aim: a byte that either side acknowledges begins the wait anew, and so does a FIN, but no reset. Fails
    /// if only the relay's own count does, or if a client is cut at its FIN, because its node paused before.
    #[test]
    fn a_byte_that_moves_begins_anew() {
        let (begun, limit) = (Instant::now(), Duration::from_secs(10));
        let mut watch = Watch::new(STALLED, Waker::noop());
        let mut at = |seconds, acknowledged, events| {
            let now = begun + Duration::from_secs(seconds);
            watch.judge(Peer::Client, events, acknowledged, (now, limit))
        };
        assert_eq!([at(0, 1, NONE), at(9, 1, NONE), at(60, 1, FIN)], [None; 3]);
        assert_eq!([at(69, 2, FIN), at(78, 2, FIN)], [None; 2]);
        assert_eq!(at(79, 2, FIN), Some(PeerEnd::Closed));
        let mut watch = Watch::new(STALLED, Waker::noop());
        let mut at = |seconds, events| {
            let now = begun + Duration::from_secs(seconds);
            watch.judge(Peer::Client, events, 1, (now, limit))
        };
        assert_eq!((at(0, NONE), at(60, RESET)), (None, Some(PeerEnd::Failed)));
    }

    /// Aim: a wait that was ended does not end a later flow. Fails if an entry survives its socket or the
    /// relay that made it.
    #[test]
    fn a_wait_is_forgotten() {
        let mut cx = Context::from_waker(Waker::noop());
        let ended = |fd| {
            UNREAD.with_borrow_mut(|all| {
                let watch = all.get_mut(&(fd, Peer::Client)).expect("a wait");
                watch.end = Some(PeerEnd::Failed);
            });
        };
        let mut poll = |again| poll_end(-1, Peer::Client, STALLED, again, &mut cx);
        assert!(poll(false).is_pending());
        ended(-1);
        assert!(poll(true).is_ready() && poll(false).is_pending());
        ended(-1);
        forget_all(-1);
        assert!(poll(true).is_pending());
        forget(-1, Peer::Client);
        assert!(UNREAD.with_borrow(HashMap::is_empty));
    }
}
