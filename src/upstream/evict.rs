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
use super::{LiveFlow, State};
use crate::config::units::Rate;

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
    use crate::upstream::Node;

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
