//! The state of a node, and the four facts that decide it.
//!
//! In: the verdict of the checks, that of the node's agent, the operator's order, the node's membership. Out: [`State`]. Each fact is read
//! and written without a lock.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// Which flows a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes flows of all clients.
    Up,
    /// Keeps its flows. Clients stuck to it (not by `mode: hash`) and routes that pin it still bring flows. Others do
    /// not, unless it has left the DNS answer and no node is Up.
    Draining,
    /// Takes no flow. Loses its flows, unless `on_down` is `keep`.
    Down,
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

/// The operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[repr(u8)]
pub enum Order {
    /// Follow the checks.
    Up = 0,
    /// Take flows only of clients stuck to it, and of routes that pin it.
    Drain = 1,
    /// Be Down whatever the checks say.
    Down = 2,
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

/// What a node's agent wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AgentVerdict {
    /// Follow the checks and the order. Also that of a node without an agent.
    Up = 0,
    /// Be Draining.
    Drain = 1,
    /// Be Down.
    Down = 2,
}

impl AgentVerdict {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentVerdict::Up => "up",
            AgentVerdict::Drain => "drain",
            AgentVerdict::Down => "down",
        }
    }
}

/// Whether the node is still named by DNS and still in a routing table, whatever orders and checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Membership {
    /// It is both.
    Member = 0,
    /// It is out of its DNS answer: it drains, and clients that are stuck to it still come.
    Leaving = 1,
    /// It is in no current routing table: a reload or DNS removed it, or a node with another address, `tls` or
    /// `on_down` replaced it. Requests that began with an older table may still come. No connection to it is kept.
    /// Its [`State`] does not change by this.
    Gone = 2,
}

/// The facts of one node.
pub struct StateFacts {
    healthy: AtomicBool,
    agent: AtomicU8,
    order: AtomicU8,
    membership: AtomicU8,
}

impl StateFacts {
    /// The facts of a node that is Up until a check says otherwise.
    pub fn new() -> Self {
        StateFacts {
            healthy: AtomicBool::new(true),
            agent: AtomicU8::new(AgentVerdict::Up as u8),
            order: AtomicU8::new(Order::Up as u8),
            membership: AtomicU8::new(Membership::Member as u8),
        }
    }

    /// Returns the state that these facts decide.
    pub fn state(&self) -> State {
        match (self.agent(), self.order(), self.membership()) {
            _ if !self.is_healthy() => State::Down,
            (AgentVerdict::Down, ..) | (_, Order::Down, _) => State::Down,
            (AgentVerdict::Drain, ..) | (_, Order::Drain, _) => State::Draining,
            (.., Membership::Leaving) => State::Draining,
            _ => State::Up,
        }
    }

    /// Returns the verdict of the agent.
    pub fn agent(&self) -> AgentVerdict {
        match self.agent.load(Ordering::Acquire) {
            0 => AgentVerdict::Up,
            1 => AgentVerdict::Drain,
            _ => AgentVerdict::Down,
        }
    }

    /// Sets the verdict of the agent.
    pub fn set_agent(&self, verdict: AgentVerdict) {
        self.agent.store(verdict as u8, Ordering::Release);
    }

    /// Returns the verdict of the checks.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    /// Sets the verdict of the checks.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Release);
    }

    /// Returns the operator's last order.
    pub fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Up,
            1 => Order::Drain,
            _ => Order::Down,
        }
    }

    /// Sets the operator's order.
    pub fn set_order(&self, order: Order) {
        self.order.store(order as u8, Ordering::Release);
    }

    /// Returns the membership.
    pub fn membership(&self) -> Membership {
        match self.membership.load(Ordering::Acquire) {
            0 => Membership::Member,
            1 => Membership::Leaving,
            _ => Membership::Gone,
        }
    }

    /// Sets the membership. Returns whether that is a change.
    pub fn set_membership(&self, membership: Membership) -> bool {
        let membership = membership as u8;
        self.membership.swap(membership, Ordering::AcqRel) != membership
    }
}

impl Default for StateFacts {
    fn default() -> Self {
        StateFacts::new()
    }
}
