//! Begins rebalances of the site, and takes part in those that run.
//!
//! In: an order, states of the store. Out: a run that this edge leads; flows closed here, this edge's part. A run whose
//! leader is gone is led on by whoever gets the lock first. Source: issue 16 §5, §6.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{NodeId, PoolId};
use serde_json::Value;

use super::follower::{BEFORE_CLOSE, Follower};
use super::leader::{Leader, lead};
use super::planner::Planner;
use super::site_run::SiteRun;
use crate::balance::Pool;
use crate::clock;
use crate::control::Running;
use crate::control::rebalance::{OrderedBy, RebalanceError, RebalanceRequest, prepare};
use crate::control::site::news::News;
use crate::control::site::obey::date;
use crate::control::site::store::Store;

/// Pause between two words of an edge about its part, and between two looks of the leader at all parts.
const PART_EVERY: Duration = Duration::from_millis(200);
/// Pause between two looks for runs without a leader, and between two words of a leader that has nothing new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A return that was noticed up to this long after a run is taken for one that the run has seen: edges notice it at
/// different times.
const NOTICED_LATE: Duration = Duration::from_secs(30);

/// Takes part in the site's rebalances until the process ends.
pub async fn watch(running: Arc<Running>) {
    let Some(store) = running.site.store.clone() else {
        return;
    };
    let mut looked: Option<Instant> = None;
    loop {
        tokio::time::sleep(PART_EVERY).await;
        if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            looked = Some(Instant::now());
            running.look_for_runs(&store).await;
        }
        running.send_parts(&store).await;
    }
}

impl Running {
    /// Begins a rebalance of the whole site, led by this edge, and returns its progress. Without a store, or while it
    /// is away, it is one of this edge. A dry run only returns what it would do.
    ///
    /// Errors: as of [`Running::rebalance`].
    pub async fn rebalance_site(
        self: &Arc<Self>,
        name: &str,
        request: RebalanceRequest,
        by: OrderedBy,
    ) -> Result<Value, RebalanceError> {
        let store = self.site.store.clone().filter(|_| !request.dry_run);
        let Some(store) = store else {
            return self.rebalance(name, request, by);
        };
        let pools = self.pools();
        let unknown = || RebalanceError::Unknown(format!("no pool `{name}`"));
        let pool = pools.get(&PoolId::of(name)).ok_or_else(unknown)?;
        let mut run = prepare(pool, request.clone(), clock::date(), Instant::now())?;
        if self
            .last_rebalance(name)
            .is_some_and(|here| !here.is_over())
        {
            return Err(RebalanceError::Busy);
        }
        match store.lead(name).await {
            Ok(true) => {}
            Ok(false) => return Err(RebalanceError::Busy),
            Err(_) => {
                let mut alone = self.rebalance(name, request, by)?;
                alone["site"] = "not elsewhere".into();
                return Ok(alone);
            }
        }
        self.with_live(pool, |live| run.look(live));
        let state = SiteRun {
            run: format!("{}-{}", self.site.id, date()),
            pool: name.to_owned(),
            leader: self.site.name.clone(),
            auto: by == OrderedBy::Auto,
            began: date(),
            ..SiteRun::default()
        };
        let mut leader = Leader::new(state, Planner::new(run, 0));
        leader.note(pool);
        let progress = leader.state.progress.clone();
        log::warn!("pool {name}: rebalance of the site begins, led by this edge: {progress}");
        tokio::spawn(lead(self.clone(), store, pool.id, leader));
        Ok(progress)
    }

    /// Stops the site's rebalance of a pool where it is; false if none runs.
    pub async fn cancel_site_rebalance(self: &Arc<Self>, pool: &str) -> bool {
        let runs = self.site_runs.last(pool).is_some_and(|last| !last.over);
        if let Some(store) = self.site.store.as_ref().filter(|_| runs) {
            self.site_runs.cancel(pool);
            // If it is lost, the operator sees that the run goes on.
            let _ = store.tell(&News::CancelRebalance(pool.to_owned())).await;
        }
        runs
    }

    /// Returns the progress of the last rebalance of a pool, of the site or of this edge alone.
    pub fn rebalance_progress(&self, pool: &str) -> Option<Value> {
        let of_site = self.site_runs.last(pool);
        let here = self.last_rebalance(pool);
        match (of_site, here) {
            (Some(site), Some(here)) if here.is_later(site.began) => Some(here.progress()),
            (Some(site), _) => Some(site.progress),
            (None, here) => here.map(|here| here.progress()),
        }
    }

    /// Whether a rebalance of the site has already counted the nodes that this edge saw return `ago`.
    pub fn is_evened(&self, pool: &str, returned: &HashSet<NodeId>, ago: Duration) -> bool {
        let Some(last) = self.site_runs.last(pool).filter(|last| last.over) else {
            return false;
        };
        let since = Duration::from_millis(date().saturating_sub(last.began));
        let takes = |id: &NodeId| {
            let of = last.nodes.iter().find(|(name, _)| NodeId::of(name) == *id);
            of.is_some_and(|(_, of)| of.takes)
        };
        since < ago + NOTICED_LATE && returned.iter().all(takes)
    }

    /// Takes part in a run by its published state.
    pub(in crate::control) fn follow_run(self: &Arc<Self>, state: &SiteRun) {
        let pools = self.pools();
        let id = PoolId::of(&state.pool);
        let Some(pool) = pools.get(&id) else { return };
        if state.is_change {
            let mut followers = self.site_runs.followers.lock();
            if let Some(follower) = followers.get_mut(&id) {
                let now = Instant::now();
                self.with_live(pool, |live| follower.obey_change(state, live, now));
                self.close_soon(id);
            }
            return;
        }
        {
            let mut last = self.site_runs.last.lock();
            let known = last.get(&id);
            if known.is_some_and(|known| {
                known.run == state.run && (known.over || known.seq > state.seq)
            }) {
                return;
            }
            if known.is_none_or(|known| known.run != state.run) && state.leader != self.site.name {
                log::warn!(
                    "pool {}: rebalance of the site, led by edge {}",
                    state.pool,
                    state.leader
                );
            }
            last.insert(id, state.clone());
        }
        let mut followers = self.site_runs.followers.lock();
        let other = followers.get(&id).is_some_and(|f| f.state.run != state.run);
        if other {
            followers.remove(&id);
        }
        let follower = followers.entry(id).or_insert_with(|| Follower::new(state));
        self.with_live(pool, |live| follower.obey(state, live, Instant::now()));
        match state.over {
            true => drop(followers.remove(&id)),
            false => self.close_soon(id),
        }
    }

    /// Closes the flows of a pool that the rule has reached, after their pause.
    fn close_soon(self: &Arc<Self>, id: PoolId) {
        let running = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(BEFORE_CLOSE).await;
            let pools = running.pools();
            let mut followers = running.site_runs.followers.lock();
            if let (Some(pool), Some(follower)) = (pools.get(&id), followers.get_mut(&id)) {
                running.with_live(pool, |live| follower.tick(live, Instant::now()));
            }
        });
    }

    /// Looks for runs of all pools.
    async fn look_for_runs(self: &Arc<Self>, store: &Store) {
        let pools = self.pools();
        let led = self.site_runs.led.lock().clone();
        let others: Vec<_> = pools.values().filter(|p| !led.contains(&p.id)).collect();
        let names: Vec<&str> = others.iter().map(|p| p.name.as_str()).collect();
        let Ok(runs) = store.runs(&names).await else {
            return;
        };
        for (pool, run) in others.into_iter().zip(runs) {
            match run {
                Some((state, is_led)) => self.look_at_run(store, pool, state, is_led).await,
                None => self.lose_run(pool),
            }
        }
    }

    /// Follows the run of a pool, and goes on leading it if its leader is gone.
    async fn look_at_run(
        self: &Arc<Self>,
        store: &Store,
        pool: &Arc<Pool>,
        state: SiteRun,
        is_led: bool,
    ) {
        self.follow_run(&state);
        // What was told since is known to those that heard it.
        let heard = {
            let followers = self.site_runs.followers.lock();
            followers.get(&pool.id).map(|f| f.state.clone())
        };
        let state = match heard {
            Some(heard) if heard.run == state.run && heard.seq > state.seq => heard,
            _ => state,
        };
        if state.over || is_led || self.is_leaving() || store.lead(&pool.name).await != Ok(true) {
            return;
        }
        let Some(run) = state.restore(pool, Instant::now()) else {
            return;
        };
        log::warn!(
            "pool {}: this edge goes on leading the rebalance of the site; edge {} is gone",
            pool.name,
            state.leader
        );
        let planner = Planner::new(run, state.seq);
        let state = SiteRun {
            leader: self.site.name.clone(),
            ..state
        };
        let leader = Leader::new(state, planner);
        tokio::spawn(lead(self.clone(), store.clone(), pool.id, leader));
    }

    /// Ends this edge's part in a run that the store has lost together with its leader.
    fn lose_run(&self, pool: &Arc<Pool>) {
        let mut followers = self.site_runs.followers.lock();
        let is_lost = followers
            .get_mut(&pool.id)
            .is_some_and(|f| f.is_lost(Instant::now()));
        if is_lost {
            followers.remove(&pool.id);
            pool.level(false);
            if let Some(last) = self.site_runs.last.lock().get_mut(&pool.id) {
                (last.over, last.state) = (true, "cancelled".to_owned());
                last.progress["state"] = "cancelled".into();
            }
            log::warn!(
                "pool {}: the store has lost the rebalance of the site",
                pool.name
            );
        }
    }

    /// Closes what is to be closed here, and tells the leaders what this edge has.
    async fn send_parts(&self, store: &Store) {
        let pools = self.pools();
        let mut parts = Vec::new();
        {
            let mut followers = self.site_runs.followers.lock();
            // A reload may have removed the pool.
            followers.retain(|id, _| pools.contains_key(id));
            for (id, follower) in followers.iter_mut() {
                let pool = &pools[id];
                self.with_live(pool, |live| follower.tick(live, Instant::now()));
                parts.push((pool.name.clone(), follower.part(pool, &self.site.key())));
            }
        }
        for (pool, part) in parts {
            // Where this fails the leader counts this edge out, and the run pauses anyway.
            let _ = store.part(&pool, &part).await;
        }
    }
}
