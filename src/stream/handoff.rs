//! How a flow's two sockets leave Pingora: by ownership, when the wrappers that held them drop.
//!
//! While Pingora serves a flow, its sockets sit in two wrappers (the client's and the node's). Once
//! the head of a 101, or of an answer that is streamed, is with the client's kernel the phase is
//! [`Phase::Switched`]: both wrappers go inert, the task that runs Pingora drops it, and each
//! wrapper's `Drop` leaves its socket here. No lock or copy on the ordinary path.
//! Source: RFC 9110 §7.8, RFC 6455 §4; RFC 9112 §6 (where an answer ends).

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::framing::Framing;
use super::side::Side;

/// Where a flow stands on its way out of Pingora. The order is the only one possible, but for
/// [`Handoff::stay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// An ordinary request.
    Ordinary = 0,
    /// The client asked for a WebSocket.
    Asked = 1,
    /// The node said 101 or began to stream; its head is on the way to the client.
    Switching = 2,
    /// The client's kernel has the whole head: the sockets are ours.
    Switched = 3,
}

/// An answer whose body is relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How the node frames the body, from its first byte on.
    pub framing: Framing,
    /// Whether the node's connection can carry another request after it.
    pub keep_node: bool,
    /// How the body must be written to the client.
    pub wrap: Wrap,
    /// Whether the client was told that its connection stays.
    pub keep_client: bool,
}

/// How the bytes of a body reach the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// As the node wrote them: both were told the same framing.
    AsIs,
    /// Chunk by chunk, because the node's end of connection is not the client's.
    Chunks,
}

/// A socket with the bytes that were read from it but not passed on.
pub type Left = (Side, Vec<u8>);

/// All that leaves Pingora.
pub struct Exit {
    /// The client's socket.
    pub client: Left,
    /// The node's.
    pub node: Left,
    /// The answer to be relayed; `None`: a WebSocket.
    pub answer: Option<Answer>,
}

/// The shared state of the two wrappers.
#[derive(Default)]
pub struct Handoff {
    phase: AtomicU8,
    client_blocked: AtomicBool,
    body_follows: AtomicBool,
    node_waits: AtomicWaker,
    // Boxed: the most flows by far, silent ones, keep an empty one.
    parts: Mutex<Option<Box<Parts>>>,
}

/// What has been left so far.
#[derive(Default)]
struct Parts {
    client: Option<Left>,
    node: Option<Left>,
    answer: Option<Answer>,
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

    /// Whether what is written to the client now may wait for the next write; true once an answer, and
    /// never for a head with which the sockets leave: it must be in the kernel before they do.
    pub fn body_follows(&self) -> bool {
        self.body_follows.load(Ordering::Acquire)
            && self.body_follows.swap(false, Ordering::AcqRel)
            && self.phase() < Phase::Switching
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

    /// The node begins an answer that leaves Pingora once its head is with the client.
    pub fn offer(&self, answer: Answer) {
        self.part(|p| p.answer = Some(answer));
        self.set_phase(Phase::Switching);
    }

    /// The answer on its way out, if it is not a 101.
    pub fn offered(&self) -> Option<Answer> {
        self.parts.lock().as_ref()?.answer.clone()
    }

    /// The head is with the client: the sockets may leave, and the body goes as `answer` says.
    pub fn settle(&self, answer: Answer) {
        self.part(|p| p.answer = Some(answer));
        self.set_phase(Phase::Switched);
    }

    /// The answer stays with Pingora after all: it failed, or its head is not what was expected.
    pub fn stay(&self) {
        self.set_phase(Phase::Ordinary);
        self.parts.lock().take();
        self.node_waits.wake();
    }

    /// Leaves the client's socket.
    pub fn leave_client(&self, left: Left) {
        self.part(|p| p.client = Some(left));
    }

    /// Leaves the node's socket.
    pub fn leave_node(&self, left: Left) {
        self.part(|p| p.node = Some(left));
    }

    fn part(&self, change: impl FnOnce(&mut Parts)) {
        change(self.parts.lock().get_or_insert_default());
    }

    /// Takes both sockets; `None` if either was not left. Nobody waits for the node from here on.
    pub fn take(&self) -> Option<Exit> {
        drop(self.node_waits.take());
        let parts = *self.parts.lock().take()?;
        Some(Exit {
            client: parts.client?,
            node: parts.node?,
            answer: parts.answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red where a head with which the sockets leave is kept back: it would stay behind.
    #[test]
    fn a_head_waits_once_and_never_when_the_sockets_leave() {
        for (phase, waits) in [(Phase::Ordinary, true), (Phase::Switching, false)] {
            let handoff = Handoff::default();
            handoff.set_phase(phase);
            handoff.body_is_at_hand();
            assert_eq!(handoff.body_follows(), waits, "{phase:?}");
            handoff.stay();
            assert!(!handoff.body_follows(), "{phase:?}: once");
        }
    }
}
