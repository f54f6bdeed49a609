//! Finds nodes by DNS: the source, its answer, and which members of a pool are in it.
//!
//! In: names. Out: addresses with weights, sorted by address, so that an answer in another order changes
//! nothing. A failed lookup gives a reason, and the last good answer stays.
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

/// Most nodes of one name. Further ones, by address, are left out and logged.
pub const MAX_NODES: usize = 1_000;

/// The question to DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Source {
    /// The name.
    pub name: HostName,
    /// The port of all its addresses; `None`: SRV records give it.
    pub port: Option<u16>,
    /// Which address families are used.
    pub family: Family,
}

/// The form of logs, metrics and API: `push.internal:80`, `_push._tcp.internal`.
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
    /// Share against the other addresses, from 1.
    pub weight: u32,
    /// The host that has the address, as its certificate names it.
    pub host: String,
}

/// A good answer: 1 to [`MAX_NODES`] different addresses, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Answer {
    /// The addresses.
    pub targets: Vec<Target>,
    /// How long the answer may be used, between `min_ttl` and `max_ttl`.
    pub ttl: Duration,
    /// Records left out: unusable addresses, and those beyond [`MAX_NODES`].
    pub left_out: usize,
}

/// Why a lookup has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// The name does not exist.
    #[error("no such name")]
    NoName,
    /// The name has no records of the wanted type.
    #[error("the name has no such records")]
    Empty,
    /// No node can have any of the addresses, or `allow` does not contain them.
    #[error("none of its {0} records has an address that a node can have")]
    Unusable(usize),
    /// The server refused or failed; its response code.
    #[error("the DNS server answered: {0}")]
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
