//! Ends the flows of a node on the threads that serve them. First it notifies all clients, then it closes the
//! sockets, a few at a time, so that ten thousand ends do not stall other flows. With a rate it spreads the ends of
//! flows whose answer has begun, so that their clients do not reconnect all at once.
//!
//! In: the flows of a node. Out: each flow that is still on the node is ended once. With a rate, flows whose turn
//! has not come when the node leaves Down stay.
//! Source: Diffusion load balancers, "TCP retransmission timeout".

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pushgate_plugins::api::NodeId;
use tokio::sync::watch;

use super::flow_limiter::TokenBucket;
use super::live_flow::LiveFlow;
use super::state::State;
use crate::config::units::Rate;
use crate::observe::metrics;

pub use super::live_flow::reap;

/// Delay that a paced eviction catches up; a longer delay lowers its rate.
const LATE: Duration = Duration::from_millis(20);

/// Queues all `flows` of a node to be ended by their threads at once. Returns how many were queued. A flow that has
/// left the node since it was listed is not ended, but it counts in that number and in the metric.
pub fn at_once(node: NodeId, name: &str, flows: Vec<Arc<LiveFlow>>) -> usize {
    let count = flows.len();
    flows.into_iter().for_each(|f| f.reap(node));
    counter(name).inc_by(count as u64);
    count
}

/// Takes those `flows` that have no answer from the node at once, so that they can be retried. Cuts the others at
/// `rate` while the node is Down.
pub fn at_rate(
    node: NodeId,
    name: &str,
    flows: Vec<Arc<LiveFlow>>,
    rate: Rate,
    state: watch::Receiver<State>,
) {
    let (waiting, paced) = Paced::new(flows, rate, Instant::now());
    at_once(node, name, waiting);
    tokio::spawn(pace(node, paced, state, counter(name)));
}

fn counter(name: &str) -> IntCounter {
    metrics::get().evicted.with_label_values(&[name])
}

/// Flows of a node that are ended at a rate, the oldest first. Without a clock of its own, so that a
/// simulation ends them as the edge does.
pub struct Paced {
    /// Sorted so that the next one to end is at the back.
    flows: Vec<Arc<LiveFlow>>,
    bucket: TokenBucket,
}

/// The next step for [`Paced`] flows.
pub enum Due {
    /// End this flow now.
    Now(Arc<LiveFlow>),
    /// Wait for this time.
    In(Duration),
}

impl Paced {
    /// Splits `flows` into those without an answer, which end at once, and those that end at `rate` from
    /// `now` on.
    pub fn new(flows: Vec<Arc<LiveFlow>>, rate: Rate, now: Instant) -> (Vec<Arc<LiveFlow>>, Self) {
        let (mut begun, waiting): (Vec<_>, Vec<_>) = flows.into_iter().partition(|f| f.has_begun());
        begun.sort_by_key(|f| std::cmp::Reverse(f.id));
        let paced = Paced {
            flows: begun,
            bucket: TokenBucket::new(rate, LATE, now).begun(),
        };
        (waiting, paced)
    }

    /// Returns the next step; `None`: all flows are ended.
    pub fn next(&mut self, now: Instant) -> Option<Due> {
        self.flows.last()?;
        let wait = self.bucket.wait(now);
        if !wait.is_zero() {
            return Some(Due::In(wait));
        }
        self.bucket.take(now);
        self.flows.pop().map(Due::Now)
    }

    /// Returns the flows that are not ended yet.
    pub fn left(self) -> Vec<Arc<LiveFlow>> {
        self.flows
    }
}

/// Ends `paced` flows until all are ended or the node is no longer Down.
pub async fn pace(
    node: NodeId,
    mut paced: Paced,
    mut state: watch::Receiver<State>,
    counter: IntCounter,
) {
    while let Some(due) = paced.next(Instant::now()) {
        match due {
            Due::Now(flow) => {
                counter.inc();
                flow.reap(node);
            }
            Due::In(wait) => tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = state.wait_for(|s| *s != State::Down) => return,
            },
        }
    }
}
