//! The published state of a site's rebalance, from which every edge does its part and any edge can go on leading.
//!
//! In: the leader's run. Out: a value of the store, and back. Source: issue 16 §5.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use pushgate_plugins::api::{Forget, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::balance::Pool;
use crate::config::units::Rate;
use crate::control::rebalance::request::{Goal, OrderedBy, RebalanceRequest};
use crate::control::rebalance::run::{NodeProgress, RebalanceRun};

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct SiteRun {
    /// Tells runs apart.
    pub run: String,
    /// Name of the pool.
    pub pool: String,
    /// Name of the leading edge.
    pub leader: String,
    /// Whether a node's return began it.
    pub auto: bool,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    /// Grows with each word of a leader.
    pub seq: u64,
    /// Its state, as the API names it.
    pub state: String,
    /// Whether it is over.
    pub over: bool,
    /// Whether flows are closed.
    pub close: bool,
    /// The second before which the assignments were made.
    pub before: u64,
    /// Its goal.
    pub goal: Option<Goal>,
    /// Its rate.
    pub rate: String,
    /// Whether `nodes` has only those that differ from the word before. Then `progress` is null.
    #[serde(default)]
    pub is_change: bool,
    /// By the name of the node.
    pub nodes: BTreeMap<String, OfNode>,
    /// As the API shows it.
    #[serde(default)]
    pub progress: Value,
}

/// The state at one node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct OfNode {
    /// Share of its assignments that is forgotten, in steps of 2⁻⁵³: a number that JSON keeps exactly.
    pub share: u64,
    /// Marks of assignments below that share whose flows stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<u64>,
    /// Whether the leader wants to know which flows are next.
    #[serde(default)]
    pub wanted: bool,
    /// Whether it takes flows, so that the run evens it too.
    pub takes: bool,
    /// Clients moved off it.
    pub moved: usize,
    /// Clients still to move off it.
    pub due: usize,
    /// Its flows at the beginning.
    pub flows: usize,
}

/// Steps of a share: 2⁵³.
const STEPS: f64 = (1_u64 << 53) as f64;

impl OfNode {
    /// Returns the share that is forgotten, from 0.0 to 1.0.
    pub fn share(&self) -> f64 {
        self.share as f64 / STEPS
    }
}

impl SiteRun {
    /// Writes down where `run` is.
    pub fn note(&mut self, pool: &Pool, run: &RebalanceRun) {
        self.state = run.state.as_str().to_owned();
        self.over = run.state.is_over();
        self.close = run.request.close;
        self.before = run.before;
        self.goal = Some(run.request.goal.clone());
        self.rate = run.request.rate.to_string();
        for (id, progress) in &run.nodes {
            let Some(node) = pool.node(*id) else { continue };
            let load = run.loads.iter().find(|l| l.id == *id);
            let of = OfNode {
                share: (progress.share * STEPS) as u64,
                spared: progress.spared.iter().copied().collect(),
                wanted: progress.due > 0 || run.is_from(*id),
                takes: load.is_some_and(|l| l.takes),
                moved: progress.moved,
                due: progress.due,
                flows: progress.flows,
            };
            self.nodes.insert(node.name.clone(), of);
        }
    }

    /// Returns a run that goes on from here; `None`: another version wrote the state.
    pub fn restore(&self, pool: &Pool, now: Instant) -> Option<RebalanceRun> {
        let request = RebalanceRequest {
            goal: self.goal.clone()?,
            rate: self.rate.parse::<Rate>().ok()?,
            close: self.close,
            dry_run: false,
            before: Some(self.before),
        };
        let mut run = RebalanceRun::new(pool.id, request, self.before, now);
        let progress = |(name, of): (&String, &OfNode)| {
            let mut progress = NodeProgress::carried(of.moved, of.share(), of.due, of.flows);
            progress.spared = of.spared.iter().copied().collect();
            (NodeId::of(name), progress)
        };
        let nodes: HashMap<_, _> = self.nodes.iter().map(progress).collect();
        run.resume(nodes);
        Some(run)
    }

    /// Returns what differs from `before`: for a pool of a hundred nodes a tenth of the whole.
    pub fn change(&self, before: &BTreeMap<String, OfNode>) -> SiteRun {
        let differs = |(name, of): &(&String, &OfNode)| before.get(*name) != Some(*of);
        let nodes = self.nodes.iter().filter(differs);
        SiteRun {
            is_change: true,
            nodes: nodes.map(|(name, of)| (name.clone(), of.clone())).collect(),
            progress: Value::Null,
            run: self.run.clone(),
            pool: self.pool.clone(),
            leader: self.leader.clone(),
            state: self.state.clone(),
            goal: self.goal.clone(),
            rate: self.rate.clone(),
            ..*self
        }
    }

    /// Adds a change to the whole before it. Returns whether it was the next one.
    pub fn add(&mut self, change: &SiteRun) -> bool {
        let is_next = self.run == change.run && change.seq == self.seq + 1;
        if is_next {
            self.seq = change.seq;
            self.nodes.extend(change.nodes.clone());
        }
        is_next
    }

    /// Returns the rule that forgets `share` of the assignments to the node called `name`.
    pub fn rule(&self, pool: &Pool, name: &str, share: f64) -> Forget {
        Forget {
            pool: pool.id,
            node: Some(NodeId::of(name)),
            before: self.before,
            share,
            spares_live: self.close,
        }
    }

    /// Returns who ordered it.
    pub fn by(&self) -> OrderedBy {
        match self.auto {
            true => OrderedBy::Auto,
            false => OrderedBy::Operator,
        }
    }
}
