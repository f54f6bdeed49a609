//! Hands a running rebalance over to the successor of a binary upgrade.
//!
//! In: runs that are not over. Out: the same runs in the successor, with the same moment and rules. The
//! successor sees only its own flows, so it also closes those of clients that come over from the predecessor.
//! Its run ends no sooner than the predecessor. Source: FAULTS D69; Lightstreamer clustering §5.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pushgate_plugins::api::{NodeId, PoolId};
use serde::{Deserialize, Serialize};

use super::request::{Goal, OrderedBy, RebalanceRequest};
use super::run::{NodeProgress, RebalanceRun, RunState};
use super::{PoolRebalance, Rebalances};
use crate::balance::Pool;
use crate::config::units::Rate;
use crate::control::Running;

/// A run in a form that can be sent to another process.
#[derive(Deserialize, Serialize)]
pub struct Saved {
    pool: String,
    auto: bool,
    goal: Goal,
    rate: String,
    close: bool,
    before: u64,
    ran: Duration,
    /// For each node: identity, flows moved, flows due, flows at the beginning, and the share forgotten.
    sides: Vec<(u64, usize, usize, usize, f64)>,
}

impl Saved {
    /// Returns the run to send, if it is not over.
    fn of(rebalance: &PoolRebalance) -> Option<Saved> {
        let run = rebalance.run.lock();
        let progress = |(id, s): (&NodeId, &NodeProgress)| (id.0, s.moved, s.due, s.flows, s.share);
        (!run.state.is_over()).then(|| Saved {
            pool: rebalance.pool.clone(),
            auto: rebalance.by == OrderedBy::Auto,
            goal: run.request.goal.clone(),
            rate: run.request.rate.to_string(),
            close: run.request.close,
            before: run.before,
            ran: rebalance.began.elapsed(),
            sides: run.nodes.iter().map(progress).collect(),
        })
    }

    /// Restores the run in this process; `None`: its rate cannot be read.
    fn restore(self, pool: &Pool) -> Option<PoolRebalance> {
        let request = RebalanceRequest {
            goal: self.goal,
            rate: self.rate.parse::<Rate>().ok()?,
            close: self.close,
            dry_run: false,
            before: Some(self.before),
        };
        let progress = |(id, moved, due, flows, share)| {
            (NodeId(id), NodeProgress::carried(moved, share, due, flows))
        };
        let now = Instant::now();
        let mut run = RebalanceRun::new(pool.id, request, self.before, now);
        run.carry(self.sides.into_iter().map(progress).collect());
        Some(PoolRebalance {
            pool: self.pool,
            by: if self.auto {
                OrderedBy::Auto
            } else {
                OrderedBy::Operator
            },
            carried: true,
            run: Mutex::new(run),
            began: now.checked_sub(self.ran).unwrap_or(now),
            ended: Mutex::default(),
        })
    }
}

/// Runs from the predecessor.
#[derive(Default)]
pub(super) struct Inherited {
    runs: Mutex<Vec<Saved>>,
    /// Whether the predecessor still runs, so that it may have flows.
    lives: AtomicBool,
}

impl Inherited {
    /// Holds the runs that the predecessor saved.
    pub(super) fn new(runs: Vec<Saved>) -> Self {
        Inherited {
            runs: Mutex::new(runs),
            lives: AtomicBool::new(true),
        }
    }

    /// Whether the predecessor may have flows.
    pub(super) fn lives(&self) -> bool {
        self.lives.load(Ordering::Relaxed)
    }
}

impl Rebalances {
    /// Returns the runs that are not over, for a successor.
    pub fn save(&self) -> Vec<Saved> {
        let runs = self.last.lock();
        runs.values()
            .filter_map(|rebalance| Saved::of(rebalance))
            .collect()
    }
}

impl Running {
    /// Ends the rebalances here, because the successor continues them.
    pub fn leave_rebalances(&self) {
        let runs: Vec<_> = self.rebalances.last.lock().values().cloned().collect();
        for rebalance in runs {
            let mut run = rebalance.run.lock();
            if !run.state.is_over() {
                rebalance.end(&mut run, RunState::Cancelled);
            }
        }
    }

    /// Continues the predecessor's rebalances.
    pub fn resume_rebalances(self: &Arc<Self>) {
        for saved in std::mem::take(&mut *self.rebalances.inherited.runs.lock()) {
            let pools = self.pools();
            let pool = pools.get(&PoolId::of(&saved.pool));
            let rebalance = pool.and_then(|pool| Some((pool.id, saved.restore(pool)?)));
            let Some((id, rebalance)) = rebalance else {
                continue;
            };
            let rebalance = Arc::new(rebalance);
            log::warn!(
                "pool {}: rebalance continues after the upgrade: {}",
                rebalance.pool,
                rebalance.progress()
            );
            self.rebalances.last.lock().insert(id, rebalance.clone());
            tokio::spawn(super::drive(self.clone(), id, rebalance));
        }
    }

    /// Called when the predecessor has ended: its rebalances may end too.
    pub fn is_alone(&self) {
        let lives = &self.rebalances.inherited.lives;
        lives.store(false, Ordering::Relaxed);
    }
}
