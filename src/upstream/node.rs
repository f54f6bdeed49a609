//! A node: its state, its live flows, and what happens to them when it goes Down.
//!
//! Only this file publishes a state. In: verdicts of checks, orders of the operator. Out: [`State`] for the
//! balancer, evictions for the flows.
//! Source: DESIGN of the guides' fail over: Lightstreamer clustering §1, §5; Diffusion load balancers, "TCP
//! retransmission timeout".

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use pushgate_plugins::api::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::drain::{Draining, Membership};
use super::flow_limiter::{FlowLimiter, Limits, Room};
use super::idle_upstreams::IdleUpstreams;
use super::live_flow::LiveFlow;
use super::live_flows::{LiveFlows, Stickiness};
use super::node_status::NodeStatus;
use super::passive_health::PassiveHealth;
use super::tls::Secure;
use crate::config::units::Rate;
use crate::config::{self, NodeTcp, OnDown};
use crate::stream::last_bytes::LastBytes;

/// Which flows a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Takes flows.
    Up = 0,
    /// Keeps its flows and the clients stuck to it; takes no new ones.
    Draining = 1,
    /// Has no flow.
    Down = 2,
}

impl State {
    /// The word in logs, metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Draining => "draining",
            State::Down => "down",
        }
    }
}

const LEAVING: u8 = Membership::Leaving as u8;

/// The operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Order {
    /// Follow the checks.
    Up,
    /// Take no new flows.
    Drain,
    /// Be Down whatever the checks say.
    Down,
}

impl Order {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Up => "up",
            Order::Drain => "drain",
            Order::Down => "down",
        }
    }
}

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
    /// Wakes the check loop: a flow failed, or an operator pardoned the node.
    pub suspect: Notify,
    /// Passive health counters.
    pub passive_health: PassiveHealth,
    /// Closed connections with bytes that the node has not acknowledged.
    pub last_bytes: Arc<LastBytes>,
    weight: AtomicU32,
    pub(super) membership: AtomicU8,
    healthy: AtomicU8,
    pub(super) order: AtomicU8,
    live: AtomicUsize,
    total: AtomicU64,
    pub(super) flows: Mutex<LiveFlows>,
    pub(super) idle: Mutex<HashMap<u64, Weak<IdleUpstreams>>>,
    changed: tokio::sync::watch::Sender<State>,
    /// Held while a state is published and acted on, so that the last published state is the true one.
    settling: Mutex<()>,
    limiter: Mutex<Option<FlowLimiter>>,
    pub(super) evict_rate: Mutex<Option<Rate>>,
    tcp: Mutex<NodeTcp>,
    pub(super) status: Mutex<NodeStatus>,
    /// The running drain.
    pub(super) drain: Mutex<Option<Draining>>,
    /// Whether the node has a limiter. Most have none, and each pick checks every node.
    is_limited: AtomicBool,
    ramping: AtomicBool,
}

impl Node {
    /// Creates a node that is Up until a check fails. If its host name was not resolved, it has the
    /// unspecified address: for decisions without flows.
    pub fn new(name: &str, conf: &config::Node, on_down: OnDown, tls: Option<Secure>) -> Arc<Self> {
        Arc::new(Node {
            id: NodeId::of(name),
            name: name.to_owned(),
            address: conf
                .address
                .socket()
                .unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()),
            weight: AtomicU32::new(conf.weight),
            membership: AtomicU8::new(0),
            on_down,
            tls,
            suspect: Notify::new(),
            passive_health: PassiveHealth::default(),
            last_bytes: Arc::default(),
            healthy: AtomicU8::new(1),
            order: AtomicU8::new(0),
            live: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            flows: Mutex::default(),
            idle: Mutex::default(),
            changed: tokio::sync::watch::channel(State::Up).0,
            settling: Mutex::default(),
            limiter: Mutex::default(),
            evict_rate: Mutex::default(),
            tcp: Mutex::new(conf.tcp),
            status: Mutex::new(NodeStatus::new(Instant::now())),
            drain: Mutex::default(),
            is_limited: AtomicBool::new(false),
            ramping: AtomicBool::new(false),
        })
    }

    /// Sets the limits of its new flows. A running slow start goes on, or begins anew if the limits changed.
    pub fn set_limits(&self, limits: Limits, now: Instant) {
        let mut limiter = self.limiter.lock();
        let wanted = (limits != Limits::default()).then_some(limits);
        if limiter.as_ref().map(FlowLimiter::limits) != wanted {
            let ramps = limiter.as_ref().is_some_and(FlowLimiter::is_ramping);
            *limiter = wanted.map(|limits| FlowLimiter::new(limits, now));
            self.is_limited.store(limiter.is_some(), Ordering::Release);
            drop(limiter);
            match ramps {
                true => self.returned(now),
                false => self.ramping.store(false, Ordering::Release),
            }
        }
    }

    /// Returns its share against the other nodes of a pool; 0: no balanced flows.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets its share.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Returns the options of new sockets to the node.
    pub fn tcp(&self) -> NodeTcp {
        *self.tcp.lock()
    }

    /// Sets the options of later sockets.
    pub fn set_tcp(&self, tcp: NodeTcp) {
        *self.tcp.lock() = tcp;
    }

    /// Sets how fast its flows are closed when it goes Down; `None`: all at once.
    pub fn set_evict_rate(&self, rate: Option<Rate>) {
        *self.evict_rate.lock() = rate;
    }

    /// Returns the most new flows a second, by `admit_rate`.
    pub fn admit_rate(&self) -> Option<Rate> {
        self.limiter.lock().as_ref()?.limits().admit_rate
    }

    /// As [`FlowLimiter::intake`].
    pub fn intake(&self) -> Option<Rate> {
        self.with_limiter(|limiter, _| limiter.intake()).flatten()
    }

    /// Returns whether the balancer may give it a flow.
    pub fn room(&self, now: Instant) -> Room {
        self.with_limiter(|limiter, live| limiter.room(live, now))
            .unwrap_or(Room::Open)
    }

    /// Admits a flow from the balancer; false if a limit is reached. Each thread may have one admitted flow
    /// that has not called [`Node::enter`] yet, and `max_flows` can be exceeded by as many.
    pub fn admit(&self, now: Instant) -> bool {
        self.with_limiter(|limiter, live| limiter.admit(live, now))
            .unwrap_or(true)
    }

    /// Whether a slow start is running.
    pub fn is_ramping(&self) -> bool {
        self.ramping.load(Ordering::Acquire)
    }

    /// Ends the slow start: the node has caught up, or takes no flows any more.
    pub fn caught_up(&self) {
        self.with_limiter(|limiter, _| limiter.caught_up());
    }

    /// Begins the slow start of a node that takes flows from `now` on.
    pub fn returned(&self, now: Instant) {
        self.with_limiter(|limiter, _| limiter.returned(now));
    }

    fn with_limiter<T>(&self, ask: impl FnOnce(&mut FlowLimiter, usize) -> T) -> Option<T> {
        if !self.is_limited.load(Ordering::Acquire) {
            return None;
        }
        let mut limiter = self.limiter.lock();
        let answer = ask(limiter.as_mut()?, self.live());
        let ramps = limiter.as_ref().is_some_and(FlowLimiter::is_ramping);
        drop(limiter);
        let ended = self.ramping.swap(ramps, Ordering::AcqRel) && !ramps;
        if ended && self.state() == State::Up {
            log::info!("node {}: slow start is over", self.name);
        }
        Some(answer)
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        match (
            self.healthy.load(Ordering::Acquire),
            self.order.load(Ordering::Acquire),
            self.membership.load(Ordering::Acquire),
        ) {
            (0, ..) | (_, 2, _) => State::Down,
            (_, 1, _) | (.., LEAVING) => State::Draining,
            _ => State::Up,
        }
    }

    /// Returns a receiver of its state changes.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<State> {
        self.changed.subscribe()
    }

    /// Counts its live flows.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Counts the flows ever assigned to it.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Sets the verdict of the checks, with its cause.
    pub fn judged(&self, healthy: bool, cause: &str) {
        self.healthy.store(healthy.into(), Ordering::Release);
        self.settle(None, cause);
    }

    /// Returns the current verdict of the checks.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire) == 1
    }

    /// Obeys an order of the operator. Ends a running drain.
    pub fn order(&self, order: Order) {
        // Held to the end, so that a drain deadline at this moment cannot override the order.
        let mut drain = self.drain.lock();
        *drain = None;
        if order == Order::Up {
            self.passive_health.pardon();
            self.suspect.notify_one();
        }
        self.obey(order, None);
    }

    pub(super) fn obey(&self, order: Order, rate: Option<Rate>) {
        let word = match order {
            Order::Up => 0,
            Order::Drain => 1,
            Order::Down => 2,
        };
        self.order.store(word, Ordering::Release);
        self.settle(rate, "ordered");
    }

    /// Returns the operator's last order.
    pub fn ordered(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Up,
            1 => Order::Drain,
            _ => Order::Down,
        }
    }

    /// Publishes the state. When it becomes Down, evicts the flows unless `on_down` is `keep`: at `rate`,
    /// else at `evict_rate`.
    pub(super) fn settle(&self, rate: Option<Rate>, cause: &str) {
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
        self.turned(cause);
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
        self.live.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        self.flows.lock().insert(flow, stickiness);
        flow.entered(self.id);
        if self.state() == State::Down && self.on_down == OnDown::Evict {
            flow.evict();
        }
        Entered {
            node: self.clone(),
            flow: flow.clone(),
        }
    }

    /// Notes that a client connection keeps idle upstreams to this node.
    pub fn keeps_idle(&self, conn: u64, idle: &Arc<IdleUpstreams>) {
        self.idle.lock().insert(conn, Arc::downgrade(idle));
    }

    /// Forgets a client connection that has closed.
    pub fn forget_idle(&self, conn: u64) {
        self.idle.lock().remove(&conn);
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
        self.node.flows.lock().remove(self.flow.id);
        self.node.live.fetch_sub(1, Ordering::Relaxed);
    }
}
