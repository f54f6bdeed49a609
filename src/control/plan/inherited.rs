//! Settings of a node: its own, or those of its pools.
//!
//! In: a checked [`Config`]. Out: limits, health check, eviction rate.

use std::net::IpAddr;

use crate::config::units::Rate;
use crate::config::{self, Config, Health};
use crate::upstream::flow_limiter::Limits;

/// Returns a node's own limits; a limit it lacks comes from the first of its pools that has it.
pub(super) fn limits_of(config: &Config, name: &str, conf: &config::Node) -> Limits {
    Limits {
        max_flows: own_or_pools(config, name, conf.max_flows, |p| p.max_flows).map(Into::into),
        max_flows_hard: own_or_pools(config, name, conf.max_flows_hard, |p| p.max_flows_hard)
            .map(Into::into),
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

/// Returns the address from which a node is connected to: its own, or that of its first pool with one.
pub fn source_of(config: &Config, name: &str, conf: &config::Node) -> Option<IpAddr> {
    own_or_pools(config, name, conf.source, |p| p.source).map(|source| source.0)
}

/// Returns a node's own check, or that of its first pool with one (the file check ensures that they agree).
pub fn health_of<'a>(config: &'a Config, node: &'a str) -> Option<&'a Health> {
    let own = config.nodes.get(node).and_then(|n| n.health.as_ref());
    own.or_else(|| pools_of(config, node).find_map(|p| p.health.as_ref()))
}

/// Returns the rate at which a node's flows are closed when it goes Down: its own, or that of
/// its first pool with one.
pub fn evict_rate_of(config: &Config, name: &str) -> Option<Rate> {
    let own = config.nodes.get(name).and_then(|n| n.evict_rate);
    own_or_pools(config, name, own, |p| p.evict_rate)
}

/// Returns the pools a node is in.
pub(super) fn pools_of<'a>(
    config: &'a Config,
    node: &'a str,
) -> impl Iterator<Item = &'a config::Pool> {
    config
        .pools
        .values()
        .filter(move |p| p.nodes.iter().any(|n| n == node))
}
