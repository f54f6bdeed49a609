//! Ends the flows of a node: on the threads that serve them, a few at a time, so that ten thousand
//! ends do not stall the flows of others; or at a pace, when a storm of reconnects would be worse.
//!
//! In: flows. Out: each is told, once. Source: Diffusion load balancers, "TCP retransmission timeout".

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use prometheus::IntCounter;
use pushgate_plugins::api::NodeId;
use tokio::sync::{mpsc, watch};

use super::gate::Bucket;
use super::{LiveFlow, Node, State};
use crate::config::units::Rate;
use crate::observe::metrics;

/// Where flows to be ended are left for the thread that serves them.
pub type Reaper = mpsc::Sender<(Arc<LiveFlow>, NodeId)>;

thread_local! {
    static MINE: RefCell<Option<Reaper>> = const { RefCell::new(None) };
}

/// Flows ended before others of the thread have their turn: some 20 µs each.
const SLICE: usize = 16;

/// This thread's reaper; `None` where none runs, as in unit tests.
pub fn reaper() -> Option<Reaper> {
    MINE.with_borrow(Clone::clone)
}

/// Flows that may be left for one thread at a time. Beyond, they are ended at once: all the same to
/// their clients, while others of the thread may wait some milliseconds longer.
const MOST: usize = 65_536;

/// Ends flows left for this thread, as long as it lives.
pub async fn reap() {
    let (leave, mut left) = mpsc::channel::<(Arc<LiveFlow>, NodeId)>(MOST);
    MINE.set(Some(leave));
    let mut ended = 0;
    while let Some((flow, node)) = left.recv().await {
        flow.evict_from(node);
        ended += 1;
        if ended % SLICE == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Node {
    /// Ends its flows at `rate`, else at its `evict_rate`, else at once.
    pub(super) fn close_all(&self, rate: Option<Rate>) {
        match rate.or(*self.evict_rate.lock()) {
            None => drop(self.evict()),
            Some(rate) => self.evict_at(rate),
        }
    }

    /// Ends what has not begun, and idle upstreams, at once, and the live flows at `rate`.
    fn evict_at(&self, rate: Rate) {
        let all = self.flows.lock().all();
        let (begun, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|f| f.has_begun());
        waiting.into_iter().for_each(|f| f.reap(self.id));
        self.close_idle();
        let m = metrics::get();
        let counter = m.evicted.with_label_values(&[&self.name]);
        tokio::spawn(pace(self.id, begun, rate, self.watch(), counter));
    }

    pub(super) fn close_idle(&self) {
        for (_, idle) in self.idle.lock().drain() {
            if let Some(affinity) = idle.upgrade() {
                affinity.close(self.id);
            }
        }
    }

    /// Ends all live flows and idle upstreams of the node; returns how many flows.
    ///
    /// New picks have stopped before (the state is read first by the balancer); a flow that was
    /// picked in this very moment is caught in [`Node::enter`].
    pub fn evict(&self) -> usize {
        let flows = self.flows.lock().all();
        let count = flows.len();
        flows.into_iter().for_each(|f| f.reap(self.id));
        self.close_idle();
        metrics::get()
            .evicted
            .with_label_values(&[&self.name])
            .inc_by(count as u64);
        count
    }

    /// Ends all live flows of the node because the proxy stops.
    pub fn cut(&self) {
        for flow in self.flows.lock().all() {
            flow.kill.notify_one();
        }
    }
}

/// Ends `flows` at `rate`, the oldest first, until all are or the node is no longer Down.
pub async fn pace(
    node: NodeId,
    mut flows: Vec<Arc<LiveFlow>>,
    rate: Rate,
    mut state: watch::Receiver<State>,
    counter: IntCounter,
) {
    flows.sort_by_key(|f| f.id);
    let mut bucket = Bucket::new(rate, Instant::now()).begun();
    for flow in flows {
        loop {
            let wait = bucket.wait(Instant::now());
            if wait.is_zero() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = state.wait_for(|s| *s != State::Down) => return,
            }
        }
        bucket.take(Instant::now());
        counter.inc();
        flow.reap(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, OnDown};

    /// Seen in benches/failover.py: of 3,000 clients of a killed node two were cut off again, on the node
    /// they had moved to, by the eviction of the first.
    #[test]
    fn a_flow_that_moved_on_is_left_alone() {
        let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
        let [dead, well] = ["dead", "well"].map(|n| Node::new(n, &conf, OnDown::Evict, None));
        let flow = LiveFlow::new();
        drop(dead.enter(&flow, None));
        flow.clone().reap(dead.id);
        let _entered = well.enter(&flow, None);
        flow.begin();
        flow.clone().reap(dead.id);
        assert!(!flow.is_evicted());
        flow.clone().reap(well.id);
        assert!(flow.is_evicted());
    }
}
