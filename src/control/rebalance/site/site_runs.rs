//! The rebalances of the site in which this edge takes part, and the last one of each pool.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use pushgate_plugins::api::PoolId;

use super::follower::Follower;
use super::site_run::SiteRun;

/// The rebalances of the site.
#[derive(Default)]
pub struct SiteRuns {
    /// This edge's part in each that runs.
    pub(super) followers: Mutex<HashMap<PoolId, Follower>>,
    /// The last state of each pool's last one.
    pub(super) last: Mutex<HashMap<PoolId, SiteRun>>,
    /// Pools whose rebalance this edge leads.
    pub(super) led: Mutex<HashSet<PoolId>>,
    /// Pools whose rebalance this edge leads and shall stop.
    cancelled: Mutex<HashSet<PoolId>>,
}

impl SiteRuns {
    /// Has the rebalance of a pool stop, if this edge leads it.
    pub fn cancel(&self, pool: &str) {
        let id = PoolId::of(pool);
        if self.led.lock().contains(&id) {
            self.cancelled.lock().insert(id);
        }
    }

    /// Takes the order to stop; returns whether there was one.
    pub(super) fn take_cancel(&self, pool: &PoolId) -> bool {
        self.cancelled.lock().remove(pool)
    }

    /// Returns the last state of a pool's last rebalance.
    pub fn last(&self, pool: &str) -> Option<SiteRun> {
        self.last.lock().get(&PoolId::of(pool)).cloned()
    }
}
