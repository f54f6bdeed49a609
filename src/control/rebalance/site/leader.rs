//! Leads a rebalance of the site: plans with the parts of all edges, and publishes what every edge must do.
//!
//! In: parts of the store, orders to stop. Out: states of the run, rules for edges that start later. Without the store
//! the run pauses: what was not published no edge knows, so nothing more is planned. Source: issue 16 §5, §6.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{PoolId, unix_seconds};

use super::part::Part;
use super::planner::Planner;
use super::site_run::{OfNode, SiteRun};
use crate::balance::Pool;
use crate::clock;
use crate::control::Running;
use crate::control::rebalance::pool_rebalance::shown;
use crate::control::rebalance::{RunState, TICK};
use crate::control::site::obey::date;
use crate::control::site::order::{Subject, What};
use crate::control::site::store::Store;
use crate::observe::metrics;
use crate::site::StoreError;

/// Pause between two looks at the parts of all edges.
const PART_EVERY: Duration = Duration::from_millis(200);
/// Pause between two words of a leader that has nothing new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a leader waits for a part of every edge before it closes flows.
const WAIT_FOR_PARTS: Duration = Duration::from_secs(5);

/// A run that this edge leads.
pub(super) struct Leader {
    pub(super) state: SiteRun,
    planner: Planner,
    began: Instant,
    /// When this edge began to lead.
    led: Instant,
    /// What was published last, and when the whole of it was.
    told: BTreeMap<String, OfNode>,
    told_whole: Option<Instant>,
    /// Shares that the hash of orders has, for edges that start later.
    kept: SiteRun,
}

impl Leader {
    pub(super) fn new(state: SiteRun, planner: Planner) -> Self {
        let ran = Duration::from_millis(date().saturating_sub(state.began));
        let now = Instant::now();
        Leader {
            kept: SiteRun::default(),
            told: BTreeMap::new(),
            told_whole: None,
            began: now.checked_sub(ran).unwrap_or(now),
            led: now,
            state,
            planner,
        }
    }

    /// Writes down where the run is. Returns whether there is something that the edges must know.
    pub(super) fn note(&mut self, pool: &Pool) -> bool {
        let before = (self.state.nodes.clone(), self.state.over);
        self.state.note(pool, &self.planner.run);
        self.state.progress = shown(&pool.name, &self.planner.run);
        let seconds = (self.began.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        self.state.progress["state"] = self.state.state.as_str().into();
        self.state.progress["by"] = self.state.by().as_str().into();
        self.state.progress["edge"] = self.state.leader.as_str().into();
        self.state.progress["seconds"] = seconds.into();
        before != (self.state.nodes.clone(), self.state.over)
    }
}

impl Leader {
    /// Publishes where the run is: the whole once a second and at the end, otherwise what has changed. Returns whether
    /// this edge leads still.
    async fn publish(&mut self, store: &Store) -> Result<bool, StoreError> {
        let is_recent = |at: Instant| at.elapsed() < LOOK_EVERY;
        let whole = self.state.over || !self.told_whole.is_some_and(is_recent);
        let leads = match whole {
            true => store.put_run(&self.state).await?,
            false => store.tell_run(&self.state.change(&self.told)).await?,
        };
        if leads {
            self.planner.seq = self.state.seq;
            self.told = self.state.nodes.clone();
            if whole {
                self.told_whole = Some(Instant::now());
            }
        }
        Ok(leads)
    }
}

/// Leads a run until it is over, or another edge leads it.
pub(super) async fn lead(running: Arc<Running>, store: Store, id: PoolId, mut leader: Leader) {
    running.site_runs.led.lock().insert(id);
    let rate = metrics::get()
        .rebalance_rate
        .with_label_values(&[&leader.state.pool]);
    rate.set(leader.planner.run.request.rate.per_second());
    running.led(&store, id, &mut leader).await;
    rate.set(0.0);
    running.site_runs.led.lock().remove(&id);
    let _ = store.free_lead(&leader.state.pool).await;
}

impl Running {
    async fn led(self: &Arc<Self>, store: &Store, id: PoolId, leader: &mut Leader) {
        let name = leader.state.pool.clone();
        let (mut parts, mut read) = (Vec::new(), None::<Instant>);
        let (mut published, mut kept) = (None::<Instant>, None::<Instant>);
        let mut is_news = true;
        // The process that takes over follows, and one of the edges goes on leading.
        while !self.is_leaving() {
            let Some(pool) = self.pools().get(&id).cloned() else {
                leader.planner.run.state = RunState::Cancelled;
                leader.state.over = true;
                leader.state.state = RunState::Cancelled.as_str().to_owned();
                let _ = store.put_run(&leader.state).await;
                return;
            };
            if self.site_runs.take_cancel(&id) {
                leader.planner.run.state = RunState::Cancelled;
                is_news |= leader.note(&pool);
            }
            if read.is_none_or(|at| at.elapsed() >= PART_EVERY) {
                read = Some(Instant::now());
                match store.parts(&name, &self.other_keys()).await {
                    Ok(read) => parts = read,
                    // Nothing moves while the store is away.
                    Err(_) => {
                        tokio::time::sleep(PART_EVERY).await;
                        continue;
                    }
                }
            }
            // Another edge may have led further than this one has heard.
            let told = parts.iter().filter(|p| p.run == leader.state.run);
            told.for_each(|p| leader.planner.obeyed(p.seq));
            // What is not published yet is not known to any edge, so nothing more is planned.
            if !is_news {
                is_news = self.plan_site(&pool, leader, &parts);
            }
            if is_news || published.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                leader.state.seq = leader.planner.seq + 1;
                match leader.publish(store).await {
                    Ok(true) => {}
                    // The store was restarted empty, or another edge leads by now.
                    Ok(false) if store.lead(&name).await == Ok(true) => continue,
                    Ok(false) => return,
                    Err(_) => {
                        tokio::time::sleep(PART_EVERY).await;
                        continue;
                    }
                }
                (published, is_news) = (Some(Instant::now()), false);
                self.follow_run(&leader.state);
            }
            if leader.state.over || kept.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                kept = Some(Instant::now());
                self.keep_rules(leader).await;
            }
            if leader.state.over {
                let progress = &leader.state.progress;
                log::warn!("pool {name}: rebalance of the site ended: {progress}");
                return;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Lets the run do what is due. Returns whether there is something to publish.
    fn plan_site(&self, pool: &Arc<Pool>, leader: &mut Leader, others: &[Part]) -> bool {
        let own = {
            let mut followers = self.site_runs.followers.lock();
            let follower = followers.get_mut(&pool.id);
            follower.map(|follower| {
                self.with_live(pool, |live| follower.tick(live, Instant::now()));
                follower.part(pool, &self.site.key())
            })
        };
        // An edge of another version may never tell a part.
        leader.planner.wanted_parts = match leader.led.elapsed() < WAIT_FOR_PARTS {
            true => 1 + self.other_keys().len(),
            false => 0,
        };
        let of_run = others.iter().filter(|p| p.run == leader.state.run);
        let parts: Vec<_> = of_run.cloned().chain(own).collect();
        // The date may run slower than time, so the run waits until the date has reached its moment.
        match unix_seconds(clock::date()) >= leader.planner.run.before {
            true => leader.planner.tick(pool, &parts, Instant::now()),
            false => leader.planner.look(pool, &parts),
        }
        leader.note(pool)
    }

    /// Returns the other live edges, by name and process.
    fn other_keys(&self) -> Vec<String> {
        let (others, _) = self.site.others(Instant::now());
        others.iter().map(|other| other.key()).collect()
    }

    /// Keeps the shares that have grown as orders, so that an edge that starts later forgets the same.
    async fn keep_rules(self: &Arc<Self>, leader: &mut Leader) {
        for (node, of) in &leader.state.nodes {
            let before = leader.kept.nodes.get(node).map_or(0, |of| of.share);
            if of.share > before {
                let subject = Subject::Assignments {
                    pool: leader.state.pool.clone(),
                    node: Some(node.clone()),
                    before: leader.state.before,
                };
                let what = What::Forget {
                    share: of.share(),
                    spares_live: leader.state.close,
                };
                self.give(subject, what, false).await;
            }
        }
        leader.kept = leader.state.clone();
    }
}
