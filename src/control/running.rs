//! What runs: nodes with their checks, pools, listeners with their accept loops; built from a
//! configuration, changed in place by the next one.
//!
//! In: a checked [`Config`]. Out: live listeners. A reload keeps live flows: nodes and listeners
//! that stay are kept, changed or removed ones drain. Source: FAULTS D67, D68.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pushgate_plugins::api::{NodeId, PoolId};
use pushgate_plugins::context::Keep;
use tokio::task::JoinHandle;

use super::admin::Endpoint;
use super::memory::Memory;
use super::plan::{Plan, PlannedListener, PlannedNode};
use super::rebalance::Runs;
use crate::balance::Pool;
use crate::config::{self, Config, Health};
use crate::listener::accept::{self, AcceptLoop, Listener};
use crate::listener::edge::Edge;
use crate::observe::metrics;
use crate::route::Table;
use crate::tls::Store;
use crate::tls::tickets::Ring;
use crate::upstream::health::Checker;
use crate::upstream::state::Order;
use crate::upstream::{Node, State};

/// Time for cut flows to end and be logged.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(200);

/// Sockets bound before the threads exist, by address.
pub type Sockets = HashMap<SocketAddr, TcpListener>;

/// Binds every address of the configuration, and the admin endpoint's, unless its socket is among
/// the `inherited` ones. Those of addresses that are not wanted any more are closed.
///
/// Errors: the address that cannot be bound and why.
pub fn bind_all(config: &Config, mut inherited: Sockets) -> Result<Sockets, String> {
    let listeners = config.listeners.iter().flat_map(|l| l.bind.iter().copied());
    let admin = config.admin.iter().map(|a| a.bind);
    let mut sockets = Sockets::new();
    for address in listeners.chain(admin) {
        let socket = match inherited.remove(&address) {
            Some(socket) => socket,
            None => accept::bind(address).map_err(|e| format!("cannot bind {address}: {e}"))?,
        };
        sockets.insert(address, socket);
    }
    Ok(sockets)
}

/// A node with its check loop.
pub struct Checked {
    /// The node.
    pub node: Arc<Node>,
    /// Its section.
    pub conf: config::Node,
    health: Option<Health>,
    task: JoinHandle<()>,
}

impl Checked {
    /// Ends the check loop; a node that does not stay drains.
    fn end(&self, stays: bool) {
        self.task.abort();
        if !stays {
            self.node.order(Order::Drain);
        }
    }
}

/// A listener with its accept loops.
pub struct Listening {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its section.
    pub conf: config::Listener,
    /// One loop for each address.
    pub loops: Vec<AcceptLoop>,
}

impl Listening {
    /// Takes over a changed section. Certificates that cannot be loaded leave the old ones serving.
    fn change(&mut self, conf: &config::Listener, table: Table, store: &Store, dir: &Path) {
        if let Some(tls) = &self.listener.tls
            && let Err(e) = tls.reload(conf, store, dir)
        {
            log::error!("listener {}: {e}", conf.name);
        }
        self.listener.change(conf, table);
        self.loops.retain(|a| conf.bind.contains(&a.asked));
        self.conf = conf.clone();
    }
}

/// First checks of new nodes, all at once: their verdicts are there before the first flow.
async fn first_checks(plan: &Plan) {
    let fresh = plan.nodes.values().filter(|n| !n.runs);
    let running: Vec<_> = fresh
        .map(|n| {
            let checker = Checker::new(n.node.clone(), n.health.as_ref());
            tokio::spawn(async move { checker.first().await })
        })
        .collect();
    for check in running {
        let _ = check.await;
    }
}

/// All that runs.
#[derive(Default)]
pub struct Parts {
    /// Nodes.
    pub nodes: HashMap<NodeId, Checked>,
    /// Pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// Listeners by name.
    pub listeners: HashMap<String, Listening>,
    /// Certificates.
    pub store: Store,
    /// Keys of session tickets.
    pub ring: Option<Arc<Ring>>,
    /// The admin endpoint, which goes on through a drain.
    pub admin: Option<Endpoint>,
    /// Orders another process left, until the nodes are there.
    orders: Vec<(String, Order)>,
    /// Ticket keys another process left, until the ring is there.
    pub tickets: Option<Vec<u8>>,
    /// The configuration all of it is built from.
    pub config: Option<Arc<Config>>,
}

impl Parts {
    /// Starts checking new nodes, lets those drain that are gone.
    fn settle_nodes(&mut self, planned: HashMap<NodeId, PlannedNode>) {
        let mut old = std::mem::take(&mut self.nodes);
        for (id, p) in planned {
            let same = |c: &Checked| Arc::ptr_eq(&c.node, &p.node) && c.health == p.health;
            let task = match old.remove(&id) {
                Some(c) if same(&c) => c.task,
                other => {
                    other
                        .into_iter()
                        .for_each(|c| c.end(Arc::ptr_eq(&c.node, &p.node)));
                    tokio::spawn(Checker::new(p.node.clone(), p.health.as_ref()).run())
                }
            };
            let PlannedNode {
                node, conf, health, ..
            } = p;
            node.set_limits(p.limits, Instant::now());
            node.set_evict_rate(p.evict_rate);
            node.set_tcp(conf.tcp);
            self.nodes.insert(
                id,
                Checked {
                    node,
                    conf,
                    health,
                    task,
                },
            );
        }
        old.into_values().for_each(|gone| gone.end(false));
    }

    /// Gives the nodes the orders that another process left.
    fn settle_orders(&mut self) {
        for (name, order) in std::mem::take(&mut self.orders) {
            if let Some(checked) = self.nodes.get(&NodeId::of(&name)) {
                checked.node.order(order);
            }
        }
    }

    fn settle_tickets(&mut self, ring: Arc<Ring>, config: &Config) {
        // The file check has read the keys; what fails now is a file that went away since.
        if let Err(e) = ring.reload(config) {
            log::error!("session tickets: {e}");
        }
        self.ring = Some(ring);
        self.tickets = None;
    }

    /// Changes, adds and removes listeners. A removed one stops accepting; its connections go on.
    fn settle_listeners(
        &mut self,
        planned: Vec<PlannedListener>,
        config: &Config,
        edge: &Arc<Edge>,
    ) -> Result<(), String> {
        let stays = |name: &String| planned.iter().any(|p| p.runs && p.conf.name == *name);
        self.listeners.retain(|name, _| stays(name));
        for p in planned {
            let l = match self.listeners.remove(&p.conf.name) {
                Some(mut old) => {
                    old.change(&p.conf, p.table, &self.store, &config.dir);
                    old
                }
                None => Listening {
                    listener: Listener::new(&p.conf, p.table, p.tls),
                    conf: p.conf.clone(),
                    loops: Vec::new(),
                },
            };
            let l = self.listeners.entry(p.conf.name).or_insert(l);
            for (asked, socket) in p.sockets {
                let started = AcceptLoop::start(asked, socket, l.listener.clone(), edge.clone());
                l.loops.push(started.map_err(|e| format!("{asked}: {e}"))?);
            }
        }
        Ok(())
    }
}

/// The running proxy.
pub struct Running {
    edge: Arc<Edge>,
    path: Option<PathBuf>,
    pub(super) keep: Keep,
    /// Notified when another process has taken over: this one is to drain.
    pub relieved: tokio::sync::Notify,
    parts: Mutex<Parts>,
    /// Rebalances, running and over.
    pub(super) rebalances: Runs,
    /// One reload at a time; holds the lock across its checks.
    reloading: tokio::sync::Mutex<()>,
    drain: tokio::sync::watch::Sender<bool>,
}

impl Running {
    /// Nothing runs yet. `path` is the file a reload reads; `memory` is another process's.
    pub fn new(
        edge: Arc<Edge>,
        path: Option<PathBuf>,
        drain: tokio::sync::watch::Sender<bool>,
        memory: Memory,
    ) -> Arc<Self> {
        let parts = Parts {
            orders: memory.orders,
            tickets: memory.tickets,
            ..Parts::default()
        };
        Arc::new(Running {
            edge,
            path,
            keep: Keep::inherit(memory.kept),
            relieved: tokio::sync::Notify::new(),
            parts: Mutex::new(parts),
            rebalances: Runs::default(),
            reloading: tokio::sync::Mutex::default(),
            drain,
        })
    }

    /// Reads the file again and changes what runs.
    ///
    /// Errors: every fault of the file, or an address that cannot be bound; what ran goes on.
    pub async fn reload(&self) -> Result<(), String> {
        let Some(path) = &self.path else {
            return Err("started without a file".into());
        };
        let result = match Config::load(path) {
            Ok(config) => self.apply(Arc::new(config), Sockets::new()).await,
            Err(faults) => Err(faults.to_string()),
        };
        metrics::get().reload_ok.set(result.is_ok().into());
        match &result {
            Ok(()) => log::info!("configuration loaded again"),
            Err(e) => log::error!("configuration not loaded again, the old one stays:\n{e}"),
        }
        result
    }

    /// Makes `config` what runs. `sockets`: those bound already.
    ///
    /// Errors: as [`Plan::new`]; nothing was changed then.
    pub async fn apply(&self, config: Arc<Config>, sockets: Sockets) -> Result<(), String> {
        let _one = self.reloading.lock().await;
        let plan = Plan::new(&config, &self.parts.lock(), &self.keep, sockets)?;
        first_checks(&plan).await;
        {
            let mut parts = self.parts.lock();
            parts.settle_nodes(plan.nodes);
            parts.settle_orders();
            parts.pools = plan.pools;
            parts.store = plan.store;
            parts.settle_tickets(plan.ring, &config);
            parts.settle_listeners(plan.listeners, &config, &self.edge)?;
            parts.config = Some(config);
        }
        self.keep.sweep();
        metrics::get().reload_ok.set(1);
        metrics::get().certificates_ok.set(1);
        Ok(())
    }

    /// The file a reload reads.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Takes the running admin endpoint into its keeping.
    pub fn administer(&self, endpoint: Endpoint) {
        self.parts.lock().admin = Some(endpoint);
    }

    /// Closes the admin endpoint, because its address is another process's now.
    pub fn leave_admin(&self) {
        self.parts.lock().admin = None;
    }

    /// What runs, for the watch and the admin endpoint.
    pub(super) fn parts(&self) -> parking_lot::MutexGuard<'_, Parts> {
        self.parts.lock()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self
            .parts
            .lock()
            .nodes
            .values()
            .map(|c| c.node.clone())
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// All pools.
    pub fn pools(&self) -> Arc<HashMap<PoolId, Arc<Pool>>> {
        self.parts.lock().pools.clone()
    }

    /// Addresses in use, with their listener's name.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let parts = self.parts.lock();
        let all = parts.listeners.values();
        all.flat_map(|l| l.loops.iter().map(|a| (l.conf.name.clone(), a.bound)))
            .collect()
    }

    /// Why new clients should not be sent here, if they should not.
    pub fn unready(&self) -> Option<String> {
        if *self.drain.borrow() {
            return Some("draining".into());
        }
        let parts = self.parts.lock();
        let dead = parts
            .pools
            .values()
            .find(|p| p.nodes.iter().all(|n| n.state() == State::Down));
        dead.map(|p| format!("pool {} has no node", p.name))
    }

    /// Stops accepting, lets idle connections go, and waits until the rest has ended or the
    /// deadline passed. Returns how many were left.
    pub async fn drain(&self) -> usize {
        let deadline = {
            let mut parts = self.parts.lock();
            parts.listeners.clear();
            parts
                .config
                .as_ref()
                .map_or(config::defaults::DRAIN_DEADLINE.0, |c| c.drain_deadline.0)
        };
        self.drain.send_replace(true);
        let gone = async {
            while self.edge.open() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(deadline, gone).await.is_err() {
            self.nodes().iter().for_each(|n| n.cut());
            tokio::time::sleep(LAST_WORDS).await;
        }
        self.edge.open()
    }
}
