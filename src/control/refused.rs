//! Forgets what a refused configuration left in the metrics.
//!
//! In: names of the refused configuration, and what runs. Out: no series of a node or listener that never ran.

use super::parts::Parts;
use crate::config::Config;
use crate::observe::metrics;

/// The names of a configuration that have series of their own.
pub struct Names {
    nodes: Vec<String>,
    listeners: Vec<String>,
}

impl Names {
    /// Returns the names of `config`.
    pub fn of(config: &Config) -> Self {
        let listeners = config.listeners.iter().map(|l| l.name.clone());
        Names {
            nodes: config.nodes.keys().cloned().collect(),
            listeners: listeners.collect(),
        }
    }

    /// Forgets the series of those that do not run.
    pub fn forget(&self, parts: &Parts) {
        let all = parts.nodes.values().chain(&parts.departed);
        let runs: std::collections::BTreeSet<&str> = all.map(|c| c.node.name.as_str()).collect();
        let gone = self
            .nodes
            .iter()
            .filter(|name| !runs.contains(name.as_str()));
        gone.for_each(|name| metrics::get().forget_node(name));
        let listeners = self.listeners.iter();
        let gone = listeners.filter(|name| !parts.listeners.contains_key(*name));
        gone.for_each(|name| metrics::get().forget_unused_listener(name));
    }
}
