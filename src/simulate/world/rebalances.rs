//! The rebalances of a simulation.

use std::collections::HashMap;

use pushgate_plugins::api::PoolId;

use crate::control::rebalance::{RebalanceRun, Seen};

/// The running rebalance of each pool, and what looks for returns have seen of the pool's nodes.
#[derive(Default)]
pub(super) struct Rebalances {
    pub running: HashMap<PoolId, Run>,
    pub seen: HashMap<PoolId, Seen>,
}

/// A running rebalance.
pub(super) struct Run {
    pub rebalance: RebalanceRun,
    /// Index of the rebalance in the report.
    pub told: usize,
    pub began: u64,
}
