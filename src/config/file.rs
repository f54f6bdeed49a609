//! The whole configuration, and the block `admin`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

use super::address::Bind;
use super::error::ConfigError;
use super::units::{Share, Span};
use super::{
    Certificate, Listener, Log, Memory, Node, Pool, Resolvers, SharedState, Tickets, UnixSocket,
    defaults,
};

/// The whole configuration.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
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
    /// Most client connections at once; for further ones idle ones make room.
    #[serde(default = "defaults::max_connections")]
    pub max_connections: NonZeroUsize,
    /// Most of the connections, descriptors and local ports of this process that one client may hold.
    #[serde(default = "defaults::client_share")]
    pub client_share: Share,
    /// Memory above which new clients are refused.
    #[serde(default)]
    pub memory: Memory,
    /// Time between "not ready" and the closing of the listeners after a stop signal.
    #[serde(default = "defaults::drain_delay")]
    pub drain_delay: Span,
    /// Longest time live flows go on after a stop signal.
    #[serde(default = "defaults::drain_deadline")]
    pub drain_deadline: Span,
    /// Unix socket over which a successor takes the listening sockets (`-u`); absent: no upgrade.
    #[serde(default)]
    pub upgrade_socket: Option<PathBuf>,
    /// File with the number of the serving process; absent: none.
    #[serde(default)]
    pub pid_file: Option<PathBuf>,
    /// User that a process started by root becomes; absent: it stays root.
    #[serde(default)]
    pub user: Option<String>,
    /// Store that the edges of a site share; absent: this edge is alone.
    #[serde(default)]
    pub state: Option<SharedState>,
    /// DNS servers that look host names up.
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
    /// Files and folders whose blocks are part of this configuration; relative paths start at the file's folder.
    #[serde(default)]
    pub include: Vec<PathBuf>,
    /// Folder of the file; relative paths in it are below this.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Values of the environment in it, each with its variable as the file writes it.
    #[serde(skip)]
    pub environment: Vec<(String, String)>,
    /// What an operator should look at, although it is legal; shown by `check` and in the log.
    #[serde(skip)]
    pub warnings: Vec<ConfigError>,
}

/// The admin endpoint.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address to bind; anything but loopback and Unix sockets requires a token.
    #[serde(deserialize_with = "Bind::read", serialize_with = "Bind::write")]
    pub bind: SocketAddr,
    /// Who may connect to its Unix socket.
    #[serde(default)]
    pub unix: UnixSocket,
    /// File whose first line is the bearer token that every request must carry.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Health and metrics at an address of their own, without token; absent: only at `bind`.
    #[serde(default)]
    pub health: Option<AdminHealth>,
}

/// Health and metrics at an address of their own, for balancers and collectors that send no token.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AdminHealth {
    /// Address to bind; it needs no token.
    pub bind: SocketAddr,
    /// Which of the paths are served there.
    #[serde(default = "HealthPath::all")]
    pub paths: Vec<HealthPath>,
}

/// A path that is served without token.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HealthPath {
    /// `/livez`: whether the process lives.
    Livez,
    /// `/readyz`: whether new clients should come here.
    Readyz,
    /// `/metrics`.
    Metrics,
}

impl HealthPath {
    /// The default: every path.
    fn all() -> Vec<HealthPath> {
        vec![HealthPath::Livez, HealthPath::Readyz, HealthPath::Metrics]
    }
}
