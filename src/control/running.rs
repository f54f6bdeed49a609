//! What runs: nodes with their checks, pools, listeners with their accept loops; built from a
//! configuration, changed in place by the next one.
//!
//! In: a checked [`Config`]. Out: live listeners. A reload keeps live flows: nodes and listeners
//! that stay are kept, changed or removed ones drain. Source: FAULTS D67, D68.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use pushgate_plugins::api::{NodeId, PoolId};
use pushgate_plugins::context::{Build, Keep};
use tokio::task::JoinHandle;

use crate::balance::Pool;
use crate::config::{self, Config, Health, OnDown};
use crate::listener::accept::{self, AcceptLoop, Listener};
use crate::listener::edge::Edge;
use crate::observe::metrics;
use crate::route::Table;
use crate::tls::TlsFront;
use crate::upstream::health::Checker;
use crate::upstream::state::Order;
use crate::upstream::{Node, State};

/// Sockets bound before the threads exist, by address.
pub type Sockets = HashMap<SocketAddr, TcpListener>;

/// Binds every address of the configuration, and the admin endpoint's.
///
/// Errors: the address that cannot be bound and why.
pub fn bind_all(config: &Config) -> Result<Sockets, String> {
    let listeners = config.listeners.iter().flat_map(|l| l.bind.iter().copied());
    let admin = config.admin.iter().map(|a| a.bind);
    let mut sockets = Sockets::new();
    for address in listeners.chain(admin) {
        let socket = accept::bind(address).map_err(|e| format!("cannot bind {address}: {e}"))?;
        sockets.insert(address, socket);
    }
    Ok(sockets)
}

/// A node with its check loop.
struct Checked {
    node: Arc<Node>,
    conf: config::Node,
    health: Option<Health>,
    task: JoinHandle<()>,
}

/// A listener with its accept loops.
struct Listening {
    listener: Arc<Listener>,
    conf: config::Listener,
    loops: Vec<AcceptLoop>,
}

#[derive(Default)]
struct Parts {
    nodes: HashMap<NodeId, Checked>,
    pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    listeners: HashMap<String, Listening>,
    config: Option<Arc<Config>>,
}

/// The running proxy.
pub struct Running {
    edge: Arc<Edge>,
    path: Option<PathBuf>,
    keep: Keep,
    parts: Mutex<Parts>,
    /// One reload at a time; holds the lock across its checks.
    reloading: tokio::sync::Mutex<()>,
    drain: tokio::sync::watch::Sender<bool>,
}

impl Running {
    /// Nothing runs yet. `path` is the file a reload reads.
    pub fn new(
        edge: Arc<Edge>,
        path: Option<PathBuf>,
        drain: tokio::sync::watch::Sender<bool>,
    ) -> Arc<Self> {
        Arc::new(Running {
            edge,
            path,
            keep: Keep::default(),
            parts: Mutex::default(),
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
    /// Errors: nothing was changed.
    pub async fn apply(&self, config: Arc<Config>, mut sockets: Sockets) -> Result<(), String> {
        let _one = self.reloading.lock().await;
        let nodes = self.nodes_for(&config);
        let pools = Arc::new(pools_for(&config, &nodes));
        let mut fresh = self.listeners_for(&config, &nodes, &pools, &mut sockets)?;
        let first: Vec<_> = nodes
            .values()
            .filter(|(_, old)| !old)
            .map(|(n, _)| n.clone())
            .collect();
        first_checks(&config, &first).await;

        let mut parts = self.parts.lock();
        let mut old_nodes = std::mem::take(&mut parts.nodes);
        for (id, (node, _)) in &nodes {
            let name = node.name.as_str();
            let health = health_of(&config, name).cloned();
            let kept = old_nodes.remove(id).filter(|c| Arc::ptr_eq(&c.node, node));
            let task = match kept {
                Some(c) if c.health == health => c.task,
                other => {
                    if let Some(c) = other {
                        c.task.abort();
                    }
                    let checker = Checker::new(node.clone(), health.as_ref());
                    tokio::spawn(checker.run())
                }
            };
            let conf = config.nodes[name].clone();
            parts.nodes.insert(
                *id,
                Checked {
                    node: node.clone(),
                    conf,
                    health,
                    task,
                },
            );
        }
        for gone in old_nodes.into_values() {
            gone.task.abort();
            gone.node.order(Order::Drain);
        }
        parts.pools = pools;
        parts.listeners.retain(|name, _| fresh.keep.contains(name));
        for (conf, table) in fresh.changed.drain(..) {
            if let Some(l) = parts.listeners.get_mut(&conf.name) {
                l.listener.change(&conf, table);
                l.loops.retain(|a| conf.bind.contains(&a.asked));
                l.conf = conf;
            }
        }
        for (listener, conf) in fresh.added.drain(..) {
            let new = Listening {
                listener,
                conf: conf.clone(),
                loops: Vec::new(),
            };
            parts.listeners.insert(conf.name, new);
        }
        for (name, asked, socket) in fresh.sockets.drain(..) {
            if let Some(l) = parts.listeners.get_mut(&name) {
                let started =
                    AcceptLoop::start(asked, socket, l.listener.clone(), self.edge.clone());
                l.loops.push(started.map_err(|e| format!("{asked}: {e}"))?);
            }
        }
        parts.config = Some(config);
        drop(parts);
        self.keep.sweep();
        metrics::get().reload_ok.set(1);
        Ok(())
    }

    /// The nodes of `config`, each with whether it is one that runs already.
    fn nodes_for(&self, config: &Config) -> HashMap<NodeId, (Arc<Node>, bool)> {
        let parts = self.parts.lock();
        let one = |(name, conf): (&String, &config::Node)| {
            let id = NodeId::of(name);
            let on_down = on_down_of(config, name);
            let same = parts.nodes.get(&id).filter(|c| {
                c.conf.address == conf.address
                    && c.conf.weight == conf.weight
                    && c.node.on_down == on_down
            });
            match same {
                Some(c) => (id, (c.node.clone(), true)),
                None => (id, (Node::new(name, conf, on_down), false)),
            }
        };
        config.nodes.iter().map(one).collect()
    }

    fn listeners_for(
        &self,
        config: &Config,
        nodes: &HashMap<NodeId, (Arc<Node>, bool)>,
        pools: &Arc<HashMap<PoolId, Arc<Pool>>>,
        sockets: &mut Sockets,
    ) -> Result<Fresh, String> {
        let nodes = Arc::new(
            nodes
                .iter()
                .map(|(id, (n, _))| (*id, n.clone()))
                .collect::<HashMap<_, _>>(),
        );
        let parts = self.parts.lock();
        let mut fresh = Fresh::default();
        for conf in &config.listeners {
            let table = self.table(config, conf, &nodes, pools)?;
            let old = parts
                .listeners
                .get(&conf.name)
                .filter(|l| same_kind(&l.conf, conf));
            let bound: Vec<SocketAddr> = old
                .iter()
                .flat_map(|l| l.loops.iter().map(|a| a.asked))
                .collect();
            for address in conf.bind.iter().filter(|a| !bound.contains(a)) {
                let socket = match sockets.remove(address) {
                    Some(socket) => socket,
                    None => {
                        accept::bind(*address).map_err(|e| format!("cannot bind {address}: {e}"))?
                    }
                };
                fresh.sockets.push((conf.name.clone(), *address, socket));
            }
            match old {
                Some(l) => {
                    if let Some(tls) = &l.listener.tls {
                        tls.reload(conf, config).map_err(|e| e.to_string())?;
                    }
                    fresh.keep.push(conf.name.clone());
                    fresh.changed.push((conf.clone(), table));
                }
                None => {
                    let tls = conf
                        .tls
                        .as_ref()
                        .map(|_| TlsFront::new(conf, config))
                        .transpose();
                    let tls = tls.map_err(|e| e.to_string())?;
                    fresh
                        .added
                        .push((Listener::new(conf, table, tls), conf.clone()));
                }
            }
        }
        Ok(fresh)
    }

    fn table(
        &self,
        config: &Config,
        conf: &config::Listener,
        nodes: &Arc<HashMap<NodeId, Arc<Node>>>,
        pools: &Arc<HashMap<PoolId, Arc<Pool>>>,
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
            keep: &self.keep,
        };
        let built: Result<Vec<_>, _> = conf.plugins.iter().map(|p| p.build(&build)).collect();
        let faults = |f: Vec<pushgate_plugins::context::Fault>| {
            f.into_iter()
                .map(|f| format!("{}: {}", conf.name, f.message))
                .collect::<Vec<_>>()
                .join("\n")
        };
        Ok(Table {
            plugins: built.map_err(faults)?.into(),
            default: conf.to.as_deref().and_then(|to| build.target(to)),
            pools: pools.clone(),
            nodes: nodes.clone(),
        })
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
        let _ = tokio::time::timeout(deadline, gone).await;
        self.edge.open()
    }
}

/// What a new configuration brings, before anything is changed.
#[derive(Default)]
struct Fresh {
    keep: Vec<String>,
    changed: Vec<(config::Listener, Table)>,
    added: Vec<(Arc<Listener>, config::Listener)>,
    sockets: Vec<(String, SocketAddr, TcpListener)>,
}

/// Whether a listener can take over the new section without closing its sockets.
fn same_kind(old: &config::Listener, new: &config::Listener) -> bool {
    let h2 = |l: &config::Listener| l.tls.as_ref().map(|t| t.h2);
    old.mode == new.mode && h2(old) == h2(new)
}

fn pools_for(
    config: &Config,
    nodes: &HashMap<NodeId, (Arc<Node>, bool)>,
) -> HashMap<PoolId, Arc<Pool>> {
    let one = |(name, conf): (&String, &config::Pool)| {
        let members = conf.nodes.iter().filter_map(|n| nodes.get(&NodeId::of(n)));
        let pool = Pool::new(name, conf, members.map(|(n, _)| n.clone()).collect());
        (PoolId::of(name), Arc::new(pool))
    };
    config.pools.iter().map(one).collect()
}

/// First checks of new nodes, all at once: their verdicts are there before the first flow.
async fn first_checks(config: &Config, nodes: &[Arc<Node>]) {
    let one = |node: &Arc<Node>| {
        let checker = Checker::new(node.clone(), health_of(config, &node.name));
        tokio::spawn(async move { checker.first().await })
    };
    let running: Vec<_> = nodes.iter().map(one).collect();
    for check in running {
        let _ = check.await;
    }
}

/// A node's own check, or that of the first pool it is in (the file check made sure they agree).
fn health_of<'a>(config: &'a Config, node: &'a str) -> Option<&'a Health> {
    let own = config.nodes.get(node).and_then(|n| n.health.as_ref());
    own.or_else(|| pools_of(config, node).find_map(|p| p.health.as_ref()))
}

fn on_down_of(config: &Config, node: &str) -> OnDown {
    pools_of(config, node)
        .next()
        .map_or(OnDown::default(), |p| p.on_down)
}

fn pools_of<'a>(config: &'a Config, node: &'a str) -> impl Iterator<Item = &'a config::Pool> {
    config
        .pools
        .values()
        .filter(move |p| p.nodes.iter().any(|n| n == node))
}
