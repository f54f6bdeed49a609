//! A pool as a run sees it and acts on it: its loads, the flows that may move, the end of a flow.
//!
//! In: a running or simulated pool. Out: facts for a run; assignments forgotten, flows closed.

use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{Forget, NodeId};

use super::plan::{Load, plan};
use super::run::{Cluster, Leaving, RebalanceRun};
use crate::balance::Pool;
use crate::observe::end_reason::EndReason;
use crate::upstream::live_flows::MovableFlow;
use crate::upstream::{Node, State};

/// A running or simulated pool, as a run acts on it.
pub struct Live<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// Forgets what a rule covers, in every plugin that remembers it.
    pub forget: &'a dyn Fn(&Forget),
    /// Called for each flow that was closed.
    pub closed: &'a dyn Fn(&Node, u64),
}

impl Live<'_> {
    /// Does what is due. Until the run is over, new flows go to the node with the fewest.
    pub fn tick(&self, run: &mut RebalanceRun, now: Instant) {
        run.tick(now, self);
        self.pool.level(!run.state.is_over());
    }
}

impl Cluster for Live<'_> {
    fn loads(&self, leaving: &[Leaving]) -> Vec<Load> {
        let of = |node: &Node| {
            let of_node = leaving.iter().filter(|l| l.node == node.id);
            let leaving: Vec<u64> = of_node.map(|l| l.flow).collect();
            node.flows.count_without(&leaving) + node.load.elsewhere()
        };
        loads(self.pool, of)
    }

    fn movable(&self, node: NodeId) -> Vec<MovableFlow> {
        let node = self.pool.node(node);
        node.map_or_else(Vec::new, |n| n.flows.movable(self.pool.id))
    }

    fn has(&self, node: NodeId, flow: u64) -> bool {
        self.pool.node(node).is_some_and(|n| n.flows.has(flow))
    }

    fn forget(&self, what: &Forget) {
        (self.forget)(what);
    }

    fn close(&self, node: NodeId, flow: u64) -> bool {
        let Some(node) = self.pool.node(node) else {
            return false;
        };
        let closed = node.flows.close(flow, EndReason::Rebalanced);
        if closed {
            (self.closed)(node, flow);
        }
        closed
    }
}

/// Returns the loads of a pool, with as many flows of each node as `flows` counts.
pub(super) fn loads(pool: &Pool, flows: impl Fn(&Node) -> usize) -> Vec<Load> {
    let lends_backups = pool.lends_backups();
    let load = |n: &Arc<Node>| Load {
        id: n.id,
        name: n.name.clone(),
        weight: n.weight(),
        takes: n.weight() > 0 && n.state() == State::Up && n.is_backup() == lends_backups,
        flows: flows(n),
        intake: n.intake(),
    };
    pool.nodes.iter().map(load).collect()
}

/// Returns the largest ratio of a node's flows to its share; 1.0 is even.
pub fn evenness(pool: &Pool) -> f64 {
    plan(&loads(pool, |n| n.load.of_site()), 0, 0.0).evenness
}
