//! Works out what a configuration needs, and binds it, before anything running is changed.
//!
//! In: a checked [`Config`] and what runs. Out: a [`Plan`] that can be put in force, or the first thing that the
//! system refuses. A plan reads files and builds TLS contexts, so it is made on a file thread. Source: FAULTS D67, D68.

mod before;
mod inherited;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{NodeId, PoolId};
use pushgate_plugins::context::{Build, Keep};
use pushgate_plugins::unix::Shown;

pub use before::Before;
pub use inherited::{evict_rate_of, health_of, source_of};
use inherited::{limits_of, pools_of};

use super::node_tls::secure;
use super::planned::{ListenerChange, PlannedListener, PlannedNode, join_servers};
use super::sockets::Sockets;
use crate::balance::Pool;
use crate::config::{self, Config, OnDown};
use crate::listener::accept;
use crate::listener::edge::Edge;
use crate::proxy::listener::Listener;
use crate::route::Table;
use crate::tls::tickets::{NewTickets, Ring};
use crate::tls::{Store, TlsFront};
use crate::upstream::Node;
use crate::upstream::health::probe::own_tls;

/// Everything to run.
pub struct Plan {
    /// Nodes.
    pub nodes: HashMap<NodeId, PlannedNode>,
    /// Pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// Listeners.
    pub listeners: Vec<PlannedListener>,
    /// Certificates.
    pub store: Store,
    /// Keys of session tickets: the running ones, if they exist.
    pub ring: Arc<Ring>,
    /// The section and keys that the ring takes over.
    pub tickets: NewTickets,
}

impl Plan {
    /// Works out what to change so that `config` runs. `sockets` are those bound already.
    ///
    /// Errors: an address that cannot be bound, a certificate that cannot be loaded, no descriptor left.
    pub fn new(
        config: &Config,
        before: &Before,
        keep: &Keep,
        edge: &Arc<Edge>,
        sockets: Sockets,
    ) -> Result<Plan, String> {
        let store = Store::load(config, &before.store).map_err(|e| e.to_string())?;
        let mut nodes = nodes_for(config, before, &store)?;
        nodes.retain(|_, n| n.conf.address.socket().is_some());
        let pools = pools_for(config, &nodes, before);
        mark_joining(&mut nodes, &pools, before);
        let ring = match (&before.ring, &before.tickets) {
            (Some(ring), _) => Ok(ring.clone()),
            (None, Some(exported)) => Ring::import(config, exported),
            (None, None) => Ring::new(config),
        };
        let mut plan = Plan {
            pools: Arc::new(pools),
            nodes,
            listeners: Vec::new(),
            store,
            ring: ring.map_err(|e| e.to_string())?,
            tickets: NewTickets::read(config).map_err(|e| e.to_string())?,
        };
        plan.add_listeners(config, before, keep, edge, sockets)?;
        Ok(plan)
    }

    fn add_listeners(
        &mut self,
        config: &Config,
        before: &Before,
        keep: &Keep,
        edge: &Arc<Edge>,
        mut sockets: Sockets,
    ) -> Result<(), String> {
        let by_id = by_id(&self.nodes);
        for conf in &config.listeners {
            let table = table(config, conf, keep, &self.pools, &by_id)?;
            let old = before.same(conf);
            let (listener, change) = match old {
                Some(old) => {
                    let tls = old.listener.tls.as_ref();
                    let acceptors = tls.map(|tls| tls.prepare(conf, &self.store, &config.dir));
                    let acceptors = acceptors.transpose().map_err(|e| e.to_string())?;
                    let change = ListenerChange { table, acceptors };
                    (old.listener.clone(), Some(change))
                }
                None => {
                    let front =
                        |_| TlsFront::new(conf, &self.store, self.ring.clone(), &config.dir);
                    let tls = conf.tls.as_ref().map(front).transpose();
                    let tls = tls.map_err(|e| e.to_string())?;
                    (Listener::new(conf, table, tls), None)
                }
            };
            let mut loops = Vec::new();
            for address in &conf.bind {
                if old.is_some_and(|old| old.addresses.contains(address)) {
                    continue;
                }
                let socket = socket(*address, conf, &mut sockets)?;
                let prepared = edge.prepare(*address, socket, &listener);
                loops.push(prepared.map_err(|e| format!("{}: {e}", Shown(*address)))?);
            }
            self.listeners.push(PlannedListener {
                conf: conf.clone(),
                listener,
                change,
                loops,
            });
        }
        Ok(())
    }
}

/// Returns each listener's table, in the file's order, for `explain` and `simulate`. Nothing
/// is bound or checked, and all nodes are Up.
///
/// Errors: a certificate or another file that went away since the file was checked.
pub fn tables(config: &Config, keep: &Keep) -> Result<Vec<Table>, String> {
    let store = Store::load(config, &Store::default()).map_err(|e| e.to_string())?;
    let before = &Before::default();
    let nodes = nodes_for(config, before, &store)?;
    for planned in nodes.values() {
        planned.node.set_limits(planned.limits, Instant::now());
    }
    join_servers(&nodes);
    let pools = Arc::new(pools_for(config, &nodes, before));
    let by_id = by_id(&nodes);
    let listeners = config.listeners.iter();
    listeners
        .map(|conf| table(config, conf, keep, &pools, &by_id))
        .collect()
}

impl Plan {
    /// Calls `look` with each routing table that it puts in force.
    pub fn each_table(&self, mut look: impl FnMut(&Table)) {
        for l in &self.listeners {
            match &l.change {
                Some(change) => look(&change.table),
                None => look(&l.listener.table.load()),
            }
        }
    }
}

/// The changes when only discovered nodes differ: listeners, certificates and sockets stay.
pub struct Shift {
    /// Nodes.
    pub nodes: HashMap<NodeId, PlannedNode>,
    /// Pools; a pool whose nodes are the same is the running one.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// Decision tables by the listener's name.
    pub tables: Vec<(String, Table)>,
}

impl Shift {
    /// Works out the changes to `config`, the running configuration with the nodes found now.
    ///
    /// Errors: a file that a plugin or a node's TLS reads went away.
    pub fn new(config: &Config, before: &Before, keep: &Keep) -> Result<Shift, String> {
        let mut nodes = nodes_for(config, before, &before.store)?;
        nodes.retain(|_, n| n.conf.address.socket().is_some());
        let mut pools = pools_for(config, &nodes, before);
        mark_joining(&mut nodes, &pools, before);
        for (id, pool) in &mut pools {
            let Some(old) = before.pools.get(id) else {
                continue;
            };
            let mut both = pool.nodes.iter().zip(&old.nodes);
            if pool.nodes.len() == old.nodes.len() && both.all(|(a, b)| Arc::ptr_eq(a, b)) {
                *pool = old.clone();
            }
        }
        let (pools, by_id) = (Arc::new(pools), by_id(&nodes));
        let tables = config.listeners.iter().map(|conf| {
            let table = table(config, conf, keep, &pools, &by_id)?;
            Ok((conf.name.clone(), table))
        });
        let tables = tables.collect::<Result<_, String>>()?;
        Ok(Shift {
            nodes,
            pools,
            tables,
        })
    }
}

fn by_id(nodes: &HashMap<NodeId, PlannedNode>) -> Arc<HashMap<NodeId, Arc<Node>>> {
    let all = nodes.iter().map(|(id, n)| (*id, n.node.clone()));
    Arc::new(all.collect())
}

/// Returns the socket of an address: bound before, taken over from another listener, or bound now.
fn socket(
    address: SocketAddr,
    conf: &config::Listener,
    sockets: &mut Sockets,
) -> Result<TcpListener, String> {
    match sockets.remove(&address) {
        Some(socket) => Ok(socket),
        None => accept::bind(address, Some(&accept::options(conf)), &conf.unix)
            .map_err(|e| format!("cannot bind {}: {e}", Shown(address))),
    }
}

fn nodes_for(
    config: &Config,
    before: &Before,
    store: &Store,
) -> Result<HashMap<NodeId, PlannedNode>, String> {
    let one = |(name, conf): (&String, &config::Node)| {
        let id = NodeId::of(name);
        let on_down = pools_of(config, name)
            .next()
            .map_or(OnDown::default(), |p| p.on_down);
        let tls = secure(config, conf, store).map_err(|e| format!("node {name}: tls: {e}"))?;
        let same = before.nodes.get(&id).filter(|node| {
            let same_tls = match (&node.tls, &tls) {
                (None, None) => true,
                (Some(old), Some(new)) => old.is_same(new),
                _ => false,
            };
            same_tls && Some(node.address) == conf.address.socket() && node.on_down == on_down
        });
        let health = health_of(config, name).cloned();
        if let (Some(health), Some(address), None) = (&health, conf.address.socket(), &tls) {
            own_tls(health, address).map_err(|e| format!("node {name}: health.tls: {e}"))?;
        }
        let runs = same.is_some();
        let (node, tls) = match same {
            Some(node) => (node.clone(), tls),
            None => (Node::new(name, conf, on_down, tls), None),
        };
        let planned = PlannedNode {
            node,
            tls,
            runs,
            conf: conf.clone(),
            health,
            limits: limits_of(config, name, conf),
            evict_rate: evict_rate_of(config, name),
            source: source_of(config, name, conf),
            joins: false,
        };
        Ok((id, planned))
    };
    config.nodes.iter().map(one).collect()
}

fn pools_for(
    config: &Config,
    nodes: &HashMap<NodeId, PlannedNode>,
    before: &Before,
) -> HashMap<PoolId, Arc<Pool>> {
    let one = |(name, conf): (&String, &config::Pool)| {
        let members = conf.nodes.iter().filter_map(|n| nodes.get(&NodeId::of(n)));
        let pool = Pool::new(name, conf, members.map(|n| n.node.clone()).collect());
        let pool = match before.pools.get(&pool.id) {
            Some(before) => pool.after(before),
            None => pool,
        };
        (pool.id, Arc::new(pool))
    };
    config.pools.iter().map(one).collect()
}

/// Marks new nodes of pools that had nodes before (by the pool's name, or by nodes that run):
/// they have flows.
fn mark_joining(
    nodes: &mut HashMap<NodeId, PlannedNode>,
    pools: &HashMap<PoolId, Arc<Pool>>,
    before: &Before,
) {
    for (id, pool) in pools {
        let before = before.pools.get(id);
        let runs = |n: &Arc<Node>| nodes.get(&n.id).is_some_and(|p| p.runs);
        let had_nodes = before.is_some_and(|p| !p.nodes.is_empty());
        if had_nodes || pool.nodes.iter().any(runs) {
            for member in &pool.nodes {
                if let Some(n) = nodes.get_mut(&member.id) {
                    n.joins = !n.runs;
                }
            }
        }
    }
}

fn table(
    config: &Config,
    conf: &config::Listener,
    keep: &Keep,
    pools: &Arc<HashMap<PoolId, Arc<Pool>>>,
    nodes: &Arc<HashMap<NodeId, Arc<Node>>>,
) -> Result<Table, String> {
    let node_names: Vec<&str> = config.nodes.keys().map(String::as_str).collect();
    let pool_names: Vec<(&str, &[String])> = config
        .pools
        .iter()
        .map(|(n, p)| (n.as_str(), p.nodes.as_slice()))
        .collect();
    let build = Build {
        listener: &conf.name,
        mode: conf.mode,
        tls: conf.tls.is_some(),
        nodes: &node_names,
        pools: &pool_names,
        dir: &config.dir,
        keep,
    };
    let mut plugins = Vec::new();
    for block in &conf.plugins {
        // The file check has built each plugin once, so an error means that a file has gone since.
        let plugin = block.build(&build).map_err(|faults| {
            let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
            format!(
                "listener {}: {}: {}",
                conf.name,
                block.as_str(),
                said.join("; ")
            )
        })?;
        plugins.push((block.as_str(), plugin));
    }
    let forwards = conf.plugins.iter().any(|p| p.as_str() == "forwarded");
    Ok(Table {
        plugins: plugins.into_iter().collect(),
        hides_forwarding: !forwards && !conf.pass_forwarded,
        default: conf.to.as_deref().and_then(|to| build.target(to)),
        pools: pools.clone(),
        nodes: nodes.clone(),
    })
}
