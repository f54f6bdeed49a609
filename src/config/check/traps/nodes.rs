//! Warns of nodes and pools that get no flow, of two nodes that are one, and of checks that overtake each other.
//!
//! In: `nodes`, `pools`, and what listeners reach. Out: warnings, each at its place.

use std::collections::{BTreeMap, BTreeSet};

use super::super::checker::{Check, steps};
use super::super::targets;
use crate::config::tree::Step;
use crate::config::{Address, Health};

pub(super) fn check(check: &mut Check<'_>) {
    unused(check);
    same_address(check);
    let config = check.config;
    for (name, node) in &config.nodes {
        if let Some(health) = &node.health {
            slow_checks(check, &steps!["nodes", name.as_str(), "health"], health);
        }
    }
    for (name, pool) in &config.pools {
        if let Some(health) = &pool.health {
            slow_checks(check, &steps!["pools", name.as_str(), "health"], health);
        }
    }
}

/// A name that was left behind, or misspelt where it is used.
fn unused(check: &mut Check<'_>) {
    let config = check.config;
    let listeners = config.listeners.iter().enumerate();
    let reached = listeners.flat_map(|(i, listener)| targets::of_listener(check, i, listener));
    let reached: BTreeSet<String> = reached.collect();
    for name in config.pools.keys().filter(|name| !reached.contains(*name)) {
        check.warn_key(
            &steps!["pools", name.as_str()],
            "no listener sends a flow to this pool",
            "its name in `to` or in a route of a listener, or no such pool",
        );
    }
    let of_pools = config.pools.values().flat_map(|pool| &pool.nodes);
    let servers = config
        .nodes
        .values()
        .filter_map(|node| node.server.as_ref());
    let used: BTreeSet<&String> = of_pools.chain(servers).chain(&reached).collect();
    for name in config.nodes.keys().filter(|name| !used.contains(name)) {
        check.warn_key(
            &steps!["nodes", name.as_str()],
            "no pool has this node, and no listener sends a flow to it",
            "its name in `nodes` of a pool, in `to` or in a route, or no such node",
        );
    }
}

/// Limits, rates and the balancer count the flows of each node, so two nodes of one server have double shares.
fn same_address(check: &mut Check<'_>) {
    let config = check.config;
    let mut first: BTreeMap<String, &String> = BTreeMap::new();
    let line = |name: &str| check.tree.locate(&steps!["nodes", name, "address"]).at;
    let mut in_file: Vec<&String> = config.nodes.keys().collect();
    // Cached: of 4,000 nodes each look at a line passes half of them.
    in_file.sort_by_cached_key(|name| line(name));
    for name in in_file {
        let address = match &config.nodes[name].address {
            address @ (Address::Socket(_) | Address::Unix(_)) => address.to_string(),
            Address::Host(host) => format!("{}:{}", host.host.bare(), host.port),
        };
        let Some(other) = first.get(&address) else {
            first.insert(address, name);
            continue;
        };
        let at = check.tree.locate(&steps!["nodes", other.as_str()]).key_at;
        let why = format!(
            "node `{other}` {} has the same address, and each counts its flows alone",
            at.told(check.files, line(name))
        );
        let expected = "one node for one address; a `weight` gives it a larger share";
        check.warn(&steps!["nodes", name.as_str(), "address"], &why, expected);
    }
}

/// One check begins after the other has ended, so a slow one delays the next.
fn slow_checks(check: &mut Check<'_>, block: &[Step], health: &Health) {
    if health.timeout <= health.interval {
        return;
    }
    let at = |key: &str| [block, &[Step::from(key)]].concat();
    let key = match check.tree.find(&at("timeout")) {
        Some(_) => "timeout",
        None => "interval",
    };
    let why = format!(
        "a check may take {}, longer than the interval of {}, so a node that hangs is found late",
        health.timeout, health.interval
    );
    let expected = match key {
        "timeout" => format!("at most `interval`, which is {}", health.interval),
        _ => format!("at least `timeout`, which is {}", health.timeout),
    };
    check.warn(&at(key), &why, &expected);
}
