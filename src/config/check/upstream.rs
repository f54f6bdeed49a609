//! Checks nodes, pools and their health checks.
//!
//! In: `nodes`, `pools`. Out: faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use pushgate_plugins::unix::{Shown, is_unix};

use super::checker::{Check, steps};
use super::node_tls::{server_name, tls_is_sound};
use crate::config::bounds::{MAX_AGENT_TEXT, MAX_PATHS};
use crate::config::error::echo;
use crate::config::tree::Step;
use crate::config::{Address, Health, Node, Pool, SourceAddress};

pub(super) fn check(check: &mut Check<'_>) {
    let config = check.config;
    for (name, node) in &config.nodes {
        node_is_sound(check, name, node);
    }
    for (name, pool) in &config.pools {
        pool_is_sound(check, name, pool);
    }
    one_health_per_node(check);
}

fn node_is_sound(check: &mut Check<'_>, name: &str, node: &Node) {
    let address = node.address.socket();
    if address.is_some_and(|a| a.port() == 0 || a.ip().is_unspecified()) {
        check.expect(
            &steps!["nodes", name, "address"],
            format!("nothing can be reached at `{}`", node.address),
            "the address and port the push server listens on",
        );
    }
    let ports = |health: &Health| {
        let of = |port: Option<Option<u16>>| port.flatten().is_some();
        of(health.tcp.as_ref().map(|c| c.port))
            || of(health.http.as_ref().map(|c| c.port))
            || of(health.tls.as_ref().map(|c| c.port))
            || health.agent.as_ref().is_some_and(|a| a.address.is_none())
    };
    let pools = check.config.pools.values();
    let mut its = pools.filter(|pool| pool.nodes.iter().any(|n| n == name));
    let pool = || its.find_map(|pool| pool.health.as_ref());
    let is_unix = matches!(node.address, Address::Unix(_));
    if is_unix && node.health.as_ref().or_else(pool).is_some_and(ports) {
        let expected = "a `health` of its own without `port`; an `agent` with an `address`";
        let message = "a Unix socket has no other port to check";
        check.expect(&steps!["nodes", name, "address"], message, expected);
    }
    if let (Some(source), Some(address)) = (node.source, address)
        && let Some(why) = unfit(source, address)
    {
        let expected = "an address of the node's family, IPv4 or IPv6";
        check.expect(&steps!["nodes", name, "source"], why, expected);
    }
    if let Some(server) = &node.server {
        server_is_a_node(check, name, server);
    }
    hard_is_above(
        check,
        &steps!["nodes", name],
        node.max_flows,
        node.max_flows_hard,
    );
    if let Some(health) = &node.health {
        health_is_sound(check, &steps!["nodes", name, "health"], health);
    }
    if let Some(tls) = &node.tls {
        tls_is_sound(check, &steps!["nodes", name, "tls"], tls);
    }
}

/// Returns why no connect to `to` can come from `source`.
fn unfit(source: SourceAddress, to: SocketAddr) -> Option<String> {
    let (from, shown) = (source.0, Shown(to));
    match is_unix(to.ip()) || from.is_ipv4() != to.is_ipv4() {
        true => Some(format!("no connection from `{from}` reaches `{shown}`")),
        false => None,
    }
}

/// A misspelt name would count the node apart, and no chain is needed.
fn server_is_a_node(check: &mut Check<'_>, name: &str, server: &String) {
    let at = steps!["nodes", name, "server"];
    if !check.names.nodes.contains(server) {
        return check.unknown(&at, "node", server, &check.names.nodes);
    }
    let its = check.config.nodes.get(server);
    if server == name || its.is_some_and(|n| n.server.is_some()) {
        check.expect(
            &at,
            format!("`{server}` does not stand for a server of its own"),
            "another node, which has no `server`",
        );
    }
}

/// `max_flows_hard` below `max_flows` would refuse stuck clients before new ones.
fn hard_is_above(
    check: &mut Check<'_>,
    at: &[Step],
    soft: Option<NonZeroUsize>,
    hard: Option<NonZeroUsize>,
) {
    if let (Some(soft), Some(hard)) = (soft, hard)
        && hard < soft
    {
        let at: Vec<Step> = at
            .iter()
            .cloned()
            .chain([Step::from("max_flows_hard")])
            .collect();
        check.expect(
            &at,
            format!(
                "`{hard}` is below `max_flows`: stuck clients would be refused before new ones"
            ),
            format!("at least {soft}"),
        );
    }
}

fn pool_is_sound(check: &mut Check<'_>, name: &str, pool: &Pool) {
    let at = steps!["pools", name, "nodes"];
    let discover = check.tree.locate(&steps!["pools", name, "discover"]);
    if let Some(found) = &pool.discover {
        super::discover::block_is_sound(check, name, found);
    } else if pool.nodes.is_empty() && !check.was_cut(&discover.path) {
        let expected = "at least one name of `nodes`, or `discover`";
        check.expect(&at, "a pool without nodes", expected);
    }
    let mut seen = BTreeSet::new();
    for (i, node) in pool.nodes.iter().enumerate() {
        let at = steps!["pools", name, "nodes", i];
        if !check.names.nodes.contains(node) {
            check.unknown(&at, "node", node, &check.names.nodes);
        } else if !seen.insert(node) {
            check.expect(
                &at,
                format!("`{node}` is there twice"),
                "each node once; see `weight`",
            );
        }
    }
    let weight = |node: &String| check.config.nodes.get(node).map(|n| n.weight);
    if pool.discover.is_none()
        && !pool.nodes.is_empty()
        && pool.nodes.iter().all(|n| weight(n) == Some(0))
    {
        check.expect(
            &at,
            "every node has weight 0",
            "one node with a weight from 1",
        );
    }
    hard_is_above(
        check,
        &steps!["pools", name],
        pool.max_flows,
        pool.max_flows_hard,
    );
    if let Some(source) = pool.source {
        let nodes = pool.nodes.iter().filter_map(|n| check.config.nodes.get(n));
        let mut of = nodes
            .filter(|n| n.source.is_none())
            .filter_map(|n| n.address.socket());
        if let Some(why) = of.find_map(|address| unfit(source, address)) {
            let expected = "an address of the nodes' family, or `source` of each node";
            check.expect(&steps!["pools", name, "source"], why, expected);
        }
    }
    if pool.discover.is_none()
        && !pool.nodes.is_empty()
        && pool
            .nodes
            .iter()
            .all(|n| check.config.nodes.get(n).is_some_and(|n| n.backup))
    {
        check.expect(&at, "every node is a backup", "one node without `backup`");
    }
    if let Some(health) = &pool.health {
        health_is_sound(check, &steps!["pools", name, "health"], health);
    }
    paths_are_sound(check, name, "retry_on", &pool.retry_on);
    paths_are_sound(check, name, "rebalance_on", &pool.rebalance_on);
}

fn paths_are_sound(check: &mut Check<'_>, name: &str, key: &str, paths: &[String]) {
    if paths.len() > MAX_PATHS {
        let at = steps!["pools", name, key];
        check.expect(
            &at,
            format!("{} paths", paths.len()),
            format!("at most {MAX_PATHS}"),
        );
    }
    for (i, path) in paths.iter().enumerate() {
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '?');
        if !path.starts_with('/') || !path.chars().all(legal) {
            check.expect(
                &steps!["pools", name, key, i],
                format!("found `{}`", echo(path)),
                "a path that starts with `/`, without query",
            );
        }
    }
}

/// One loop checks a node. So pools that share it must agree, or the node has its own `health`.
fn one_health_per_node(check: &mut Check<'_>) {
    let mut first: BTreeMap<&String, (&String, &Option<Health>)> = BTreeMap::new();
    let config = check.config;
    for (pool_name, pool) in &config.pools {
        for (i, name) in pool.nodes.iter().enumerate() {
            // A node that could not be decoded may have had a check of its own.
            if config
                .nodes
                .get(name)
                .is_none_or(|node| node.health.is_some())
                || check.was_cut(&check.tree.locate(&steps!["pools", pool_name.as_str()]).path)
            {
                continue;
            }
            match first.get(name) {
                Some((other, health)) if **health != pool.health => check.expect(
                    &steps!["pools", pool_name.as_str(), "nodes", i],
                    format!("`{name}` is also in pool `{other}`, whose `health` differs"),
                    format!("the same `health` in both pools, or one under `nodes.{name}`"),
                ),
                Some(_) => {}
                None => {
                    first.insert(name, (pool_name, &pool.health));
                }
            }
        }
    }
}

fn health_is_sound(check: &mut Check<'_>, at: &[Step], health: &Health) {
    let below = |keys: &[&str]| {
        at.iter()
            .cloned()
            .chain(keys.iter().map(|k| Step::from(*k)))
            .collect::<Vec<_>>()
    };
    kind_is_one(check, at, health);
    if let Some(tls) = &health.tls {
        let at = below(&["tls", "server_name"]);
        server_name(check, &at, tls.server_name.as_deref());
    }
    if let Some(http) = &health.http {
        let legal = |c: char| c.is_ascii_graphic() && c != '#';
        if !http.path.starts_with('/') || !http.path.chars().all(legal) {
            check.expect(
                &below(&["http", "path"]),
                format!("found `{}`", echo(&http.path)),
                "a path that starts with `/`, without blanks and `#`",
            );
        }
        if let Some(host) = &http.host
            && (host.is_empty() || !host.chars().all(|c| c.is_ascii_graphic()))
        {
            let found = format!("found `{}`", echo(host));
            check.expect(&below(&["http", "host"]), found, "a host name");
        }
    }
    if let Some(expect) = health.http.as_ref().and_then(|http| http.expect.as_ref())
        && expect.is_empty()
    {
        check.expect(&below(&["http", "expect"]), "found nothing", "a text");
    }
    let text = health.agent.as_ref().and_then(|agent| agent.send.as_ref());
    if let Some(length) = text.map(String::len).filter(|l| *l > MAX_AGENT_TEXT) {
        let found = format!("found {length} bytes");
        let expected = format!("at most {MAX_AGENT_TEXT}");
        check.expect(&below(&["agent", "send"]), found, expected);
    }
}

/// Checks that the kind is `tcp`, `http`, `tls`, or `http` over `tls`.
fn kind_is_one(check: &mut Check<'_>, at: &[Step], health: &Health) {
    let kinds = (&health.tcp, &health.http, &health.tls);
    match kinds {
        (None, None, None) => check.on_key(
            at,
            "neither `tcp` nor `http` nor `tls`",
            "`tcp: {}`, `tls: {}` or `http: { path: … }`",
        ),
        (Some(_), Some(_), _) => check.on_key(at, "both `tcp` and `http`", "one of them"),
        (Some(_), _, Some(_)) => check.on_key(at, "both `tcp` and `tls`", "one of them"),
        _ => {}
    }
    if let (_, Some(http), Some(tls)) = kinds
        && http.port.is_some()
        && tls.port.is_some()
    {
        check.on_key(at, "`port` in both `http` and `tls`", "one of them");
    }
}
