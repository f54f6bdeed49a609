//! The block `agent` of a health check: where a program says in words how its node does.

use pushgate_plugins::bounds::AboveZero;
use serde::Deserialize;

use super::units::Span;
use super::{AgentAddress, bounds, defaults};

/// An agent of a node, asked beside the health check.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its port.
    #[serde(deserialize_with = "bounds::Port::read")]
    pub port: u16,
    /// Its address; absent: the node's.
    #[serde(default)]
    pub address: Option<AgentAddress>,
    /// Text that the edge sends first, 256 bytes at most; absent: nothing.
    #[serde(default)]
    pub send: Option<String>,
    /// Pause between two questions, jittered by 10 %.
    #[serde(
        default = "defaults::agent_interval",
        deserialize_with = "AboveZero::read"
    )]
    pub interval: Span,
    /// Deadline of one answer.
    #[serde(
        default = "defaults::agent_timeout",
        deserialize_with = "AboveZero::read"
    )]
    pub timeout: Span,
}
