//! One live flow as its node sees it, and how it ends when the node goes Down.
//!
//! Source: Diffusion load balancers, "TCP retransmission timeout" ("shutdown connections to Diffusion servers
//! it knows are unhealthy").

use std::cell::RefCell;
use std::iter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pushgate_plugins::api::NodeId;
use tokio::sync::mpsc;

use super::signal::Signal;
use super::stage::Stage;
use crate::observe::end_reason::EndReason;
use crate::stream::graceful_close::CloseHold;
use crate::stream::meter::Meter;

/// What an operator is told of a flow, beside its measures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The protocol as the log names it.
    pub protocol: &'static str,
    /// Method, host and path; empty at layer 4. The path has its query only if the log has.
    pub request: [String; 3],
}

/// The owner of a flow, which knows its client.
pub trait FlowOwner: Send + Sync {
    /// Returns the client's address.
    fn client(&self) -> SocketAddr;

    /// Returns the name of the listener.
    fn listener(&self) -> &str;

    /// Describes the flow.
    fn describe(&self) -> Description;
}

/// The owner of flows that have none, as in simulations and unit tests.
struct Nobody;

impl FlowOwner for Nobody {
    fn client(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    fn listener(&self) -> &str {
        ""
    }

    fn describe(&self) -> Description {
        Description::default()
    }
}

/// A flow between a client and, once assigned, a node.
pub struct LiveFlow {
    /// Number of the flow, unique in this process.
    pub id: u64,
    /// Cuts the client's side: the client connection at HTTP/1 and layer 4, the stream at HTTP/2.
    pub kill: Signal,
    /// Ends the wait for its node: the connect, or the wait for the answer to begin.
    pub give_up: Signal,
    /// The queue of the thread that serves the flow, which ends the flow there.
    reaper: Option<Reaper>,
    since: Instant,
    /// Its bytes and waits.
    pub meter: Arc<Meter>,
    owner: Weak<dyn FlowOwner>,
    /// The node whose list the flow is in; 0: no node.
    at: AtomicU64,
    stage: Stage,
    bad_answer: AtomicBool,
    /// Why it was closed although its node is healthy: 0 not closed, 1 rebalanced, 2 expired.
    closed: AtomicU8,
}

impl Default for LiveFlow {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        LiveFlow {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            kill: Signal::default(),
            give_up: Signal::default(),
            reaper: reaper(),
            since: Instant::now(),
            meter: Arc::default(),
            owner: Weak::<Nobody>::new(),
            at: AtomicU64::new(0),
            stage: Stage::default(),
            bad_answer: AtomicBool::new(false),
            closed: AtomicU8::new(0),
        }
    }
}

impl LiveFlow {
    /// Makes a new flow.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes a new flow of `owner`.
    pub fn of(owner: Weak<dyn FlowOwner>) -> Arc<Self> {
        Arc::new(LiveFlow {
            owner,
            ..LiveFlow::default()
        })
    }

    /// Returns its owner; `None` if the flow is over.
    pub fn owner(&self) -> Option<Arc<dyn FlowOwner>> {
        self.owner.upgrade()
    }

    /// Notes that the node has begun to answer: from here on the flow cannot be retried.
    ///
    /// If the node was evicted at the same moment, this call cuts the client, so that neither order of the
    /// two events misses the flow.
    pub fn begin(&self) {
        if self.stage.begin() {
            self.kill.give();
        }
    }

    /// Returns the time since the flow began at its client.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether the node has begun to answer.
    pub fn has_begun(&self) -> bool {
        self.stage.has_begun()
    }

    /// Whether its node was evicted during the flow.
    pub fn is_evicted(&self) -> bool {
        self.stage.is_evicted()
    }

    /// Closes the flow at its client if its answer has begun; the client then comes back. A flow without an
    /// answer is left to end by itself. `why`: `Rebalanced` or `Expired`. Returns whether this call closed
    /// it.
    pub fn close(&self, why: EndReason) -> bool {
        let word = if why == EndReason::Expired { 2 } else { 1 };
        let first = || {
            let closed = &self.closed;
            closed.compare_exchange(0, word, Ordering::SeqCst, Ordering::SeqCst)
        };
        let closes = self.has_begun() && !self.is_evicted() && first().is_ok();
        if closes {
            self.kill.give();
        }
        closes
    }

    /// Returns why [`LiveFlow::close`] closed it; `None` if it did not.
    pub fn closed(&self) -> Option<EndReason> {
        match self.closed.load(Ordering::SeqCst) {
            1 => Some(EndReason::Rebalanced),
            2 => Some(EndReason::Expired),
            _ => None,
        }
    }

    /// Notes that the node's answer was illegal HTTP.
    pub fn answered_badly(&self) {
        self.bad_answer.store(true, Ordering::Relaxed);
    }

    /// Whether the node's answer was illegal HTTP.
    pub fn is_bad_answer(&self) -> bool {
        self.bad_answer.load(Ordering::Relaxed)
    }

    /// Forgets an eviction or a bad answer before a retry.
    pub fn retry(&self) {
        // Otherwise the old signal would end the next connect, to a healthy node.
        self.give_up.take_back();
        self.stage.reset();
        self.bad_answer.store(false, Ordering::Relaxed);
    }

    /// Notes the node whose list the flow is in.
    pub fn entered(&self, node: NodeId) {
        self.at.store(node.0, Ordering::SeqCst);
    }

    /// Notes that the flow has left `node`, unless another node has it already.
    pub fn left(&self, node: NodeId) {
        let at = &self.at;
        let _ = at.compare_exchange(node.0, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Queues [`LiveFlow::evict_from`] for the thread that serves the flow.
    pub fn reap(self: Arc<Self>, node: NodeId) {
        // The flow is ended here if the queue is full, or if its thread is gone.
        let left = self
            .reaper
            .as_ref()
            .map(|r| r.try_send((self.clone(), node)));
        if !matches!(left, Some(Ok(()))) {
            self.evict_from(node);
        }
    }

    /// Ends the flow if it is still on `node`. A flow that failed there may have been retried elsewhere since
    /// it was listed, and its new node is healthy.
    pub fn evict_from(&self, node: NodeId) {
        if self.at.load(Ordering::SeqCst) == node.0 {
            self.evict();
        }
    }

    /// Evicts the flow from its node. A flow whose answer has begun is cut at the client. A flow without an
    /// answer fails only at the node's side, so that it can be retried.
    pub fn evict(&self) {
        if self.stage.evict() {
            self.kill.give();
        } else {
            self.give_up.give();
        }
    }
}

/// The queue of flows to be ended by the thread that serves them.
type Reaper = mpsc::Sender<(Arc<LiveFlow>, NodeId)>;

thread_local! {
    static MINE: RefCell<Option<Reaper>> = const { RefCell::new(None) };
}

/// Clients notified before other tasks of the thread run: some 20 µs each.
const TOLD: usize = 32;
/// Flows closed and counted before other tasks of the thread run: some 50 µs each.
const SLICE: usize = 16;

/// Returns this thread's queue; `None` if it has none, as in unit tests.
fn reaper() -> Option<Reaper> {
    MINE.with_borrow(Clone::clone)
}

/// Most flows queued for one thread. Further flows are ended at once: the same for their clients, while other
/// flows of the thread may wait some milliseconds longer.
const MOST: usize = 65_536;

/// Ends the flows queued for this thread, for as long as it lives. It first notifies their clients; then each
/// flow gets its turn to close.
pub async fn reap() {
    let (leave, mut left) = mpsc::channel::<(Arc<LiveFlow>, NodeId)>(MOST);
    MINE.set(Some(leave));
    while let Some(first) = left.recv().await {
        let hold = CloseHold::begin();
        let mut next = Some(first);
        loop {
            let told = next
                .into_iter()
                .chain(iter::from_fn(|| left.try_recv().ok()));
            let told = told
                .take(TOLD)
                .map(|(flow, node)| flow.evict_from(node))
                .count();
            if told == 0 && !hold.release(SLICE) {
                break;
            }
            tokio::task::yield_now().await;
            next = left.try_recv().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn given(signal: &Signal) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(signal.wait()).poll(&mut cx).is_ready()
    }

    /// An eviction cuts the client if the answer has begun, before or after it. Otherwise it ends only the
    /// wait for the node, and a retry forgets it. Fails if either order of the two events misses the flow.
    #[test]
    fn an_eviction_cuts_begun_answers() {
        for (begins_first, ends) in [(true, (true, false)), (false, (true, true))] {
            let flow = LiveFlow::new();
            match begins_first {
                true => flow.begin(),
                false => flow.evict(),
            }
            assert!(!given(&flow.kill), "neither alone cuts the client");
            match begins_first {
                true => flow.evict(),
                false => flow.begin(),
            }
            assert_eq!((given(&flow.kill), given(&flow.give_up)), ends);
        }
        let flow = LiveFlow::new();
        flow.evict();
        flow.answered_badly();
        flow.retry();
        assert!(!given(&flow.give_up) && !flow.is_evicted() && !flow.is_bad_answer());
        flow.begin();
        assert!(!given(&flow.kill), "its new node is healthy");
    }

    /// Fails if a flow is closed before its answer has begun, twice, or together with an eviction: its client
    /// would count as moved.
    #[test]
    fn a_flow_is_closed_once() {
        let flow = LiveFlow::new();
        assert!(!flow.close(EndReason::Rebalanced) && flow.closed().is_none());
        flow.begin();
        assert!(flow.close(EndReason::Expired) && given(&flow.kill));
        assert!(!flow.close(EndReason::Rebalanced));
        assert_eq!(flow.closed(), Some(EndReason::Expired));
        let evicted = LiveFlow::new();
        evicted.begin();
        evicted.evict();
        assert!(!evicted.close(EndReason::Rebalanced));
    }
}
