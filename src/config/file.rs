//! The whole file, and the blocks about the process itself: `admin`, `log`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

use super::units::Span;
use super::{Certificate, Listener, Node, Pool, Resolvers, Tickets, defaults};

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The admin endpoint; absent: none.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// Where log lines go.
    #[serde(default)]
    pub log: Log,
    /// Threads that carry client bytes; default one per core.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// Most client connections at once; beyond it new ones are closed at once.
    #[serde(default = "defaults::max_connections")]
    pub max_connections: NonZeroUsize,
    /// After a stop signal live flows may go on this long.
    #[serde(default = "defaults::drain_deadline")]
    pub drain_deadline: Span,
    /// Unix socket at which a successor takes the listening sockets over (`-u`); absent: none can.
    #[serde(default)]
    pub upgrade_socket: Option<PathBuf>,
    /// Whom to ask for the addresses of host names.
    #[serde(default)]
    pub resolvers: Resolvers,
    /// Push servers by name.
    #[serde(default)]
    pub nodes: BTreeMap<String, Node>,
    /// Pools of nodes by name.
    #[serde(default)]
    pub pools: BTreeMap<String, Pool>,
    /// Certificates by name.
    #[serde(default)]
    pub certificates: BTreeMap<String, Certificate>,
    /// Keys of TLS session tickets.
    #[serde(default)]
    pub tickets: Tickets,
    /// Sockets clients reach.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Folder of the file; relative paths in it are below this.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// The admin endpoint.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address to bind; anything but loopback requires a token.
    pub bind: SocketAddr,
    /// File whose first line is the bearer token that every request must carry.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// Where log lines go.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// JSON access lines, one at each flow's end.
    #[serde(default)]
    pub access: AccessLog,
    /// Writes the query string too. Push clients put passwords there; off by default.
    #[serde(default)]
    pub query: bool,
}

/// Destination of the access log.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// No access log.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to; opened again on SIGUSR1.
    File(PathBuf),
}
