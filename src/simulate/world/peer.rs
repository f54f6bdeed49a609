//! A simulated node, and how the script changes it.

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::NodeId;

use crate::config::{self, Config, defaults};
use crate::control::plan;
use crate::route::Table;
use crate::upstream::evict::Paced;
use crate::upstream::{Node, State};

/// The state of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// The process serves.
    Well,
    /// The process is dead, and the kernel refuses connects.
    Dead,
    /// The process accepts connections and sends nothing. `failure`: index in the report.
    Hung { failure: usize },
}

/// A node with the state the script gave it.
pub(super) struct Peer {
    pub name: String,
    /// The node as each edge sees it.
    pub nodes: Vec<Arc<Node>>,
    pub health: Health,
    pub changes: u32,
    /// Time until checks find the node dead.
    pub falls: Duration,
    pub falls_hung: Option<Duration>,
    pub rises: Duration,
    pub evict_rate: Option<config::units::Rate>,
    /// Flows still to be ended because the node is Down, by edge.
    pub evicted: Vec<Option<Paced>>,
    pub new: u64,
}

impl Peer {
    /// Builds a serving node with the checks and rates of the file.
    pub fn new(config: &Config, tables: &[Table], id: &NodeId) -> Peer {
        let nodes: Vec<_> = tables.iter().map(|t| t.nodes[id].clone()).collect();
        let name = nodes[0].name.clone();
        let health = plan::health_of(config, &name);
        // Without a check the first refused connect marks the node, which is then checked every second.
        let (interval, timeout, rise) = match health {
            Some(h) => (h.interval.0, h.timeout.0, h.rise),
            None => (
                defaults::HEALTH_INTERVAL.0,
                defaults::HEALTH_TIMEOUT.0,
                defaults::HEALTH_RISE,
            ),
        };
        let waits = |h: &&config::Health| h.http.is_some() || h.tls.is_some();
        Peer {
            health: Health::Well,
            changes: 0,
            falls: interval + timeout,
            // The same rule as in `upstream::health`.
            falls_hung: health.filter(waits).map(|h| interval * h.fall + timeout),
            rises: interval * rise,
            evict_rate: plan::evict_rate_of(config, &name),
            evicted: nodes.iter().map(|_| None).collect(),
            new: 0,
            name,
            nodes,
        }
    }

    /// Counts its live flows at all edges.
    pub fn live(&self) -> usize {
        self.nodes.iter().map(|n| n.live()).sum()
    }

    /// Returns its state, which all edges find at the same moment.
    pub fn state(&self) -> State {
        self.nodes[0].state()
    }
}
