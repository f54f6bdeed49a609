//! A rebalance of one pool, as log and API show it.

use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::request::{Goal, OrderedBy};
use super::run::{RebalanceRun, RunState};

/// A rebalance of a pool, running or over.
pub struct PoolRebalance {
    /// The pool's name.
    pub pool: String,
    /// Who ordered it.
    pub by: OrderedBy,
    /// Whether the predecessor began it.
    pub(super) carried: bool,
    pub(super) run: Mutex<RebalanceRun>,
    pub(super) began: Instant,
    pub(super) ended: Mutex<Option<Instant>>,
}

impl PoolRebalance {
    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.run.lock().state.is_over()
    }

    /// Ends the rebalance in `state`.
    pub(super) fn end(&self, run: &mut RebalanceRun, state: RunState) {
        run.state = state;
        *self.ended.lock() = Some(Instant::now());
    }

    /// Whether it began later than `date`, in milliseconds since 1970.
    pub(super) fn is_later(&self, date: u64) -> bool {
        let ago = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        crate::control::site::obey::date().saturating_sub(ago) > date
    }

    /// Returns its progress, as the API shows it.
    pub fn progress(&self) -> Value {
        let run = self.run.lock();
        let until = self.ended.lock().unwrap_or_else(Instant::now);
        let mut shown = shown(&self.pool, &run);
        let more = json!({
            "state": run.state.as_str(), "by": self.by.as_str(),
            "seconds": round(until.duration_since(self.began).as_secs_f64()),
        });
        if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        shown
    }
}

/// Returns a run's goal, plan and counts, as the API shows them.
pub(super) fn shown(pool: &str, run: &RebalanceRun) -> Value {
    let request = &run.request;
    let nodes = run.loads.iter().zip(&run.plan.aims).map(|(load, aim)| {
        let progress = run.nodes.get(&load.id);
        json!({
            "name": load.name, "flows": load.flows, "most": aim.most,
            "moves": progress.map_or(0, |s| s.due), "moved": progress.map_or(0, |s| s.moved),
            "forgotten": round(progress.map_or(0.0, |s| s.share)),
        })
    });
    let mut shown = json!({
        "pool": pool, "close": request.close, "rate": request.rate.to_string(), "before": run.before,
        "moved": run.moved(), "left": run.left(), "evenness": round(run.plan.evenness),
        "eta_seconds": round(run.left() as f64 / request.rate.per_second()),
        "nodes": nodes.collect::<Value>(),
    });
    match &request.goal {
        Goal::Even(tolerance) => shown["to_even"] = json!({ "tolerance": tolerance }),
        Goal::Share(from, share) => shown["from"] = json!({ "node": from, "share": share }),
    }
    shown
}

/// Rounds to three decimals; more mean nothing.
fn round(n: f64) -> f64 {
    (n * 1_000.0).round() / 1_000.0
}
