//! A node: its state, its live flows, and what happens to them when it goes Down.
//!
//! Only this file publishes a state. In: verdicts of checks, orders, whether DNS still names the node. Out: [`State`]
//! for the balancer, ends for the flows. A node in no routing table is checked until its last flow has ended.
//! Source: Lightstreamer clustering §1, §5 (fail over); Diffusion load balancers, "TCP retransmission timeout".

mod agent;
mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use pushgate_plugins::api::NodeId;
use pushgate_plugins::unix::Shown;

use super::agent_record::AgentRecord;
use super::drain::{Draining, Ending, Progress, Terms};
use super::evict;
use super::flow_limiter::{FlowLimiter, Limits, Room};
use super::idle_upstreams::IdleAtNode;
use super::live_flow::LiveFlow;
use super::live_flows::{LiveFlows, Stickiness};
use super::node_limits::NodeLimits;
use super::node_status::StatusRecord;
use super::passive_health::PassiveHealth;
use super::server_load::ServerLoad;
use super::state::{Membership, Order, State, StateFacts};
use super::tls::Secure;
use super::weight::Weights;
use crate::config::units::Rate;
use crate::config::{self, NodeTcp, OnDown};
use crate::stream::last_bytes::LastBytes;

/// One push server.
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Name in the configuration.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// What happens to its flows when it goes Down.
    pub on_down: OnDown,
    /// TLS towards the node; `None`: plain.
    pub tls: Option<Secure>,
    /// Passive health counters.
    pub passive_health: PassiveHealth,
    /// Closed sockets that are kept until the node has acknowledged their last bytes, 60 s at most. Reset when the
    /// node goes Down, unless `on_down` is `keep`.
    pub last_bytes: Arc<LastBytes>,
    weight: AtomicU32,
    /// What decides `weight`.
    weights: Mutex<Weights>,
    /// What its agent has said. Held while a fact is set from it.
    agent: Mutex<AgentRecord>,
    facts: StateFacts,
    /// Its live flows, and those of its server.
    pub load: ServerLoad,
    total: AtomicU64,
    /// Its live flows.
    pub flows: LiveFlows,
    /// The client connections that keep an idle upstream to this node.
    pub idle: Arc<IdleAtNode>,
    /// Its status for operators.
    pub status: StatusRecord,
    changed: tokio::sync::watch::Sender<State>,
    /// Held while a state is published and acted on, so that a slower thread cannot publish an older state last.
    settling: Mutex<()>,
    /// Limits of the flows that the balancer gives it.
    pub limits: NodeLimits,
    evict_rate: Mutex<Option<Rate>>,
    tcp: Mutex<NodeTcp>,
    source: Mutex<Option<IpAddr>>,
    backup: AtomicBool,
    /// The last drain, until a later order; its deadline may have passed.
    drain: Mutex<Option<Draining>>,
}

impl Node {
    /// Creates a node that is Up until a check fails. A host name that is not resolved gives the address 0.0.0.0:0;
    /// only `explain` and `simulate` use such a node.
    pub fn new(name: &str, conf: &config::Node, on_down: OnDown, tls: Option<Secure>) -> Arc<Self> {
        Arc::new(Node {
            id: NodeId::of(name),
            name: name.to_owned(),
            address: conf
                .address
                .socket()
                .unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()),
            weight: AtomicU32::new(conf.weight),
            weights: Mutex::new(Weights::new(conf.weight)),
            agent: Mutex::default(),
            on_down,
            tls,
            passive_health: PassiveHealth::default(),
            last_bytes: Arc::default(),
            facts: StateFacts::default(),
            load: ServerLoad::default(),
            total: AtomicU64::new(0),
            flows: LiveFlows::default(),
            idle: Arc::default(),
            status: StatusRecord::new(Instant::now()),
            changed: tokio::sync::watch::channel(State::Up).0,
            settling: Mutex::default(),
            limits: NodeLimits::default(),
            evict_rate: Mutex::default(),
            tcp: Mutex::new(conf.tcp),
            source: Mutex::new(conf.source.map(|source| source.0)),
            backup: AtomicBool::new(conf.backup),
            drain: Mutex::default(),
        })
    }

    /// Sets the limits of its new flows. A running slow start goes on, or begins anew if the limits changed.
    pub fn set_limits(&self, limits: Limits, now: Instant) {
        if self.limits.set(limits, now) {
            self.returned(now);
        }
    }

    /// Returns the most new flows a second now: the lower of `admit_rate` and a running slow start.
    pub fn intake(&self) -> Option<Rate> {
        self.with_limiter(|limiter, _| limiter.intake()).flatten()
    }

    /// Returns when its limits allow the balancer's next flow. Does not look at the state.
    pub fn room(&self, now: Instant) -> Room {
        self.with_limiter(|limiter, live| limiter.room(live, now))
            .unwrap_or(Room::Open)
    }

    /// Admits a flow from the balancer; false if a limit is reached. `max_flows` can be exceeded by one flow for
    /// each thread, because a flow counts only from [`Node::enter`] on.
    pub fn admit(&self, now: Instant) -> bool {
        self.with_limiter(|limiter, live| limiter.admit(live, now))
            .unwrap_or(true)
    }

    /// Ends the slow start: the node has caught up, or is no longer Up.
    pub fn caught_up(&self) {
        self.with_limiter(|limiter, _| limiter.caught_up());
    }

    /// Begins the slow start of a node that takes flows from `now` on.
    pub fn returned(&self, now: Instant) {
        self.with_limiter(|limiter, _| limiter.returned(now));
    }

    fn with_limiter<T>(&self, ask: impl FnOnce(&mut FlowLimiter, usize) -> T) -> Option<T> {
        let (answer, ended) = self.limits.ask(|| self.live(), ask)?;
        if ended && self.state() == State::Up {
            log::info!("node {}: slow start is over", self.name);
        }
        Some(answer)
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        self.facts.state()
    }

    /// Returns a receiver of its state changes.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<State> {
        self.changed.subscribe()
    }

    /// Returns the number of its live flows.
    pub fn live(&self) -> usize {
        self.load.live()
    }

    /// Returns the number of flows ever assigned to it.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Sets the verdict of the checks, with its cause.
    pub fn judged(&self, healthy: bool, cause: &str) {
        self.facts.set_healthy(healthy);
        self.settle(None, cause);
    }

    /// Returns the current verdict of the checks.
    pub fn is_healthy(&self) -> bool {
        self.facts.is_healthy()
    }

    /// Obeys an order of the operator. Ends a running drain.
    pub fn order(&self, order: Order) {
        // Held to the end, so that a drain deadline at this moment cannot override the order.
        let mut drain = self.drain.lock();
        *drain = None;
        if order == Order::Up {
            self.passive_health.pardon();
        }
        self.obey(order, None);
    }

    fn obey(&self, order: Order, rate: Option<Rate>) {
        self.facts.set_order(order);
        self.settle(rate, "ordered");
    }

    /// Returns the operator's last order.
    pub fn ordered(&self) -> Order {
        self.facts.order()
    }

    /// Drains by `terms`: from now on only clients stuck to the node, and routes that pin it, bring flows. At the
    /// deadline this order makes it Down and closes its flows, also if `on_down` is `keep`: as `close_all` does, at the
    /// terms' rate. Where checks made it Down before and `on_down` is `evict`, its flows go on ending at `evict_rate`.
    pub fn drain(self: &Arc<Self>, terms: Terms) {
        let Terms { until, rate, .. } = terms;
        // Held to the end, so that a deadline of zero acts only after the order to drain.
        let mut drain = self.drain.lock();
        let close = until.map(|until| {
            let node = Arc::downgrade(self);
            let close = async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(node) = node.upgrade() {
                    node.close_drained(tokio::task::id(), rate);
                }
            };
            Ending(tokio::spawn(close))
        });
        *drain = Some(Draining { terms, close });
        self.obey(Order::Drain, None);
    }

    /// Returns the terms of its drain; `None` after any later order, and once its deadline has made the node Down.
    pub fn terms(&self) -> Option<Terms> {
        let drain = self.drain.lock();
        let drain = drain.as_ref().filter(|_| self.ordered() == Order::Drain);
        drain.map(|d| d.terms)
    }

    /// Sets Down and closes the flows. Called by `task`, which has waited for a drain's deadline. Does nothing if a
    /// later order has replaced that drain.
    fn close_drained(&self, task: tokio::task::Id, rate: Option<Rate>) {
        let drain = self.drain.lock();
        // The later order came too late to stop the task.
        if !drain.as_ref().is_some_and(|d| d.is_closed_by(task)) {
            return;
        }
        log::warn!("node {}: drain deadline passed; closing flows", self.name);
        self.obey(Order::Down, rate);
        // `keep` is for nodes that fail; this deadline was ordered.
        if self.on_down == OnDown::Keep {
            self.close_all(rate);
        }
    }

    /// Returns, after an order `drain` or `down`, the time since the drain's order, the time to its deadline, and an
    /// estimate of when the flows will have ended. `None` without such an order.
    pub fn progress(&self, now: Instant) -> Option<Progress> {
        if self.ordered() == Order::Up {
            return None;
        }
        let terms = self.drain.lock().as_ref().map(|d| d.terms);
        let ages = self.flows.all().iter().map(|f| f.age(now)).collect();
        Some(Progress::new(terms, ages, now))
    }

    /// Sets whether DNS still names the node, and whether a current routing table still has it.
    pub fn set_membership(&self, membership: Membership) {
        if !self.facts.set_membership(membership) {
            return;
        }
        match membership {
            Membership::Member => self.settle(None, "back in the DNS answer"),
            Membership::Leaving => self.settle(None, "no longer in the DNS answer"),
            Membership::Gone => {
                log::info!("node {} ({}) is removed", self.name, Shown(self.address));
                self.idle.close();
            }
        }
    }

    /// Whether the node has left its DNS answer. It is then Draining, or Down.
    pub fn is_leaving(&self) -> bool {
        self.facts.membership() == Membership::Leaving
    }

    /// Whether no current routing table has the node any more. It may still be checked, and go Down.
    pub fn is_gone(&self) -> bool {
        self.facts.membership() == Membership::Gone
    }

    /// Whether a client may keep a connection to the node for its next request.
    pub fn may_keep(&self) -> bool {
        self.state() != State::Down && !self.is_gone()
    }

    /// Publishes the state. When it becomes Down, calls `close_all(rate)`, unless `on_down` is `keep`.
    fn settle(&self, rate: Option<Rate>, cause: &str) {
        let _one_at_a_time = self.settling.lock();
        let now = self.state();
        let mut before = now;
        let changed = self.changed.send_if_modified(|s| {
            before = std::mem::replace(s, now);
            before != now
        });
        if !changed {
            return;
        }
        self.status.turned(cause);
        log::warn!("node {} is {}: {cause}", self.name, now.as_str());
        crate::observe::metrics::get()
            .node_changes
            .with_label_values(&[self.name.as_str(), now.as_str()])
            .inc();
        // Done before its flows end: the kernel must not go on sending the bytes they leave.
        self.last_bytes
            .settle(|| self.state() == State::Down && self.on_down == OnDown::Evict);
        // Not only after Down: a drained node is as empty, and would get all new clients.
        match now {
            State::Up => self.returned(Instant::now()),
            _ => self.caught_up(),
        }
        if now == State::Down && self.on_down == OnDown::Evict {
            self.close_all(rate);
        }
    }

    /// Enters a flow with its `stickiness`; the flow leaves when the guard drops.
    pub fn enter(
        self: &Arc<Self>,
        flow: &Arc<LiveFlow>,
        stickiness: Option<Stickiness>,
    ) -> Entered {
        self.load.enter();
        self.total.fetch_add(1, Ordering::Relaxed);
        self.flows.insert(flow, stickiness);
        flow.entered(self.id);
        if self.state() == State::Down && self.on_down == OnDown::Evict {
            flow.evict();
        }
        Entered {
            node: self.clone(),
            flow: flow.clone(),
        }
    }

    /// Closes the idle upstreams, and ends flows without an answer, at once. Ends the other flows at `rate`; if that is
    /// `None`, at `evict_rate`; if that is unset, at once. A paced end stops when the node leaves Down.
    fn close_all(&self, rate: Option<Rate>) {
        match rate.or(*self.evict_rate.lock()) {
            None => drop(self.evict()),
            Some(rate) => {
                let flows = self.flows.all();
                evict::at_rate(self.id, &self.name, flows, rate, self.watch());
                self.idle.close();
            }
        }
    }

    /// Ends all live flows and idle upstreams of the node at once. Returns how many flows were listed, with those that
    /// left meanwhile. New flows still come unless it is Down; with `on_down: evict` [`Node::enter`] then ends them.
    pub fn evict(&self) -> usize {
        let count = evict::at_once(self.id, &self.name, self.flows.all());
        self.idle.close();
        count
    }

    /// Closes all its flows at the client, because the process stops: no retry, no eviction. Idle upstreams stay.
    pub fn cut(&self) {
        self.flows.all().iter().for_each(|flow| flow.kill.give());
    }
}

/// A flow's entry in the list of its node; dropping it removes the flow.
pub struct Entered {
    /// The node.
    pub node: Arc<Node>,
    flow: Arc<LiveFlow>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.flow.left(self.node.id);
        self.node.flows.remove(self.flow.id);
        self.node.load.leave();
    }
}

#[cfg(test)]
mod tests;
