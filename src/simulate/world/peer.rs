//! A simulated node, and how the script changes it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, defaults};
use crate::control::plan;
use crate::upstream::Node;
use crate::upstream::evict::Paced;

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
    pub node: Arc<Node>,
    pub health: Health,
    pub changes: u32,
    /// Time until checks find the node dead.
    pub falls: Duration,
    pub falls_hung: Option<Duration>,
    pub rises: Duration,
    pub evict_rate: Option<config::units::Rate>,
    /// Flows still to be ended because the node is Down.
    pub evicted: Option<Paced>,
    pub new: u64,
}

impl Peer {
    /// Builds a serving node with the checks and rates of the file.
    pub fn new(config: &Config, node: &Arc<Node>) -> Peer {
        let health = plan::health_of(config, &node.name);
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
            node: node.clone(),
            health: Health::Well,
            changes: 0,
            falls: interval + timeout,
            // The same rule as in `upstream::health`.
            falls_hung: health.filter(waits).map(|h| interval * h.fall + timeout),
            rises: interval * rise,
            evict_rate: plan::evict_rate_of(config, &node.name),
            evicted: None,
            new: 0,
        }
    }
}
