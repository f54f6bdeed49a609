//! Nodes and listeners as they are to be: made by a plan, taken over by what runs.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::units::Rate;
use crate::config::{self, Health};
use crate::route::Table;
use crate::tls::TlsFront;
use crate::upstream::Node;
use crate::upstream::flow_limiter::Limits;

/// A node to run.
pub struct PlannedNode {
    /// The node: the running one if nothing of it changes.
    pub node: Arc<Node>,
    /// Whether it runs already.
    pub runs: bool,
    /// Its section of the configuration.
    pub conf: config::Node,
    /// Its health check.
    pub health: Option<Health>,
    /// Limits of the flows that the balancer gives it.
    pub limits: Limits,
    /// Rate at which its flows are closed when it goes Down.
    pub evict_rate: Option<Rate>,
    /// Whether it joins a pool that has flows, so that it starts slowly.
    pub joins: bool,
}

/// A listener to run.
pub struct PlannedListener {
    /// Its section of the configuration.
    pub conf: config::Listener,
    /// Its decision table.
    pub table: Table,
    /// Whether the running listener of that name takes this over.
    pub runs: bool,
    /// Its certificates, if it does not run yet.
    pub tls: Option<TlsFront>,
    /// Sockets to add to it.
    pub sockets: Vec<(SocketAddr, TcpListener)>,
}
