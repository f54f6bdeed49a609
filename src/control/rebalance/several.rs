//! One pool at several edges, as a run sees it: their flows together.
//!
//! In: the pool at each edge. Out: loads of all of them; closes go to the edge that has the flow. For simulations,
//! where all edges are in one process. Source: issue 16 §5, §9.

use std::time::Instant;

use pushgate_plugins::api::{Forget, NodeId};

use super::live::{Live, loads};
use super::plan::Load;
use super::run::{Cluster, Leaving, RebalanceRun};
use crate::upstream::live_flows::MovableFlow;

/// The same pool at each edge; at least one.
pub struct Several<'a>(pub Vec<Live<'a>>);

impl Several<'_> {
    /// Does what is due. Until the run is over, new flows go to the node with the fewest.
    pub fn tick(&self, run: &mut RebalanceRun, now: Instant) {
        run.tick(now, self);
        for live in &self.0 {
            live.pool.level(!run.state.is_over());
        }
    }
}

impl Cluster for Several<'_> {
    fn loads(&self, leaving: &[Leaving]) -> Vec<Load> {
        loads(self.0[0].pool, |node| {
            let of_node = leaving.iter().filter(|l| l.node == node.id);
            let leaving: Vec<u64> = of_node.map(|l| l.flow).collect();
            let nodes = self.0.iter().filter_map(|live| live.pool.node(node.id));
            nodes.map(|n| n.flows.count_without(&leaving)).sum()
        })
    }

    fn movable(&self, node: NodeId) -> Vec<MovableFlow> {
        self.0.iter().flat_map(|live| live.movable(node)).collect()
    }

    fn has(&self, node: NodeId, flow: u64) -> bool {
        self.0.iter().any(|live| live.has(node, flow))
    }

    fn forget(&self, what: &Forget) {
        // Reaches every edge.
        self.0[0].forget(what);
    }

    fn close(&self, node: NodeId, flow: u64) -> bool {
        self.0.iter().any(|live| live.close(node, flow))
    }
}
