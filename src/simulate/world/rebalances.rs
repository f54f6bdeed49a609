//! The rebalances of a simulation.

use std::collections::HashMap;

use pushgate_plugins::api::PoolId;

use crate::control::rebalance::{RebalanceRun, Seen};

/// The running rebalances by leading edge and pool, and what looks for returns have seen of the pool's nodes. With a
/// store the first edge leads for all.
#[derive(Default)]
pub(super) struct Rebalances {
    pub running: HashMap<(usize, PoolId), Run>,
    pub seen: HashMap<(usize, PoolId), Seen>,
}

/// A running rebalance.
pub(super) struct Run {
    pub rebalance: RebalanceRun,
    /// Index of the rebalance in the report.
    pub told: usize,
    pub began: u64,
}
