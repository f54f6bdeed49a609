//! The nodes and listeners of a plan, ready to be put in force.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use pushgate_plugins::api::NodeId;

use crate::config::units::Rate;
use crate::config::{self, Health};
use crate::listener::accept::PreparedLoop;
use crate::proxy::listener::Listener;
use crate::route::Table;
use crate::tls::Acceptors;
use crate::upstream::Node;
use crate::upstream::flow_limiter::Limits;
use crate::upstream::tls::Secure;

/// A node to run.
pub struct PlannedNode {
    /// The node: the running one if nothing of it changes.
    pub node: Arc<Node>,
    /// TLS settings for the running node, read anew from its files.
    pub tls: Option<Secure>,
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
    /// Address of this machine from which it is connected to.
    pub source: Option<IpAddr>,
    /// Whether it joins a pool that has flows, so that it starts slowly.
    pub joins: bool,
}

/// Makes one server of the nodes whose sections say so, so that the balancer counts their flows together.
pub fn join_servers(nodes: &HashMap<NodeId, PlannedNode>) {
    let server = |p: &PlannedNode| NodeId::of(p.conf.server.as_ref().unwrap_or(&p.node.name));
    let mut servers: HashMap<NodeId, Vec<&Node>> = HashMap::new();
    for planned in nodes.values() {
        servers
            .entry(server(planned))
            .or_default()
            .push(&planned.node);
    }
    for of in servers.values() {
        for node in of {
            let others = of.iter().filter(|other| other.id != node.id);
            node.load.join(others.map(|other| &other.load));
        }
    }
}

/// A listener to run.
pub struct PlannedListener {
    /// Its section of the configuration.
    pub conf: config::Listener,
    /// The running listener of that name if it can take the section over, else a new one.
    pub listener: Arc<Listener>,
    /// The changes of the running listener; `None`: the listener is new.
    pub change: Option<ListenerChange>,
    /// The accept loops of its new addresses, prepared but not started.
    pub loops: Vec<PreparedLoop>,
}

/// The changed parts of a running listener.
pub struct ListenerChange {
    /// Its routing table.
    pub table: Table,
    /// Certificates, where TLS ends here.
    pub acceptors: Option<Acceptors>,
}
