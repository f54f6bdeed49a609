//! What is told of nodes that DNS knows: which names, which of their addresses, whom to ask.

use std::net::SocketAddr;

use pushgate_plugins::bounds::AboveZero;
use pushgate_plugins::trust::Trust;
use serde::{Deserialize, Serialize};

use super::units::Span;
use super::{HostName, HostPort, NodeTcp, NodeTls, defaults};

/// Nodes of a pool that are found by DNS: one for each address.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// A name whose addresses (A, AAAA) are nodes, all at this port.
    #[serde(default)]
    pub host: Option<HostPort>,
    /// A name whose SRV records say hosts, ports and weights; those of the lowest priority are nodes.
    #[serde(default)]
    pub srv: Option<HostName>,
    /// Which addresses are taken.
    #[serde(default)]
    pub family: Family,
    /// A node that left the answer stays this long without a flow: stuck clients find it.
    #[serde(default = "defaults::linger")]
    pub linger: Span,
    /// TLS towards the nodes; absent: plain.
    #[serde(default)]
    pub tls: Option<NodeTls>,
    /// Options of the sockets towards them.
    #[serde(default)]
    pub tcp: NodeTcp,
}

/// Which addresses of a name are taken.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4; IPv6 where there is none: a server with both is one node.
    #[default]
    Auto,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Each address, so that a server with both is two nodes.
    Both,
}

/// Whom to ask for names, and what to believe.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Resolvers {
    /// Servers; none: those of `/etc/resolv.conf`.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// Longest wait for one server's answer.
    #[serde(
        default = "defaults::dns_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub timeout: Span,
    /// An answer is good for at least so long, whatever it says.
    #[serde(default = "defaults::min_ttl", deserialize_with = "AboveZero::read")]
    pub min_ttl: Span,
    /// And at most so long.
    #[serde(default = "defaults::max_ttl", deserialize_with = "AboveZero::read")]
    pub max_ttl: Span,
    /// Networks nodes may be in; none named: any but this machine's own.
    #[serde(default)]
    pub allow: Trust,
}

impl Default for Resolvers {
    fn default() -> Self {
        Resolvers {
            addresses: Vec::new(),
            timeout: defaults::DNS_TIMEOUT,
            min_ttl: defaults::MIN_TTL,
            max_ttl: defaults::MAX_TTL,
            allow: Trust::default(),
        }
    }
}
