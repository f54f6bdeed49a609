//! Expands a configuration by the nodes that DNS has found.
//!
//! In: the file's configuration and the answers of DNS. Out: the same with addresses for host names, and with
//! the members of pools that discover. A found node is named by pool and address. So stickiness, orders and
//! metrics survive a different order of records, a reload and a binary upgrade. Source: FAULTS D66.

use std::net::SocketAddr;
use std::time::Instant;

use super::following::{Following, FoundNodes};
use crate::config::{self, Address, Config, Discover, Family, Found, HostPort, NodeTls};
use crate::upstream::discover::Source;

/// Returns the DNS source of a node with a host name.
pub(super) fn source_of_host(host: &HostPort) -> Source {
    Source {
        name: host.host.clone(),
        port: Some(host.port),
        family: Family::Auto,
    }
}

/// Returns the DNS source of a pool.
pub(super) fn source_of(block: &Discover) -> Option<Source> {
    let family = block.family;
    match (&block.host, &block.srv) {
        (Some(host), _) => Some(Source {
            family,
            ..source_of_host(host)
        }),
        (None, Some(srv)) => Some(Source {
            name: srv.clone(),
            port: None,
            family,
        }),
        (None, None) => None,
    }
}

/// Returns the name of a pool's node at this address, like `push-10.0.0.1-80`.
pub(super) fn node_name(pool: &str, address: SocketAddr) -> String {
    let ip = address.ip().to_string().replace(':', "-");
    format!("{pool}-{ip}-{}", address.port())
}

/// A configuration with the nodes that are found now.
pub struct Expanded {
    /// The configuration.
    pub config: Config,
    /// Its nodes that were found, for [`Discovery::found`](super::Discovery::found).
    pub found: FoundNodes,
}

/// Returns `config` with the nodes that `following` knows. Changes nothing there, because the result may be
/// refused.
pub(super) fn expand(config: &Config, following: &Following, now: Instant) -> Expanded {
    let mut out = config.clone();
    let mut found = following.found.clone();
    for (name, node) in &mut out.nodes {
        if let Address::Host(host) = node.address.clone() {
            find_node(name, node, &host, following, &mut found);
        }
    }
    for (name, conf) in &config.pools {
        let Some(block) = &conf.discover else {
            continue;
        };
        let Some(source) = source_of(block) else {
            continue;
        };
        let answer = following.answer(&source);
        let members = found.pools.entry(name.clone()).or_default();
        if let Some(answer) = answer {
            members.answered(&answer.targets, now);
        }
        for member in members.all() {
            let target = &member.target;
            let own = node_name(name, target.address);
            let node = config::Node {
                weight: target.weight,
                tls: named(&block.tls, &target.host),
                tcp: block.tcp,
                found: Some(Found {
                    source: source.to_string(),
                    leaving: member.is_leaving(),
                }),
                ..config::Node::at(target.address)
            };
            // A node in the file with this name takes precedence.
            out.nodes.entry(own.clone()).or_insert(node);
            let pool = out.pools.get_mut(name).into_iter();
            pool.filter(|p| !p.nodes.contains(&own))
                .for_each(|p| p.nodes.push(own.clone()));
        }
    }
    Expanded { config: out, found }
}

/// Gives a node an address of its host name: the current one while the answer has it, otherwise the first.
fn find_node(
    name: &str,
    node: &mut config::Node,
    host: &HostPort,
    following: &Following,
    found: &mut FoundNodes,
) {
    let source = source_of_host(host);
    let Some(answer) = following.answer(&source) else {
        return;
    };
    let of_before = found.nodes.get(name).copied();
    let stays = of_before.filter(|a| answer.targets.iter().any(|t| t.address == *a));
    let Some(address) = stays.or(answer.targets.first().map(|t| t.address)) else {
        return;
    };
    found.nodes.insert(name.to_owned(), address);
    node.address = Address::Socket(address);
    node.tls = named(&node.tls, host.host.bare());
    node.found = Some(Found {
        source: source.to_string(),
        leaving: false,
    });
}

/// Returns TLS settings that verify the name `host`, unless the file names another.
fn named(tls: &Option<NodeTls>, host: &str) -> Option<NodeTls> {
    tls.clone().map(|tls| NodeTls {
        server_name: tls.server_name.or_else(|| Some(host.to_owned())),
        ..tls
    })
}
