//! Rebalances that the script orders, or that begin by themselves after a return. The code of the running
//! edge does them, on the run's clock.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use pushgate_plugins::api::{Forget, PoolId};

use super::World;
use super::event::{Event, SECOND, nanos};
use super::rebalances::Run;
use crate::balance::Pool;
use crate::control::rebalance::{
    LOOK_EVERY, Live, OrderedBy, RebalanceError, RebalanceRequest, Several, TICK, prepare,
};
use crate::simulate::report::Rebalance;
use crate::simulate::script::Order;
use crate::upstream::Node;

impl World<'_> {
    /// Schedules the rebalances of the script, and looks for returns if a pool has `rebalance.auto`.
    ///
    /// Errors: an unknown pool, or words that make no sense.
    pub(super) fn script_rebalances(&mut self) -> Result<(), String> {
        for (n, order) in self.settings.rebalance.iter().enumerate() {
            let (pool, request) = self.request_of(order, 0)?;
            prepare(&pool, request, self.wall(), self.instant()).map_err(|e| refused(order, &e))?;
            self.events.add(nanos(order.at), Event::Rebalance(n));
        }
        if self.tables[0].pools.values().any(|p| p.rebalance.auto) {
            self.events.add(0, Event::Look);
        }
        Ok(())
    }

    /// Edges that lead a rebalance of their own.
    fn leaders(&self) -> Range<usize> {
        match self.reports.is_empty() {
            true => 0..self.tables.len(),
            false => 0..1,
        }
    }

    /// Edges whose flows belong to the rebalance that `leader` leads.
    fn led(&self, leader: usize) -> Range<usize> {
        match self.reports.is_empty() {
            true => leader..leader + 1,
            false => 0..self.tables.len(),
        }
    }

    fn request_of(
        &self,
        order: &Order,
        edge: usize,
    ) -> Result<(Arc<Pool>, RebalanceRequest), String> {
        let pool = self.tables[edge].pools.get(&PoolId::of(&order.pool));
        let pool = pool.ok_or_else(|| format!("--rebalance: unknown pool `{}`", order.pool))?;
        let request = RebalanceRequest::read(&order.words, b"", &pool.rebalance);
        let request = request.map_err(|e| format!("--rebalance {}: {e}", order.pool))?;
        if request.dry_run || request.before.is_some() {
            let why =
                "`dry-run` and `before` make no sense here: a run is dry and has its own clock";
            return Err(format!("--rebalance {}: {why}", order.pool));
        }
        Ok((pool.clone(), request))
    }

    /// Begins the rebalance at index `order` of the script.
    pub(super) fn ordered(&mut self, order: usize) -> Result<(), String> {
        let order = &self.settings.rebalance[order];
        for edge in self.leaders() {
            let (pool, request) = self.request_of(order, edge)?;
            if let Err(refusal) = self.begin(edge, &pool, request, OrderedBy::Operator) {
                self.tell(refused(order, &refusal));
            }
        }
        Ok(())
    }

    /// Begins a rebalance of a pool and adds it to the report.
    ///
    /// Errors: a rebalance of the pool is running, or the request makes no sense.
    fn begin(
        &mut self,
        edge: usize,
        pool: &Arc<Pool>,
        request: RebalanceRequest,
        by: OrderedBy,
    ) -> Result<(), RebalanceError> {
        let id = (edge, pool.id);
        if self.rebalances.running.contains_key(&id) {
            return Err(RebalanceError::Busy);
        }
        let mut rebalance = prepare(pool, request, self.wall(), self.instant())?;
        self.with_live(id, |live| rebalance.look(live));
        self.tell(format!("{}: rebalance begins ({})", pool.name, by.as_str()));
        self.report.rebalances.push(Rebalance {
            pool: pool.name.clone(),
            by: by.as_str(),
            at: self.seconds(),
            state: rebalance.state.as_str(),
            seconds: 0.0,
            due: rebalance.left(),
            moved: 0,
            evenness: rebalance.plan.evenness,
        });
        let run = Run {
            rebalance,
            told: self.report.rebalances.len() - 1,
            began: self.now,
        };
        self.rebalances.running.insert(id, run);
        self.events.add(self.now, Event::Tick(id));
        Ok(())
    }

    /// Calls `look` with the pool at the led edges and its live flows; returns the flows that it closed.
    fn with_live(
        &self,
        (leader, pool): (usize, PoolId),
        look: impl FnOnce(&Several<'_>),
    ) -> Vec<u64> {
        let closed = RefCell::new(Vec::new());
        let note = |_: &Node, flow| closed.borrow_mut().push(flow);
        let led = &self.tables[self.led(leader)];
        let forget = |what: &Forget| {
            let sticky = led.iter().flat_map(|table| &table.plugins.sticky);
            sticky.for_each(|p| p.forget(what));
        };
        let live = |table: &'_ crate::route::Table| table.pools[&pool].clone();
        let pools: Vec<_> = led.iter().map(live).collect();
        let live = |pool| Live {
            pool,
            forget: &forget,
            closed: &note,
        };
        look(&Several(pools.iter().map(|pool| live(pool)).collect()));
        closed.into_inner()
    }

    /// Does the next step of a pool's rebalance.
    pub(super) fn tick(&mut self, id: (usize, PoolId)) {
        let Some(mut run) = self.rebalances.running.remove(&id) else {
            return;
        };
        let (pool, now) = (self.tables[id.0].pools[&id.1].clone(), self.instant());
        let closed = self.with_live(id, |live| live.tick(&mut run.rebalance, now));
        closed.into_iter().for_each(|flow| self.moves(flow));
        self.told(&run);
        if run.rebalance.state.is_over() {
            let state = run.rebalance.state.as_str();
            self.tell(format!("{}: rebalance is {state}", pool.name));
        } else {
            self.rebalances.running.insert(id, run);
            self.events.add(self.now + nanos(TICK), Event::Tick(id));
        }
    }

    /// Cuts a client's flow so that the client moves. Forgets its assignment first, as the edge does.
    fn moves(&mut self, flow: u64) {
        let Some(client) = self.owners.get(&flow).copied() else {
            return;
        };
        let c = &mut self.clients[client];
        c.moves = true;
        if let Some(live) = &mut c.flow {
            live.watches.iter_mut().for_each(|w| w.forget());
            if let Some((pool, filed)) = &live.learned {
                let node = self.peers[live.node].nodes[0].id;
                self.tables[live.edge].forget(c.address, filed, *pool, node);
            }
        }
        self.cut(client);
    }

    fn told(&mut self, run: &Run) {
        let told = &mut self.report.rebalances[run.told];
        told.state = run.rebalance.state.as_str();
        told.seconds = (self.now - run.began) as f64 / SECOND as f64;
        told.moved = run.rebalance.moved();
        told.evenness = run.rebalance.plan.evenness;
    }

    /// Begins a rebalance of each pool with `rebalance.auto` to which a node has returned.
    pub(super) fn look_for_returns(&mut self) {
        let now = self.instant();
        let all = self.leaders().flat_map(|edge| {
            let pools = self.tables[edge].pools.values();
            pools.map(move |pool| (edge, pool.clone()))
        });
        let all: Vec<_> = all.filter(|(_, p)| p.rebalance.auto).collect();
        for (edge, pool) in &all {
            let id = (*edge, pool.id);
            let seen = self.rebalances.seen.entry(id).or_default();
            if seen.look_at(now, pool)
                && self.begin(
                    *edge,
                    pool,
                    RebalanceRequest::automatic(&pool.rebalance),
                    OrderedBy::Auto,
                ) == Err(RebalanceError::Busy)
                && let Some(seen) = self.rebalances.seen.get_mut(&id)
            {
                seen.put_off(now);
            }
        }
        self.events.add(self.now + nanos(LOOK_EVERY), Event::Look);
    }
}

fn refused(order: &Order, refusal: &RebalanceError) -> String {
    let why = match refusal {
        RebalanceError::Busy => "a rebalance is running",
        RebalanceError::Unknown(why) | RebalanceError::Senseless(why) => why,
    };
    format!("--rebalance {}: {why}", order.pool)
}
