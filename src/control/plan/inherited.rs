//! What a node has by its own section, or else by those of its pools.
//!
//! In: a checked [`Config`]. Out: limits, check, rate of eviction.

use crate::config::units::Rate;
use crate::config::{self, Config, Health};
use crate::upstream::flow_limiter::Limits;

/// A node's own limits, or those of the first pool it is in that has any.
pub(super) fn limits_of(config: &Config, name: &str, conf: &config::Node) -> Limits {
    Limits {
        max_flows: own_or_pools(config, name, conf.max_flows, |p| p.max_flows).map(Into::into),
        admit_rate: own_or_pools(config, name, conf.admit_rate, |p| p.admit_rate),
        slow_start: own_or_pools(config, name, conf.slow_start, |p| p.slow_start),
    }
}

fn own_or_pools<T>(
    config: &Config,
    node: &str,
    own: Option<T>,
    of: impl Fn(&config::Pool) -> Option<T>,
) -> Option<T> {
    own.or_else(|| pools_of(config, node).find_map(of))
}

/// A node's own check, or that of the first pool it is in (the file check made sure they agree).
pub fn health_of<'a>(config: &'a Config, node: &'a str) -> Option<&'a Health> {
    let own = config.nodes.get(node).and_then(|n| n.health.as_ref());
    own.or_else(|| pools_of(config, node).find_map(|p| p.health.as_ref()))
}

/// How fast a node's flows are closed when it goes Down: its own, or that of the first pool it is in.
pub fn evict_rate_of(config: &Config, name: &str) -> Option<Rate> {
    let own = config.nodes.get(name).and_then(|n| n.evict_rate);
    own_or_pools(config, name, own, |p| p.evict_rate)
}

/// The pools a node is in.
pub(super) fn pools_of<'a>(
    config: &'a Config,
    node: &'a str,
) -> impl Iterator<Item = &'a config::Pool> {
    config
        .pools
        .values()
        .filter(move |p| p.nodes.iter().any(|n| n == node))
}
