//! The running parts: nodes with their checks, and listeners with their accept loops. Puts a plan in force.
//!
//! In: a [`Plan`](super::plan::Plan). Out: nodes and listeners started, changed, ended. Live flows stay; a
//! departed node is checked until its last flow has ended. Source: FAULTS D66 to D68.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pushgate_plugins::api::{NodeId, PoolId};
use tokio::task::JoinHandle;

use super::acme::progress::OrderState;
use super::endpoint::Endpoint;
use super::planned::{ListenerChange, PlannedListener, PlannedNode, join_servers};
use crate::balance::Pool;
use crate::config::{self, Config, Health};
use crate::listener::accept::{AcceptLoop, PreparedLoop};
use crate::observe::metrics;
use crate::proxy::listener::Listener;
use crate::tls::tickets::{NewTickets, Ring};
use crate::tls::{Acceptors, Store};
use crate::upstream::drain::Terms;
use crate::upstream::health::Checker;
use crate::upstream::{Membership, Node, Order, State};

/// A node with its check loop.
pub struct Checked {
    /// The node.
    pub node: Arc<Node>,
    /// The listener's section of the configuration.
    pub conf: config::Node,
    health: Option<Health>,
    task: JoinHandle<()>,
}

impl Checked {
    fn start(planned: PlannedNode) -> Self {
        let PlannedNode {
            node, conf, health, ..
        } = planned;
        let task = tokio::spawn(Checker::new(node.clone(), health.as_ref()).run());
        Checked {
            node,
            conf,
            health,
            task,
        }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node as an operator sees it.
pub struct Listed {
    /// The node.
    pub node: Arc<Node>,
    /// The DNS name that found it; `None`: its address is in the file.
    pub source: Option<String>,
    /// Whether the node left the configuration or was replaced: it keeps its flows, and gets others only from
    /// requests that began before.
    pub removed: bool,
}

impl Listed {
    /// Returns its state; a removed node that is Up counts as Draining.
    pub fn state(&self) -> State {
        match self.node.state() {
            State::Up if self.removed => State::Draining,
            state => state,
        }
    }
}

/// A listener with its accept loops.
pub struct Listening {
    /// The listener.
    pub listener: Arc<Listener>,
    /// The listener's section of the configuration.
    pub conf: config::Listener,
    /// One loop for each address.
    pub loops: Vec<AcceptLoop>,
}

impl Listening {
    /// Applies a changed section and its routing table. Returns the certificates it served before.
    fn change(
        &mut self,
        conf: &config::Listener,
        change: ListenerChange,
    ) -> Option<Arc<Acceptors>> {
        let tls = self.listener.tls.as_ref().zip(change.acceptors);
        let replaced = tls.map(|(tls, acceptors)| tls.swap(acceptors));
        self.listener.change(conf, change.table);
        self.loops.retain(|a| conf.bind.contains(&a.asked));
        self.loops.iter().for_each(|a| a.tune(conf));
        self.conf = conf.clone();
        replaced
    }
}

/// Runs the first checks of new nodes, all at once, so that their states are known before the first flow.
pub async fn first_checks(nodes: &HashMap<NodeId, PlannedNode>) {
    let fresh = nodes.values().filter(|n| !n.runs);
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

fn is_leaving(conf: &config::Node) -> bool {
    conf.found.as_ref().is_some_and(|f| f.leaving)
}

/// Everything that runs.
#[derive(Default)]
pub struct Parts {
    /// Nodes.
    pub nodes: HashMap<NodeId, Checked>,
    /// Nodes that are in no current routing table, checked until their last flow has ended.
    pub departed: Vec<Checked>,
    /// Pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// Listeners by name.
    pub listeners: HashMap<String, Listening>,
    /// Certificates.
    pub store: Store,
    /// Orders of the certificates that the edge gets itself, by certificate.
    pub orders_of_certificates: BTreeMap<String, OrderState>,
    /// What could not be taken into use since the certificates were loaded: a listener or the session
    /// tickets, and why. Tried again each second.
    pub unserved: BTreeMap<String, String>,
    /// Keys of session tickets.
    pub ring: Option<Arc<Ring>>,
    /// The admin endpoint; it stays open during a drain.
    pub admin: Option<Endpoint>,
    /// The endpoint for health, if it has an address of its own.
    pub health: Option<Endpoint>,
    /// Orders from the predecessor, until the nodes exist.
    pub orders: Vec<(String, Order)>,
    /// Terms of the drains among those orders, by the node's name.
    pub drains: HashMap<String, Terms>,
    /// Ticket keys from the predecessor, until the ring exists.
    pub tickets: Option<Vec<u8>>,
    /// The configuration everything is built from.
    pub config: Option<Arc<Config>>,
    /// When the files of that configuration began to be read.
    pub loaded: Option<SystemTime>,
}

impl Parts {
    /// Starts checks of new nodes and moves removed ones to `departed`. Returns the new ones.
    pub fn settle_nodes(&mut self, planned: HashMap<NodeId, PlannedNode>) -> Vec<Arc<Node>> {
        join_servers(&planned);
        let fresh = planned.values().filter(|p| !p.runs);
        let fresh = fresh.map(|p| p.node.clone()).collect();
        let mut old = std::mem::take(&mut self.nodes);
        for (id, p) in planned {
            let now = Instant::now();
            if let (Some(tls), Some(new)) = (&p.node.tls, &p.tls) {
                tls.adopt(new);
            }
            p.node.set_limits(p.limits, now);
            p.node.set_evict_rate(p.evict_rate);
            p.node.set_tcp(p.conf.tcp);
            p.node.set_source(p.source);
            p.node.set_backup(p.conf.backup);
            // A node whose weight was 0 starts slowly too, because it had no share of the flows.
            let joins = p.joins || (p.node.weight() == 0 && p.conf.weight > 0);
            p.node.set_weight(p.conf.weight);
            if !is_leaving(&p.conf) {
                p.node.set_membership(Membership::Member);
            }
            if joins && p.node.state() == State::Up {
                p.node.returned(now);
            }
            let before = old.remove(&id);
            let (same, other) = match before {
                Some(c) if Arc::ptr_eq(&c.node, &p.node) => (Some(c), None),
                other => (None, other),
            };
            self.departed.extend(other);
            let checked = match same {
                Some(mut c) if c.health == p.health => {
                    c.conf = p.conf;
                    c
                }
                // Dropping the old one ends its check loop.
                _ => Checked::start(p),
            };
            self.nodes.insert(id, checked);
        }
        self.departed.extend(old.into_values());
        self.departed
            .iter()
            .for_each(|c| c.node.set_membership(Membership::Gone));
        self.sweep();
        fresh
    }

    /// Returns nodes that left their DNS answer but do not drain yet. Tables from before the change may have
    /// no others, so they may drain only when no flow uses those tables any more.
    pub fn leaving(&self) -> Vec<Arc<Node>> {
        let leaving = self.nodes.values().filter(|c| is_leaving(&c.conf));
        let still_up = leaving.filter(|c| !c.node.is_leaving());
        still_up.map(|c| c.node.clone()).collect()
    }

    /// Returns all nodes by name; of the same name, nodes that stay come first.
    pub fn listed(&self) -> Vec<Listed> {
        let one = |c: &Checked, removed| Listed {
            node: c.node.clone(),
            source: c.conf.found.as_ref().map(|f| f.source.clone()),
            removed,
        };
        let stay = self.nodes.values().map(|c| one(c, false));
        let mut all: Vec<_> = stay
            .chain(self.departed.iter().map(|c| one(c, true)))
            .collect();
        all.sort_by(|a, b| (&a.node.name, a.removed).cmp(&(&b.node.name, b.removed)));
        all
    }

    /// Forgets departed nodes whose last flow has ended, and their metrics.
    pub fn sweep(&mut self) {
        let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.departed)
            .into_iter()
            .partition(|c| c.node.live() > 0);
        self.departed = stay;
        for c in gone {
            let same = |d: &Checked| d.node.id == c.node.id;
            if !self.nodes.contains_key(&c.node.id) && !self.departed.iter().any(same) {
                metrics::get().forget_node(&c.node.name);
            }
        }
    }

    /// Puts pools in force. Flows that wait in a replaced pool move to its successor.
    pub fn settle_pools(&mut self, pools: Arc<HashMap<PoolId, Arc<Pool>>>) {
        let before = std::mem::replace(&mut self.pools, pools);
        self.pools.values().for_each(Pool::put_in_force);
        for (id, old) in before.iter() {
            match self.pools.get(id) {
                Some(new) if Arc::ptr_eq(new, old) => {}
                successor => old.resign(successor.is_some()),
            }
        }
    }

    /// Gives the nodes the predecessor's orders.
    pub fn settle_orders(&mut self) {
        let mut drains = std::mem::take(&mut self.drains);
        for (name, order) in std::mem::take(&mut self.orders) {
            let Some(Checked { node, .. }) = self.nodes.get(&NodeId::of(&name)) else {
                continue;
            };
            match drains.remove(&name).filter(|_| order == Order::Drain) {
                Some(terms) => node.drain(terms),
                None => node.order(order),
            }
        }
    }

    /// Takes the ring of session ticket keys into use.
    pub fn settle_tickets(&mut self, ring: Arc<Ring>, new: NewTickets) {
        // The plan has read every file, of the listeners too.
        self.unserved.clear();
        ring.take_over(new);
        self.ring = Some(ring);
        self.tickets = None;
    }

    /// Changes, adds and removes listeners. A removed one stops accepting; its connections go on. Returns the
    /// certificates that were replaced, for the caller to drop without the lock.
    pub fn settle_listeners(&mut self, planned: Vec<PlannedListener>) -> Vec<Arc<Acceptors>> {
        let mut replaced = Vec::new();
        let changes = |p: &PlannedListener, name: &str| p.change.is_some() && p.conf.name == name;
        self.listeners
            .retain(|name, _| planned.iter().any(|p| changes(p, name)));
        for p in planned {
            let mut l = match (self.listeners.remove(&p.conf.name), p.change) {
                (Some(mut running), Some(change)) => {
                    replaced.extend(running.change(&p.conf, change));
                    running
                }
                (_, None) => Listening {
                    listener: p.listener,
                    conf: p.conf.clone(),
                    loops: Vec::new(),
                },
                // A drain began after the plan was made: this process accepts no more connections.
                (None, Some(_)) => continue,
            };
            l.loops.extend(p.loops.into_iter().map(PreparedLoop::start));
            self.listeners.insert(p.conf.name, l);
        }
        replaced
    }
}
