//! How a flow's two sockets leave Pingora: by ownership, when the wrappers that held them drop.
//!
//! While Pingora serves a flow, its sockets sit in two wrappers (the client's and the node's). Once
//! the head of a 101 is with the client's kernel the phase is [`Phase::Switched`]: both wrappers go
//! inert, the task that runs Pingora drops it, and each wrapper's `Drop` leaves its socket here.
//! No lock or copy on the ordinary path. Source: RFC 9110 §7.8, RFC 6455 §4.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::side::Side;

/// Where a flow stands on its way out of Pingora. The order is the only one possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// An ordinary request.
    Ordinary = 0,
    /// The client asked for a WebSocket.
    Asked = 1,
    /// The node said 101; its head is on the way to the client.
    Switching = 2,
    /// The client's kernel has the whole 101: the sockets are ours.
    Switched = 3,
}

/// A socket with the bytes that were read from it but not passed on.
pub type Left = (Side, Vec<u8>);

/// The shared state of the two wrappers.
#[derive(Default)]
pub struct Handoff {
    phase: AtomicU8,
    client_blocked: AtomicBool,
    body_follows: AtomicBool,
    node_waits: AtomicWaker,
    left: Mutex<(Option<Left>, Option<Left>)>,
}

impl Handoff {
    /// The present phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ordinary,
            1 => Phase::Asked,
            2 => Phase::Switching,
            _ => Phase::Switched,
        }
    }

    /// Moves on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The answer's head may wait for its body, whose first bytes were read with it.
    pub fn body_is_at_hand(&self) {
        self.body_follows.store(true, Ordering::Release);
    }

    /// Whether what is written to the client now may wait for the next write; true once an answer.
    pub fn body_follows(&self) -> bool {
        self.body_follows.load(Ordering::Acquire) && self.body_follows.swap(false, Ordering::AcqRel)
    }

    /// The client's socket takes no more: the node must not be read until it does.
    pub fn client_blocked(&self) {
        self.client_blocked.store(true, Ordering::Release);
    }

    /// The client's socket took bytes again.
    pub fn client_took(&self) {
        if self.client_blocked.swap(false, Ordering::AcqRel) {
            self.node_waits.wake();
        }
    }

    /// Whether the node may be read now; if not, the waker is kept until it may.
    pub fn may_read_node(&self, waker: &std::task::Waker) -> bool {
        if !self.client_blocked.load(Ordering::Acquire) {
            return true;
        }
        self.node_waits.register(waker);
        !self.client_blocked.load(Ordering::Acquire)
    }

    /// Wakes whoever waits to read the node, so that it sees a changed state (eviction).
    pub fn wake_node(&self) {
        self.node_waits.wake();
    }

    /// Registers the reader of the node for [`Handoff::wake_node`].
    pub fn watch_node(&self, waker: &std::task::Waker) {
        self.node_waits.register(waker);
    }

    /// Leaves the client's socket.
    pub fn leave_client(&self, left: Left) {
        self.left.lock().0 = Some(left);
    }

    /// Leaves the node's socket.
    pub fn leave_node(&self, left: Left) {
        self.left.lock().1 = Some(left);
    }

    /// Takes both sockets; `None` if either was not left.
    pub fn take(&self) -> Option<(Left, Left)> {
        let mut left = self.left.lock();
        match (left.0.take(), left.1.take()) {
            (Some(c), Some(n)) => Some((c, n)),
            _ => None,
        }
    }
}
