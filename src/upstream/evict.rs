//! Ends the flows of a node on the threads that serve them: all clients first, a few at a time, so that ten
//! thousand ends do not stall other flows. Or at a rate, if a storm of reconnects would be worse.
//!
//! In: flows. Out: each flow is ended once.
//! Source: Diffusion load balancers, "TCP retransmission timeout".

use std::cell::RefCell;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pushgate_plugins::api::NodeId;
use tokio::sync::{mpsc, watch};

use super::flow_limiter::TokenBucket;
use super::{LiveFlow, Node, State};
use crate::config::units::Rate;
use crate::observe::metrics;
use crate::stream::graceful_close::CloseHold;

/// The queue of flows to be ended by the thread that serves them.
pub type Reaper = mpsc::Sender<(Arc<LiveFlow>, NodeId)>;

thread_local! {
    static MINE: RefCell<Option<Reaper>> = const { RefCell::new(None) };
}

/// Clients notified before other tasks of the thread run: some 20 µs each.
const TOLD: usize = 32;
/// Flows closed and counted before other tasks of the thread run: some 50 µs each.
const SLICE: usize = 16;

/// Returns this thread's queue; `None` if it has none, as in unit tests.
pub fn reaper() -> Option<Reaper> {
    MINE.with_borrow(Clone::clone)
}

/// How late the next flow of a paced eviction may get its turn.
const LATE: Duration = Duration::from_millis(20);

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

impl Node {
    /// Ends its flows at `rate`, else at its `evict_rate`, else at once.
    pub(super) fn close_all(&self, rate: Option<Rate>) {
        match rate.or(*self.evict_rate.lock()) {
            None => drop(self.evict()),
            Some(rate) => self.evict_at(rate),
        }
    }

    /// Ends flows without an answer, and idle upstreams, at once; other live flows at `rate`.
    fn evict_at(&self, rate: Rate) {
        let all = self.flows.lock().all();
        let (at_once, paced) = Paced::new(all, rate, Instant::now());
        let counter = metrics::get().evicted.with_label_values(&[&self.name]);
        counter.inc_by(at_once.len() as u64);
        at_once.into_iter().for_each(|f| f.reap(self.id));
        self.close_idle();
        tokio::spawn(pace(self.id, paced, self.watch(), counter));
    }

    pub(super) fn close_idle(&self) {
        // The entries stay: a client connection registers once, and may use the node again later.
        for idle in self.idle.lock().values() {
            if let Some(idle) = idle.upgrade() {
                idle.close(self);
            }
        }
    }

    /// Ends all live flows and idle upstreams of the node; returns the number of flows.
    ///
    /// New picks have stopped before, because the balancer reads the state first. [`Node::enter`] catches a
    /// flow that was picked at this moment.
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
            flow.kill.give();
        }
    }
}

/// Flows of a node that are ended at a rate, the oldest first. Without a clock of its own, so that a
/// simulation ends them as the edge does.
pub struct Paced {
    /// The next one is last.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, OnDown};
    use crate::upstream::node::Order;

    /// Seen in benches/failover.py: 3,000 clients of a killed node moved, and the eviction of the first node
    /// cut two of them again on their new node. Fails if an eviction ends a flow that has moved on.
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

    /// Flows without an answer end at once and count like the others. Fails if only the flows that end at the
    /// rate are counted.
    #[tokio::test]
    async fn flows_evicted_at_a_rate_are_counted() {
        let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
        let node = Node::new("evicted_at_a_rate", &conf, OnDown::Keep, None);
        let flows: Vec<_> = (0..5).map(|_| LiveFlow::new()).collect();
        let _in: Vec<_> = flows.iter().map(|flow| node.enter(flow, None)).collect();
        flows[0].begin();
        node.obey(Order::Down, None);
        node.close_all(Some(Rate::a_second(50)));
        while flows.iter().any(|f| !f.is_evicted()) {
            tokio::task::yield_now().await;
        }
        let counter = metrics::get().evicted.with_label_values(&[&node.name]);
        assert_eq!(counter.get(), 5);
    }

    /// Of 100 flows, more than one batch, the last client is notified before the first flow closes, and all
    /// close. Fails if a flow does not wait for its turn, or if the reaper stops while flows wait.
    #[tokio::test]
    async fn all_clients_are_notified_before_a_flow_closes() {
        use crate::stream::graceful_close::wait_for_turn;
        let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
        let node = Node::new("n", &conf, OnDown::Evict, None);
        tokio::spawn(reap());
        tokio::task::yield_now().await;
        let (done, mut deeds) = mpsc::channel(200);
        let flows: Vec<_> = (0..100).map(|_| LiveFlow::new()).collect();
        for flow in &flows {
            let (flow, done, entered) = (flow.clone(), done.clone(), node.enter(flow, None));
            flow.begin();
            tokio::spawn(async move {
                flow.kill.wait().await;
                let _ = done.send("told").await;
                wait_for_turn().await;
                drop(entered);
                let _ = done.send("closed").await;
            });
        }
        assert_eq!(node.evict(), 100);
        let mut order = Vec::new();
        while order.len() < 200 {
            order.push(deeds.recv().await.expect("an event"));
        }
        assert!(order[..100].iter().all(|deed| *deed == "told"), "{order:?}");
        assert_eq!(node.live(), 0);
    }
}
