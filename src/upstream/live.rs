//! One live flow as its node sees it: what must be cut when the node goes Down.
//!
//! Source: Diffusion load balancers, "TCP retransmission timeout" ("shutdown connections to
//! Diffusion servers it knows are unhealthy").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pushgate_plugins::api::NodeId;

use super::evict::{Reaper, reaper};
use super::signal::Signal;
use crate::stream::handoff::Handoff;

/// Why a flow was closed while its node was well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Closed {
    /// Its client is to move to another node.
    Rebalanced = 1,
    /// Its assignment reached `max_age`, and `cut_at_max_age` is set.
    Expired = 2,
}

/// A flow between a client and, once assigned, a node.
pub struct LiveFlow {
    /// Number of the flow, unique in this process.
    pub id: u64,
    /// Exit from Pingora.
    pub handoff: Handoff,
    /// Cuts the client's side: the client connection at HTTP/1 and layer 4, the stream at HTTP/2.
    pub kill: Signal,
    /// Wakes a connect that is in progress.
    pub give_up: Signal,
    /// The thread that serves it ends it.
    reaper: Option<Reaper>,
    since: Instant,
    /// The node it is entered in; 0: none.
    at: AtomicU64,
    begun: AtomicBool,
    evicted: AtomicBool,
    bad_answer: AtomicBool,
    ends_by_close: AtomicBool,
    cut_short: AtomicBool,
    /// 0, or a [`Closed`].
    closed: AtomicU8,
}

impl Default for LiveFlow {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        LiveFlow {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            handoff: Handoff::default(),
            kill: Signal::default(),
            give_up: Signal::default(),
            reaper: reaper(),
            since: Instant::now(),
            at: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            bad_answer: AtomicBool::new(false),
            ends_by_close: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            closed: AtomicU8::new(0),
        }
    }
}

impl LiveFlow {
    /// A new flow.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The node has begun to answer: from here on the flow cannot be retried elsewhere.
    ///
    /// If the node was evicted in this very moment the client is cut here, so that the flow is
    /// lost by neither order of the two events.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        if self.evicted.load(Ordering::SeqCst) {
            self.kill.give();
        }
    }

    /// Time since it began, at its client.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether the node has begun to answer.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether its node was evicted under it.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::SeqCst)
    }

    /// Closes the flow at the client, which will come back, if its answer has begun; one that has
    /// not is left to end by itself. Returns whether it was closed by this call.
    pub fn close(&self, why: Closed) -> bool {
        let first = || {
            let closed = &self.closed;
            closed.compare_exchange(0, why as u8, Ordering::SeqCst, Ordering::SeqCst)
        };
        let closes = self.has_begun() && !self.is_evicted() && first().is_ok();
        if closes {
            self.kill.give();
        }
        closes
    }

    /// Why it was closed, if it was.
    pub fn closed(&self) -> Option<Closed> {
        match self.closed.load(Ordering::SeqCst) {
            1 => Some(Closed::Rebalanced),
            2 => Some(Closed::Expired),
            _ => None,
        }
    }

    /// The node's answer was no legal HTTP.
    pub fn answered_badly(&self) {
        self.bad_answer.store(true, Ordering::Relaxed);
    }

    /// Whether the node's answer was no legal HTTP.
    pub fn is_bad_answer(&self) -> bool {
        self.bad_answer.load(Ordering::Relaxed)
    }

    /// The client sees the end of the answer by that of its connection only.
    pub fn ends_by_close(&self) {
        self.ends_by_close.store(true, Ordering::Relaxed);
    }

    /// The answer had begun and will not come to its end.
    pub fn cut_short(&self) {
        self.cut_short.store(true, Ordering::Relaxed);
    }

    /// Whether an orderly close would make a cut answer look complete to the client.
    pub fn must_reset(&self) -> bool {
        let ended_by_us = self.is_evicted() || self.closed().is_some();
        let cut = self.cut_short.load(Ordering::Relaxed) || ended_by_us;
        cut && self.ends_by_close.load(Ordering::Relaxed)
    }

    /// Forgets an eviction or a bad answer, because the flow is tried once more.
    pub fn retry(&self) {
        // Left, it would end the next connect, to a node that is well.
        self.give_up.take_back();
        self.evicted.store(false, Ordering::SeqCst);
        self.begun.store(false, Ordering::SeqCst);
        self.bad_answer.store(false, Ordering::Relaxed);
    }

    /// Notes the node the flow is entered in.
    pub fn entered(&self, node: NodeId) {
        self.at.store(node.0, Ordering::SeqCst);
    }

    /// Notes that it has left `node`, unless it is entered in another already.
    pub fn left(&self, node: NodeId) {
        let at = &self.at;
        let _ = at.compare_exchange(node.0, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// [`LiveFlow::evict_from`] by the thread that serves the flow, in its turn.
    pub fn reap(self: Arc<Self>, node: NodeId) {
        // Where too many wait, or the thread is gone, the flow is ended here.
        let left = self
            .reaper
            .as_ref()
            .map(|r| r.try_send((self.clone(), node)));
        if !matches!(left, Some(Ok(()))) {
            self.evict_from(node);
        }
    }

    /// Ends the flow if it is still on `node`: a flow that failed there may have been tried elsewhere
    /// since it was listed, and its new node is well.
    pub fn evict_from(&self, node: NodeId) {
        if self.at.load(Ordering::SeqCst) == node.0 {
            self.evict();
        }
    }

    /// Ends the flow on its node: a flow whose answer has begun is cut at the client; one that is
    /// not answered yet fails at the node's side only, so that it can be retried elsewhere.
    pub fn evict(&self) {
        self.evicted.store(true, Ordering::SeqCst);
        if self.begun.load(Ordering::SeqCst) {
            self.kill.give();
        } else {
            self.give_up.give();
            self.handoff.wake_node();
        }
    }
}
