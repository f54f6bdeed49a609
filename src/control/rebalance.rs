//! Rebalance: moves clients off nodes that have too many, at a rate, until the pool is even.
//!
//! In: the operator's orders, and nodes that return to a pool with `rebalance.auto`. Out:
//! assignments forgotten, flows closed, progress. A pool has one rebalance at a time. Source:
//! Lightstreamer clustering §5, §5.1.

mod automatic;
mod forget;
mod handover;
mod live;
mod plan;
mod pool_rebalance;
mod rebalances;
mod request;
mod run;
mod several;
pub mod site;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pushgate_plugins::api::{Forget, PoolId, unix_seconds};
use serde_json::Value;

use super::Running;
use crate::balance::Pool;
use crate::clock;
use crate::observe::metrics;
use crate::upstream::Node;
pub use automatic::{LOOK_EVERY, Seen, watch};
pub use handover::Saved;
pub use live::{Live, evenness};
pub use pool_rebalance::PoolRebalance;
use pool_rebalance::shown;
pub use rebalances::Rebalances;
pub use request::{Goal, OrderedBy, RebalanceRequest};
pub use run::{RebalanceRun, RunState};
pub use several::Several;

/// Pause between two ticks of a run: at 200 clients a second, four clients a tick.
pub const TICK: Duration = Duration::from_millis(20);

/// Why a rebalance is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebalanceError {
    /// The pool does not exist, or has no such node.
    Unknown(String),
    /// A rebalance of the pool is running.
    Busy,
    /// The order makes no sense; the text says why.
    Senseless(String),
}

impl Running {
    /// Begins a rebalance and returns its progress. A dry run only returns what it would do.
    ///
    /// Errors: an unknown pool or node, a rebalance that runs already, an order that makes no sense.
    pub fn rebalance(
        self: &Arc<Self>,
        pool: &str,
        request: RebalanceRequest,
        by: OrderedBy,
    ) -> Result<Value, RebalanceError> {
        let pools = self.pools();
        let unknown = || RebalanceError::Unknown(format!("no pool `{pool}`"));
        let pool = pools.get(&PoolId::of(pool)).ok_or_else(unknown)?;
        let dry_run = request.dry_run;
        let mut run = prepare(pool, request, clock::date(), Instant::now())?;
        self.with_live(pool, |live| run.look(live));
        if dry_run {
            let mut would = shown(&pool.name, &run);
            would["dry_run"] = true.into();
            return Ok(would);
        }
        let rebalance = Arc::new(PoolRebalance {
            pool: pool.name.clone(),
            by,
            carried: false,
            run: Mutex::new(run),
            began: Instant::now(),
            ended: Mutex::default(),
        });
        {
            let of_site = self.site_runs.last(&pool.name);
            let mut runs = self.rebalances.last.lock();
            if of_site.is_some_and(|run| !run.over) {
                return Err(RebalanceError::Busy);
            }
            if runs.get(&pool.id).is_some_and(|r| !r.is_over()) {
                return Err(RebalanceError::Busy);
            }
            runs.insert(pool.id, rebalance.clone());
        }
        let progress = rebalance.progress();
        log::warn!("pool {}: rebalance begins: {progress}", rebalance.pool);
        tokio::spawn(drive(self.clone(), pool.id, rebalance));
        Ok(progress)
    }

    /// Calls `look` with `pool` as a run acts on it.
    pub(in crate::control) fn with_live<T>(
        &self,
        pool: &Pool,
        look: impl FnOnce(&Live<'_>) -> T,
    ) -> T {
        let forget = |what: &Forget| self.forget_by(what);
        let closed = |node: &Node, _: u64| {
            let labels = [pool.name.as_str(), node.name.as_str()];
            let m = metrics::get();
            m.rebalanced.with_label_values(&labels).inc();
        };
        look(&Live {
            pool,
            forget: &forget,
            closed: &closed,
        })
    }

    /// Forgets what a rule covers, in every plugin that remembers it.
    pub(in crate::control) fn forget_by(&self, what: &Forget) {
        let parts = self.parts();
        for listening in parts.listeners.values() {
            let table = listening.listener.table.load();
            table.plugins.sticky.iter().for_each(|p| p.forget(what));
        }
    }

    /// Returns the last rebalance of a pool.
    pub fn last_rebalance(&self, pool: &str) -> Option<Arc<PoolRebalance>> {
        self.rebalances.last.lock().get(&PoolId::of(pool)).cloned()
    }

    /// Stops a pool's rebalance where it is; false if none runs.
    pub fn cancel_rebalance(&self, pool: &str) -> bool {
        let Some(rebalance) = self.last_rebalance(pool) else {
            return false;
        };
        let mut run = rebalance.run.lock();
        let runs = !run.state.is_over();
        if runs {
            rebalance.end(&mut run, RunState::Cancelled);
        }
        runs
    }

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
        for saved in self.rebalances.inherited.take() {
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
            tokio::spawn(drive(self.clone(), id, rebalance));
        }
    }

    /// Called when the predecessor has ended: its rebalances may end too.
    pub fn is_alone(&self) {
        self.rebalances.inherited.ended();
    }
}

/// Prepares a run of `pool`; `wall` and `now` are the same moment by two clocks.
///
/// Errors: an unknown node, or a `before` in the future.
pub fn prepare(
    pool: &Pool,
    request: RebalanceRequest,
    wall: SystemTime,
    now: Instant,
) -> Result<RebalanceRun, RebalanceError> {
    if let Goal::Share(from, _) = &request.goal
        && !pool.nodes.iter().any(|n| n.name == *from)
    {
        let said = format!("no node `{from}` in pool `{}`", pool.name);
        return Err(RebalanceError::Unknown(said));
    }
    let (before, begins) = moment(request.before, wall, now)?;
    Ok(RebalanceRun::new(pool.id, request, before, begins))
}

/// Returns the second before which assignments are moved, and its first instant. The default is the next
/// second: all live flows have begun before it, and all clients that come back will have begun after it.
fn moment(
    asked: Option<u64>,
    wall: SystemTime,
    now: Instant,
) -> Result<(u64, Instant), RebalanceError> {
    let this = unix_seconds(wall);
    match asked {
        Some(before) if before > this + 1 => {
            let said = "`before` is in the future: an assignment made now would be moved twice";
            Err(RebalanceError::Senseless(said.into()))
        }
        Some(before) if before <= this => Ok((before, now)),
        _ => {
            let next = UNIX_EPOCH + Duration::from_secs(this + 1);
            let until = next.duration_since(wall).unwrap_or_default();
            Ok((this + 1, now + until))
        }
    }
}

/// Ticks a run until it is over.
async fn drive(running: Arc<Running>, id: PoolId, rebalance: Arc<PoolRebalance>) {
    let m = metrics::get();
    let rate = m.rebalance_rate.with_label_values(&[&rebalance.pool]);
    rate.set(rebalance.run.lock().request.rate.per_second());
    loop {
        // A reload may have replaced or removed the pool.
        let pool = running.pools().get(&id).cloned();
        let over = {
            let mut run = rebalance.run.lock();
            match &pool {
                Some(pool) if !run.state.is_over() => {
                    run.holds = rebalance.carried && running.rebalances.inherited.lives();
                    // The date may run slower than time, so the run waits until the date has
                    // reached its moment.
                    let is_due = unix_seconds(clock::date()) >= run.before;
                    running.with_live(pool, |live| match is_due {
                        true => live.tick(&mut run, Instant::now()),
                        false => run.look(live),
                    });
                    if run.state.is_over() {
                        let state = run.state;
                        rebalance.end(&mut run, state);
                    }
                }
                Some(_) => {}
                None => rebalance.end(&mut run, RunState::Cancelled),
            }
            run.state.is_over()
        };
        if over {
            rate.set(0.0);
            pool.iter().for_each(|p| p.level(false));
            log::warn!(
                "pool {}: rebalance ended: {}",
                rebalance.pool,
                rebalance.progress()
            );
            return;
        }
        tokio::time::sleep(TICK).await;
    }
}
