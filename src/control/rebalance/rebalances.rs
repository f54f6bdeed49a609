//! The last rebalance of each pool.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pushgate_plugins::api::PoolId;

use super::handover::{Inherited, Saved};
use super::pool_rebalance::PoolRebalance;

/// The last rebalance of each pool.
#[derive(Default)]
pub struct Rebalances {
    pub(super) last: Mutex<HashMap<PoolId, Arc<PoolRebalance>>>,
    pub(super) inherited: Inherited,
}

impl Rebalances {
    /// Starts with no rebalances except those the predecessor left.
    pub fn inherit(saved: Vec<Saved>) -> Self {
        Rebalances {
            last: Mutex::default(),
            inherited: Inherited::new(saved),
        }
    }

    /// Returns the runs that are not over, for a successor.
    pub fn save(&self) -> Vec<Saved> {
        let runs = self.last.lock();
        runs.values()
            .filter_map(|rebalance| Saved::of(rebalance))
            .collect()
    }
}
