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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name.
    NoName,
    /// The name has no such records.
    Empty,
    /// All addresses are such as no node can have, or `allow` does not name them.
    Unusable(usize),
    /// The server refused or failed; its word for it.
    Server(String),
    /// No server answered in time.
    Timeout,
    /// The lookup itself failed.
    Io(String),
}

impl Failure {
    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::NoName => "no_name",
            Failure::Empty => "empty",
            Failure::Unusable(_) => "unusable",
            Failure::Server(_) => "server",
            Failure::Timeout => "timeout",
            Failure::Io(_) => "error",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoName => f.write_str("no such name"),
            Failure::Empty => f.write_str("the name has no such records"),
            Failure::Unusable(n) => write!(f, "{n} records, none of which a node can have"),
            Failure::Server(said) => write!(f, "the server said: {said}"),
            Failure::Timeout => f.write_str("no answer in time"),
            Failure::Io(e) => f.write_str(e),
        }
    }
}
