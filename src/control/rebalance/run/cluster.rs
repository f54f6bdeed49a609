//! What a run sees and does: one edge, several, or a made-up pool.

use pushgate_plugins::api::{Forget, NodeId};

use super::node_progress::Leaving;
use crate::control::rebalance::plan::Load;
use crate::upstream::live_flows::MovableFlow;

/// A pool as a run sees it.
pub trait Cluster {
    /// Returns the load of each node without the flows that leave it, both of one moment.
    fn loads(&self, leaving: &[Leaving]) -> Vec<Load>;
    /// Returns the flows of a node that can be moved.
    fn movable(&self, node: NodeId) -> Vec<MovableFlow>;
    /// Whether the flow is live.
    fn has(&self, node: NodeId, flow: u64) -> bool;
    /// Counts flows that were assigned since the run began and are not among the movable ones, because another edge has
    /// them.
    fn arrived(&self) -> usize {
        0
    }
    /// Forgets what the rule covers.
    fn forget(&self, what: &Forget);
    /// Closes a flow whose client is forgotten; false if it cannot be closed now.
    fn close(&self, node: NodeId, flow: u64) -> bool;
}
