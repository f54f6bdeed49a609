//! Options of sockets: those of clients, and those towards nodes.

use pushgate_plugins::bounds::AboveZero;
use serde::Deserialize;

use super::units::Span;
use super::{bounds, defaults};

/// Options of the clients' sockets.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TcpOptions {
    /// Silence before the first keep-alive probe. Probes find a dead client; they never close a silent one.
    #[serde(
        default = "defaults::keepalive",
        deserialize_with = "bounds::Keepalive::read"
    )]
    pub keepalive: Span,
    /// A client that leaves bytes unacknowledged, and retransmissions or probes unanswered, for this long is dead.
    #[serde(
        default = "defaults::client_user_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub user_timeout: Span,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            keepalive: defaults::KEEPALIVE,
            user_timeout: defaults::CLIENT_USER_TIMEOUT,
        }
    }
}

/// Options of the sockets towards a node.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NodeTcp {
    /// Silence before the first keep-alive probe.
    #[serde(
        default = "defaults::keepalive",
        deserialize_with = "bounds::Keepalive::read"
    )]
    pub keepalive: Span,
    /// A node that leaves bytes unacknowledged, and retransmissions or probes unanswered, for this long is dead.
    #[serde(
        default = "defaults::node_user_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub user_timeout: Span,
}

impl Default for NodeTcp {
    fn default() -> Self {
        NodeTcp {
            keepalive: defaults::KEEPALIVE,
            user_timeout: defaults::NODE_USER_TIMEOUT,
        }
    }
}
