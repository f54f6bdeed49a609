//! A configuration with the nodes that are found now.
//!
//! In: what the file says, what DNS answers. Out: the same with addresses for host names, and with the members of
//! pools that discover. The name of a node that is found is made of pool and address, so that
//! stickiness, orders and metrics outlive another order, a reload and another process. Source: FAULTS D66.

use std::net::SocketAddr;
use std::time::Instant;

use super::Following;
use crate::config::{self, Address, Config, Discover, Family, Found, HostPort, NodeTls};
use crate::upstream::discover::{Answer, Source};

/// What a node with a host name asks for.
pub(super) fn source_of_host(host: &HostPort) -> Source {
    Source {
        name: host.host.clone(),
        port: Some(host.port),
        family: Family::Auto,
    }
}

/// What a pool asks for.
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

/// The name of a pool's node at this address, as `push-10.0.0.1-80`.
pub(super) fn node_name(pool: &str, address: SocketAddr) -> String {
    let ip = address.ip().to_string().replace(':', "-");
    format!("{pool}-{ip}-{}", address.port())
}

/// `config` with what `following` knows.
pub(super) fn expand(config: &Config, following: &mut Following, now: Instant) -> Config {
    let mut out = config.clone();
    for (name, node) in &mut out.nodes {
        if let Address::Host(host) = node.address.clone() {
            find_node(name, node, &host, following);
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
        let members = following.pools.entry(name.clone()).or_default();
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
            // One the file names like this is that one.
            out.nodes.entry(own.clone()).or_insert(node);
            let pool = out.pools.get_mut(name).into_iter();
            pool.filter(|p| !p.nodes.contains(&own))
                .for_each(|p| p.nodes.push(own.clone()));
        }
    }
    out
}

/// Gives a node the address its host name has: the one it has, as long as it is in the answer, else the first.
fn find_node(name: &str, node: &mut config::Node, host: &HostPort, following: &mut Following) {
    let source = source_of_host(host);
    let Some(answer) = following.answer(&source) else {
        return;
    };
    let of_before = following.nodes.get(name).copied();
    let stays = of_before.filter(|a| answer.targets.iter().any(|t| t.address == *a));
    let Some(address) = stays.or(answer.targets.first().map(|t| t.address)) else {
        return;
    };
    following.nodes.insert(name.to_owned(), address);
    node.address = Address::Socket(address);
    node.tls = named(&node.tls, host.host.bare());
    node.found = Some(Found {
        source: source.to_string(),
        leaving: false,
    });
}

/// TLS to a node that must prove to be `host`, unless the file says another name.
fn named(tls: &Option<NodeTls>, host: &str) -> Option<NodeTls> {
    tls.clone().map(|tls| NodeTls {
        server_name: tls.server_name.or_else(|| Some(host.to_owned())),
        ..tls
    })
}

impl Following {
    fn answer(&self, source: &Source) -> Option<Answer> {
        self.sources.get(source)?.seen.borrow().answer.clone()
    }
}
