//! Hands a running rebalance over to the successor of a binary upgrade.
//!
//! In: runs that are not over. Out: the same runs in the successor, with the same moment and rules. The
//! successor sees only its own flows, so it also closes those of clients that come over from the predecessor.
//! Its run ends no sooner than the predecessor. Source: FAULTS D69; Lightstreamer clustering §5.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pushgate_plugins::api::NodeId;
use serde::{Deserialize, Serialize};

use super::pool_rebalance::PoolRebalance;
use super::request::{Goal, OrderedBy, RebalanceRequest};
use super::run::{NodeProgress, RebalanceRun};
use crate::balance::Pool;
use crate::config::units::Rate;

/// A run in a form that can be sent to another process.
#[derive(Deserialize, Serialize)]
pub struct Saved {
    /// Name of the pool.
    pub(super) pool: String,
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
    pub(super) fn of(rebalance: &PoolRebalance) -> Option<Saved> {
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
    pub(super) fn restore(self, pool: &Pool) -> Option<PoolRebalance> {
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

    /// Takes the saved rebalances out.
    pub(super) fn take(&self) -> Vec<Saved> {
        std::mem::take(&mut *self.runs.lock())
    }

    /// Called when the predecessor has ended: its rebalances may end too.
    pub(super) fn ended(&self) {
        self.lives.store(false, Ordering::Relaxed);
    }

    /// Whether the predecessor may have flows.
    pub(super) fn lives(&self) -> bool {
        self.lives.load(Ordering::Relaxed)
    }
}
