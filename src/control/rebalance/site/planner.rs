//! Plans a rebalance of the site from the parts of all edges.
//!
//! In: parts, and the pool as the leader sees it. Out: a [`RebalanceRun`] that knows the flows of every edge; what it
//! closes is published, and closed by the edge that has it. Source: issue 16 §5.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Instant;

use pushgate_plugins::api::{Forget, NodeId};

use super::part::Part;
use crate::balance::Pool;
use crate::control::rebalance::live::loads;
use crate::control::rebalance::plan::Load;
use crate::control::rebalance::run::{Cluster, Leaving, RebalanceRun};
use crate::upstream::live_flows::MovableFlow;

/// A run of the site, and the flows of the edges that it knows.
pub struct Planner {
    /// The run.
    pub run: RebalanceRun,
    /// Number of the last word that was published.
    pub seq: u64,
    /// Number of parts without which nothing is closed: an edge closes what the others are told too.
    pub wanted_parts: usize,
    /// The first word of this leader: what an earlier one told must be done before more is told, so that nothing counts
    /// twice.
    first: u64,
    flows: RefCell<HashMap<u64, Told>>,
}

/// A flow that an edge has told.
struct Told {
    edge: String,
    node: NodeId,
    /// The word of the leader by which it is closed; `None`: it stays.
    closed: Option<u64>,
}

impl Planner {
    /// Plans `run`; `seq` is the number of the last word that was published.
    pub fn new(run: RebalanceRun, seq: u64) -> Self {
        Planner {
            run,
            seq,
            wanted_parts: 0,
            first: seq + 1,
            flows: RefCell::default(),
        }
    }

    /// Notes that an edge has obeyed word `seq`, maybe of an earlier leader.
    pub fn obeyed(&mut self, seq: u64) {
        if seq > self.seq {
            self.seq = seq;
            self.first = seq + 1;
        }
    }

    /// Does what is due. What changes is in the run, to be published as word `seq + 1`.
    pub fn tick(&mut self, pool: &Pool, parts: &[Part], now: Instant) {
        let told = Whole {
            pool,
            parts,
            flows: &self.flows,
            next: self.seq + 1,
            before: self.run.before,
            wanted_parts: self.wanted_parts,
            first: self.first,
        };
        self.run.tick(now, &told);
    }

    /// Reads the loads, and plans; closes nothing.
    pub fn look(&mut self, pool: &Pool, parts: &[Part]) {
        let told = Whole {
            pool,
            parts,
            flows: &self.flows,
            next: self.seq + 1,
            before: self.run.before,
            wanted_parts: self.wanted_parts,
            first: self.first,
        };
        self.run.look(&told);
    }
}

/// The site as a run sees it.
struct Whole<'a> {
    pool: &'a Pool,
    parts: &'a [Part],
    flows: &'a RefCell<HashMap<u64, Told>>,
    next: u64,
    before: u64,
    wanted_parts: usize,
    first: u64,
}

impl Whole<'_> {
    fn part(&self, edge: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.edge == edge)
    }
}

impl Cluster for Whole<'_> {
    fn loads(&self, leaving: &[Leaving]) -> Vec<Load> {
        loads(self.pool, |node| {
            if self.parts.is_empty() {
                return node.load.of_site();
            }
            let at = |part: &Part| part.nodes.get(&node.name).map_or(0, |at| at.flows);
            let flows: usize = self.parts.iter().map(at).sum();
            // Their edges have not obeyed yet, so the parts count them.
            let leave = leaving.iter().filter(|l| l.node == node.id);
            flows.saturating_sub(leave.count())
        })
    }

    fn movable(&self, node: NodeId) -> Vec<MovableFlow> {
        let Some(name) = self.pool.node(node).map(|n| n.name.as_str()) else {
            return Vec::new();
        };
        let rule = Forget {
            pool: self.pool.id,
            node: Some(node),
            before: self.before,
            share: 0.0,
            spares_live: true,
        };
        let mut flows = self.flows.borrow_mut();
        // What was closed is kept until its edge has obeyed.
        flows.retain(|_, told| told.node != node || told.closed.is_some());
        let told = |part: &Part| {
            let lists = part.nodes.get(name).is_none_or(|at| at.next.is_some());
            lists && part.seq >= self.first
        };
        if self.parts.len() < self.wanted_parts || !self.parts.iter().all(told) {
            return Vec::new();
        }
        let mut all = Vec::new();
        // Beyond the end of a list that has more, the order of the site is not known.
        let mut bound = 1.0_f64;
        for part in self.parts {
            let Some(at) = part.nodes.get(name) else {
                continue;
            };
            let next = at.next.iter().flat_map(|next| &next.0);
            let mut same: HashMap<u64, u64> = HashMap::new();
            for mark in next.clone() {
                let nth = same.entry(mark.id).or_default();
                let flow = number(&part.edge, node, mark.id, *nth);
                *nth += 1;
                let told = flows.entry(flow).or_insert_with(|| Told {
                    edge: part.edge.clone(),
                    node,
                    closed: None,
                });
                // It was closed by a word that its edge has not obeyed when it told of the flow.
                if told.closed.is_none() {
                    all.push(MovableFlow { flow, mark: *mark });
                }
            }
            if let Some(last) = next.last().filter(|_| at.more) {
                bound = bound.min(rule.place(last.id));
            }
        }
        all.retain(|f| rule.place(f.mark.id) <= bound);
        all
    }

    fn has(&self, _: NodeId, flow: u64) -> bool {
        let mut flows = self.flows.borrow_mut();
        let Some(told) = flows.get(&flow) else {
            return false;
        };
        let part = self.part(&told.edge);
        // An edge that is gone has no flows.
        let left = part.is_some_and(|part| told.closed.is_none_or(|word| part.seq < word));
        if !left {
            flows.remove(&flow);
        }
        left
    }

    fn arrived(&self) -> usize {
        self.parts.iter().map(|p| p.arrived).sum()
    }

    /// Every edge forgets when the share is published.
    fn forget(&self, _: &Forget) {}

    fn close(&self, _: NodeId, flow: u64) -> bool {
        if let Some(told) = self.flows.borrow_mut().get_mut(&flow) {
            told.closed = Some(self.next);
        }
        true
    }
}

/// Returns a number for the `nth` flow with this mark.
fn number(edge: &str, node: NodeId, mark: u64, nth: u64) -> u64 {
    let mut h = DefaultHasher::new();
    h.write(edge.as_bytes());
    h.write_u64(node.0);
    h.write_u64(mark);
    h.write_u64(nth);
    h.finish()
}
