//! The blocks `discover` and `resolvers`: names to look up, addresses to use, DNS servers to ask.

use std::net::SocketAddr;

use pushgate_plugins::bounds::AboveZero;
use pushgate_plugins::trust::Trust;
use serde::{Deserialize, Serialize};

use super::units::Span;
use super::{HostName, HostPort, NodeTcp, NodeTls, defaults};

/// Nodes of a pool that DNS finds, one for each address.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// A name whose addresses (A, AAAA) are nodes, all at this port.
    #[serde(default)]
    pub host: Option<HostPort>,
    /// A name whose SRV records give hosts, ports and weights; only the lowest priority is used.
    #[serde(default)]
    pub srv: Option<HostName>,
    /// Which addresses become nodes.
    #[serde(default)]
    pub family: Family,
    /// How long a node that left the answer stays without a flow, so that stuck clients find it.
    #[serde(default = "defaults::linger")]
    pub linger: Span,
    /// TLS towards the nodes; absent: plain.
    #[serde(default)]
    pub tls: Option<NodeTls>,
    /// Options of the sockets towards the nodes.
    #[serde(default)]
    pub tcp: NodeTcp,
}

/// Which addresses of a name become nodes.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4, or IPv6 if the name has no IPv4: a server with both is one node.
    #[default]
    Auto,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Each address, so that a server with both is two nodes.
    Both,
}

/// DNS servers to ask, and limits on what they answer.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Resolvers {
    /// DNS servers; empty: those of `/etc/resolv.conf`.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// Longest wait for one server's answer.
    #[serde(
        default = "defaults::dns_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub timeout: Span,
    /// A smaller TTL of an answer counts as this.
    #[serde(default = "defaults::min_ttl", deserialize_with = "AboveZero::read")]
    pub min_ttl: Span,
    /// A larger TTL of an answer counts as this.
    #[serde(default = "defaults::max_ttl", deserialize_with = "AboveZero::read")]
    pub max_ttl: Span,
    /// Networks that found nodes may be in; empty: any but loopback.
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
