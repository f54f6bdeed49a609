//! Chooses a node of a pool for a flow that is not stuck.
//!
//! One trait, pure functions of the nodes' facts. Source: Lightstreamer clustering §2.1
//! ("balancing"), §1 (S connections can always be freely balanced), §2.2.2, §3.2.1.2, §3.2.2.2 (the
//! edge balances S, CR does not pass it).

mod hash;
mod least_flows;
mod random;
mod round_robin;

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::{NodeId, PoolId};

use crate::config::{self, Balance, NoNode};
use crate::upstream::{Node, State};

/// Facts of one node that can take the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Identity.
    pub id: NodeId,
    /// Weight, above 0.
    pub weight: u32,
    /// Live flows.
    pub live: usize,
}

/// Facts of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Hash of the client's address.
    pub client: u64,
    /// A random number.
    pub random: u64,
}

/// A way to choose.
pub trait Method: Send + Sync {
    /// Index of the chosen candidate; there is at least one.
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize;
}

/// The method of a configured word.
pub fn method(word: Balance) -> Box<dyn Method> {
    match word {
        Balance::LeastFlows => Box::new(least_flows::LeastFlows),
        Balance::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        Balance::Random => Box::new(random::Random),
        Balance::Hash => Box::new(hash::Hash),
    }
}

/// Nodes among which flows are balanced.
pub struct Pool {
    /// Identity.
    pub id: PoolId,
    /// Name in the configuration.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<Arc<Node>>,
    /// Deadline of connecting.
    pub connect_timeout: Duration,
    /// Other nodes tried after a failed connect.
    pub retries: u32,
    /// Answer when no node can take the flow.
    pub no_node: NoNode,
    method: Box<dyn Method>,
}

impl Pool {
    /// Builds a pool of the nodes given.
    pub fn new(name: &str, conf: &config::Pool, nodes: Vec<Arc<Node>>) -> Self {
        Pool {
            id: PoolId::of(name),
            name: name.to_owned(),
            nodes,
            connect_timeout: conf.connect_timeout.0,
            retries: conf.retries,
            no_node: conf.no_node,
            method: method(conf.balance),
        }
    }

    /// The pool's node of that identity.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// Chooses among the nodes that are Up, have weight, and were not tried for this flow.
    pub fn pick(&self, seed: Seed, tried: &[NodeId]) -> Option<&Arc<Node>> {
        let able: Vec<&Arc<Node>> = self
            .nodes
            .iter()
            .filter(|n| n.weight > 0 && n.state() == State::Up && !tried.contains(&n.id))
            .collect();
        if able.is_empty() {
            return None;
        }
        let facts: Vec<Candidate> = able
            .iter()
            .map(|n| Candidate {
                id: n.id,
                weight: n.weight,
                live: n.live(),
            })
            .collect();
        able.get(self.method.pick(&facts, seed)).copied()
    }
}

#[cfg(test)]
mod tests;
