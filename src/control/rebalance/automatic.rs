//! Rebalances a pool after a node's return, if its `rebalance.auto` is on.
//!
//! In: states of nodes, checked twice a second. Out: one order, `delay` after the last return. Source:
//! Lightstreamer clustering §5 ("the failed instance is restarted and added back").

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{NodeId, PoolId};

use super::{OrderedBy, RebalanceError, RebalanceRequest};
use crate::balance::Pool;
use crate::control::Running;
use crate::upstream::State;

/// Pause between two checks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

type Watch = tokio::sync::watch::Receiver<State>;

/// Nodes of a pool at the last check, and when a rebalance is due.
#[derive(Default)]
pub struct Seen {
    nodes: HashMap<NodeId, Watch>,
    due: Option<Instant>,
    /// Nodes that have returned since the last rebalance was due, and when that was noticed last.
    returned: HashSet<NodeId>,
    noticed: Option<Instant>,
}

impl Seen {
    /// Checks the nodes of `pool`; true if a rebalance is due by its `rebalance` block.
    pub fn look_at(&mut self, now: Instant, pool: &Pool) -> bool {
        let nodes = pool.nodes.iter().map(|n| (n.id, n.watch())).collect();
        self.look(now, nodes, pool.rebalance.delay.0) && pool.rebalance.auto
    }

    /// Checks a pool's nodes, given with a watch of their state; true if a rebalance is due.
    ///
    /// A node has returned if it is Up and is new, or had any other state since the last check, however
    /// short. Each return restarts the delay. The nodes of the first check have not returned.
    fn look(&mut self, now: Instant, nodes: HashMap<NodeId, Watch>, delay: Duration) -> bool {
        let is_first = self.nodes.is_empty();
        let moved = |id: &NodeId, new: &Watch| match self.nodes.get(id) {
            Some(old) => !old.same_channel(new) || old.has_changed().unwrap_or(true),
            None => true,
        };
        let returned = nodes
            .iter()
            .filter(|(id, node)| *node.borrow() == State::Up && moved(id, node));
        let returned: Vec<NodeId> = returned.map(|(id, _)| *id).collect();
        self.nodes = nodes;
        for node in self.nodes.values_mut() {
            node.mark_unchanged();
        }
        if !returned.is_empty() && !is_first {
            if self.due.is_none() {
                self.returned.clear();
            }
            self.due = now.checked_add(delay);
            self.noticed = Some(now);
            self.returned.extend(returned);
        }
        let due = self.due.is_some_and(|at| at <= now);
        if due {
            self.due = None;
        }
        due
    }

    /// Returns the nodes whose return made the rebalance due, and how long ago the last return was noticed.
    pub fn returned(&self, now: Instant) -> (&HashSet<NodeId>, Duration) {
        let noticed = self.noticed.map(|at| now.saturating_duration_since(at));
        (&self.returned, noticed.unwrap_or(Duration::ZERO))
    }

    /// Checks again later, because a rebalance is running.
    pub fn put_off(&mut self, now: Instant) {
        self.due = Some(now + LOOK_EVERY);
    }
}

/// Watches all pools until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut seen: HashMap<PoolId, Seen> = HashMap::new();
    loop {
        let pools = running.pools();
        seen.retain(|id, _| pools.contains_key(id));
        for (id, pool) in pools.iter() {
            let now = Instant::now();
            let of_pool = seen.entry(*id).or_default();
            if !of_pool.look_at(now, pool) {
                continue;
            }
            let (nodes, ago) = of_pool.returned(now);
            if running.is_evened(&pool.name, nodes, ago) {
                continue;
            }
            let request = RebalanceRequest::automatic(&pool.rebalance);
            match running
                .rebalance_site(&pool.name, request, OrderedBy::Auto)
                .await
            {
                Err(RebalanceError::Busy) => of_pool.put_off(now),
                Err(refusal) => log::error!(
                    "pool {}: automatic rebalance refused: {refusal:?}",
                    pool.name
                ),
                Ok(_) => {}
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_is_due_after_its_delay_and_the_last_one_counts() {
        use State::{Down, Draining, Up};
        let mut seen = Seen::default();
        let start = Instant::now();
        let [a, b] = [Up, Down].map(|state| tokio::sync::watch::channel(state).0);
        let mut look = |second: u64, with_b: bool| {
            let b = with_b.then_some((NodeId(2), b.subscribe()));
            let nodes = [(NodeId(1), a.subscribe())].into_iter().chain(b);
            let at = start + Duration::from_secs(second);
            seen.look(at, nodes.collect(), Duration::from_secs(30))
        };
        assert!(!look(0, true), "the start is no return");
        assert!(!look(40, true));
        b.send_replace(Up);
        assert!(!look(50, true), "it has returned");
        assert!(!look(79, true) && look(80, true));
        assert!(!look(120, true), "once");
        // The node flaps between two checks: each return restarts the delay.
        b.send_replace(Down);
        b.send_replace(Up);
        assert!(!look(140, true));
        b.send_replace(Draining);
        assert!(!look(150, true));
        b.send_replace(Up);
        assert!(!look(160, true) && !look(175, true) && look(190, true));
        // A node that a reload adds counts as returned.
        assert!(!look(200, false) && !look(210, true) && look(240, true));
    }
}
