//! Nodes that DNS knows: what is asked, what an answer says, and who of a pool is in it.
//!
//! In: names. Out: addresses with weights, in an order of their own, so that an answer that only changes
//! its order changes nothing. A lookup that fails says why, and leaves the last good answer as it is.
//! Source: FAULTS D66; RFC 1035, RFC 2782.

mod answer;
mod members;
mod resolver;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use members::Members;
pub use resolver::Resolver;

use crate::config::{Family, HostName};

/// Most nodes of one name. What is beyond, by address, is left out and said in the log.
pub const MAX_NODES: usize = 1_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Source {
    /// The name.
    pub name: HostName,
    /// The port of all its addresses; `None`: SRV records say it.
    pub port: Option<u16>,
    /// Which addresses are taken.
    pub family: Family,
}

/// As in logs, metrics and API: `push.internal:80`, `_push._tcp.internal`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// One address of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// Share against the others, from 1.
    pub weight: u32,
    /// The host that has it, as a certificate names it.
    pub host: String,
}

/// A good answer: each address once, by address; at least one, at most [`MAX_NODES`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Answer {
    /// The addresses.
    pub targets: Vec<Target>,
    /// How long it is good for, between `min_ttl` and `max_ttl`.
    pub ttl: Duration,
    /// Records left out: unusable addresses, and those beyond [`MAX_NODES`].
    pub left_out: usize,
}

/// Why a lookup has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// There is no such name.
    #[error("no such name")]
    NoName,
    /// The name has no such records.
    #[error("the name has no such records")]
    Empty,
    /// All addresses are such as no node can have, or `allow` does not name them.
    #[error("{0} records, none of which a node can have")]
    Unusable(usize),
    /// The server refused or failed; its word for it.
    #[error("the server said: {0}")]
    Server(String),
    /// No server answered in time.
    #[error("no answer in time")]
    Timeout,
    /// The lookup itself failed.
    #[error("{0}")]
    Io(String),
}

impl DiscoverError {
    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            DiscoverError::NoName => "no_name",
            DiscoverError::Empty => "empty",
            DiscoverError::Unusable(_) => "unusable",
            DiscoverError::Server(_) => "server",
            DiscoverError::Timeout => "timeout",
            DiscoverError::Io(_) => "error",
        }
    }
}
