//! Chooses a node of a pool for a flow that is not stuck, among the nodes whose limits allow it.
//!
//! The methods are pure functions of the nodes' facts; `round_robin` also remembers whose turn it is. Source:
//! Lightstreamer clustering §2.1 ("balancing"), §1 (S connections can always be freely balanced), §2.2.2,
//! §3.2.1.2, §3.2.2.2 (the edge balances S, CR does not pass it).

mod hash;
mod least_flows;
mod method;
pub mod queue;
mod random;
mod round_robin;
pub mod wait;
mod waiting;

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pushgate_plugins::api::{NodeId, PoolId};

pub use self::method::Seed;
use self::method::{Candidate, Method};
use self::round_robin::{RoundRobin, TimeToTurn};
use self::waiting::Waiting;
use crate::config::{self, Balance, NoNode, OnLost};
use crate::upstream::Order;
use crate::upstream::flow_limiter::Room;
use crate::upstream::{Node, State};

/// How a pool chooses.
enum Way {
    /// Compares the facts of its nodes (`least_flows`, `random`).
    Compares(&'static dyn Method),
    /// Gives each node its turn (`round_robin`).
    TakesTurns(Mutex<RoundRobin>),
    /// Computes the node from the client's address (`hash`).
    Computes,
}

impl Way {
    /// Returns the way of a configured word, in a pool of `nodes` nodes.
    fn new(word: Balance, nodes: usize) -> Self {
        Way::Compares(match word {
            Balance::LeastFlows => &least_flows::LeastFlows,
            Balance::Random => &random::Random,
            Balance::Hash => return Way::Computes,
            Balance::RoundRobin => {
                let new = std::iter::repeat_n(TimeToTurn::NEW, nodes);
                return Way::TakesTurns(Mutex::new(RoundRobin::new(new)));
            }
        })
    }
}

/// Nodes among which flows are balanced.
pub struct Pool {
    /// Identity, made of the name.
    pub id: PoolId,
    /// Name in the configuration.
    pub name: String,
    /// The pool's nodes, also those that have left DNS and still serve.
    pub nodes: Vec<Arc<Node>>,
    /// Index into `nodes` for each identity, sorted by identity: stickiness looks nodes up for each flow.
    places: Box<[(NodeId, usize)]>,
    /// Deadline for connecting to a node.
    pub connect_timeout: Duration,
    /// Most other nodes tried after a failed connect.
    pub retries: u32,
    /// How a flow is answered when no node can take it.
    pub no_node: NoNode,
    /// How a request is answered when its node is lost before it answered, and no retry is allowed.
    pub on_lost: OnLost,
    /// Most other nodes tried for a request that a node got but did not answer, if a retry is
    /// allowed; 0: no retry.
    pub retry_unanswered: u32,
    /// Paths of requests that may be retried whatever their method; compared whole, without query.
    pub retry_on: Box<[String]>,
    /// Flows that wait because every node is at its limit.
    pub waiting: Waiting,
    /// Set while a rebalance runs: flows then go to the node with the fewest flows for its weight, whatever the
    /// method. Otherwise a client would be closed only to come back to a full node.
    levels: AtomicBool,
    /// The pool of this name that is in force; shared by all pools that ever had the name.
    latest: Arc<ArcSwapOption<Pool>>,
    /// How a rebalance moves clients.
    pub rebalance: config::Rebalance,
    /// Paths of requests that are balanced anew even if their client is stuck.
    pub rebalance_on: Box<[String]>,
    way: Way,
}

/// The balancer's verdict.
pub enum Picked<'a> {
    /// This node, which has admitted the flow.
    Node(&'a Arc<Node>),
    /// No node now: all that are Up, and were not tried for the flow, are at their limits.
    Full,
    /// No node: none that is Up is left to try.
    Nobody,
}

/// Pools up to this size are compared node by node.
const EXACT: usize = 64;
/// Nodes drawn from a larger pool. For 29 flows of 30 the emptiest of 32 is among the
/// emptiest tenth of all; comparing 1,000 nodes took 22 µs.
const SAMPLE: usize = 32;

thread_local! {
    /// Candidates of the current pick, with their indices in the pool: reused, so that a pick
    /// allocates nothing.
    static FACTS: RefCell<(Vec<Candidate>, Vec<usize>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Pool {
    /// Builds a pool of `nodes`.
    pub fn new(name: &str, conf: &config::Pool, nodes: Vec<Arc<Node>>) -> Self {
        let mut places: Box<[_]> = nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
        places.sort_unstable();
        Pool {
            id: PoolId::of(name),
            name: name.to_owned(),
            way: Way::new(conf.balance, nodes.len()),
            nodes,
            places,
            connect_timeout: conf.connect_timeout.0,
            retries: conf.retries,
            no_node: conf.no_node,
            on_lost: conf.on_lost,
            retry_unanswered: conf.retry_unanswered,
            retry_on: conf.retry_on.clone().into(),
            waiting: Waiting::new(conf),
            levels: AtomicBool::new(false),
            latest: Arc::default(),
            rebalance: conf.rebalance,
            rebalance_on: conf.rebalance_on.clone().into(),
        }
    }

    /// Makes this pool the successor of `before`, which it replaces when it is put in force.
    pub fn after(self, before: &Pool) -> Self {
        self.resume(before);
        Pool {
            latest: before.latest.clone(),
            ..self
        }
    }

    /// Puts this pool in force: flows that began with an older pool of this name are balanced
    /// here from now on.
    pub fn put_in_force(self: &Arc<Self>) {
        self.latest.store(Some(self.clone()));
    }

    /// Retires this pool. Its waiting flows move to the successor; without one they go on waiting here.
    pub fn resign(&self, succeeded: bool) {
        match succeeded {
            true => self.waiting.dissolve(),
            false => self.latest.store(None),
        }
    }

    /// Returns the pool of this name that is in force; this one if none is.
    pub fn current(self: &Arc<Self>) -> Arc<Self> {
        self.latest.load_full().unwrap_or_else(|| self.clone())
    }

    /// Takes over the turns of the nodes that are also in `before`. Otherwise, where nodes join and leave faster
    /// than a round passes, the last nodes would never be reached.
    pub fn resume(&self, before: &Pool) {
        let (Way::TakesTurns(turns), Way::TakesTurns(old)) = (&self.way, &before.way) else {
            return;
        };
        let left: HashMap<NodeId, TimeToTurn> = {
            let old = old.lock();
            let left = old.left(|at| before.nodes[at].weight());
            left.map(|(at, left)| (before.nodes[at].id, left)).collect()
        };
        let left_of = |node: &Arc<Node>| left.get(&node.id).copied().unwrap_or(TimeToTurn::NEW);
        *turns.lock() = RoundRobin::new(self.nodes.iter().map(left_of));
    }

    /// Sets whether flows go to the node with the fewest flows for its weight, whatever the method.
    pub fn level(&self, on: bool) {
        self.levels.store(on, Ordering::Relaxed);
    }

    /// Returns the pool's node of that identity.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.nodes.get(self.places[found].1)
    }

    /// Chooses among the nodes that are Up, have weight and room, and were not tried for this flow. If no untried
    /// node is Up, chooses among nodes that left DNS but still serve, because the nodes that replaced them may not
    /// serve yet; and then among the backups in the same order. A full node is no reason to use a backup.
    pub fn pick(&self, seed: Seed, tried: &[NodeId], now: Instant) -> Picked<'_> {
        let mut picks = RULES.iter().map(|may| self.pick_of(*may, seed, tried, now));
        let found = picks.find(|picked| !matches!(picked, Picked::Nobody));
        found.unwrap_or(Picked::Nobody)
    }

    /// Whether flows go to backups now: no other node can take them.
    pub fn lends_backups(&self) -> bool {
        let mut others = self.nodes.iter().filter(|n| !n.is_backup());
        !others.any(|n| takes(n) || leaves(n))
    }

    fn pick_of(&self, may: Rule, seed: Seed, tried: &[NodeId], now: Instant) -> Picked<'_> {
        let method = match &self.way {
            _ if self.levels.load(Ordering::Relaxed) => &least_flows::LeastFlows,
            Way::Compares(method) => *method,
            Way::TakesTurns(turns) => {
                return self.pick_open(may, tried, now, |open, tried| {
                    turns.lock().next(open, tried)
                });
            }
            Way::Computes => {
                let nodes = || self.nodes.iter().map(|n| (n.id, n.weight()));
                return self.pick_open(may, tried, now, |open, tried| {
                    let may = |at| open(at).is_some() && !tried(at);
                    hash::best(nodes(), seed.client, may)
                });
            }
        };
        let count = self.nodes.len();
        if count > EXACT {
            let mut rng = fastrand::Rng::with_seed(seed.random);
            let drawn = std::iter::repeat_with(|| rng.usize(..count)).take(SAMPLE);
            if let Picked::Node(node) = self.pick_among(drawn, method, may, seed, tried, now) {
                return Picked::Node(node);
            }
        }
        self.pick_among(0..count, method, may, seed, tried, now)
    }

    /// Lets `choose` find a node by two questions: whether a node is open (with its weight), and whether the
    /// flow tried it. So most nodes are never asked.
    fn pick_open(
        &self,
        may: Rule,
        tried: &[NodeId],
        now: Instant,
        choose: impl Fn(&dyn Fn(usize) -> Option<NonZeroU32>, &dyn Fn(usize) -> bool) -> Option<usize>,
    ) -> Picked<'_> {
        let open = |at: usize| {
            let node = &self.nodes[at];
            let weight = NonZeroU32::new(node.weight())?;
            (may(node) && node.room(now) == Room::Open).then_some(weight)
        };
        let is_tried = |at: usize| tried.contains(&self.nodes[at].id);
        while let Some(at) = choose(&open, &is_tried) {
            let node = &self.nodes[at];
            if node.limits.is_ramping() {
                self.settle_ramps();
            }
            // If this fails, another thread has taken the room meanwhile.
            if node.admit(now) {
                return Picked::Node(node);
            }
        }
        let up = |n: &Arc<Node>| may(n) && !tried.contains(&n.id);
        if self.nodes.iter().any(up) {
            Picked::Full
        } else {
            Picked::Nobody
        }
    }

    fn pick_among(
        &self,
        places: impl Iterator<Item = usize>,
        method: &dyn Method,
        may: Rule,
        seed: Seed,
        tried: &[NodeId],
        now: Instant,
    ) -> Picked<'_> {
        FACTS.with_borrow_mut(|(facts, of)| {
            facts.clear();
            of.clear();
            let (mut up, mut ramping) = (false, false);
            let levels = self.levels.load(Ordering::Relaxed);
            for at in places {
                let node = &self.nodes[at];
                if !may(node) || tried.contains(&node.id) {
                    continue;
                }
                up = true;
                let (id, weight) = (node.id, node.weight());
                // As many clients of a rebalance come back as the emptiest nodes lack: each of them goes there.
                let live = match levels {
                    true => node.load.of_server_as_told(),
                    false => node.load.of_server(),
                };
                ramping |= node.limits.is_ramping();
                if node.room(now) == Room::Open {
                    facts.push(Candidate { id, weight, live });
                    of.push(at);
                }
            }
            if ramping {
                self.settle_ramps();
            }
            while !facts.is_empty() {
                let chosen = method.pick(facts, seed);
                let node = &self.nodes[of[chosen]];
                if node.admit(now) {
                    return Picked::Node(node);
                }
                // Another thread has taken the room meanwhile.
                facts.swap_remove(chosen);
                of.swap_remove(chosen);
            }
            if up { Picked::Full } else { Picked::Nobody }
        })
    }

    /// Ends the slow start of nodes whose flows per weight have caught up with the nodes that are not in one.
    /// If all nodes returned at once, none sets a level to catch up with, and no slow start ends here.
    fn settle_ramps(&self) {
        let (mut flows, mut weights) = (0, 0);
        for node in self
            .nodes
            .iter()
            .filter(|n| takes(n) && !n.limits.is_ramping())
        {
            flows += node.load.of_server();
            weights += node.weight() as usize;
        }
        let ramping = self
            .nodes
            .iter()
            .filter(|n| n.limits.is_ramping() && weights > 0);
        for node in ramping {
            if node.load.of_server() * weights >= flows * node.weight() as usize {
                node.caught_up();
            }
        }
    }

    /// Time to admit all flows that wait now, at the rates of the nodes that are Up.
    pub fn backlog(&self) -> Duration {
        self.time_for(self.waiting.len())
    }

    /// Time to admit `flows` flows, at the rates of the nodes that are Up; zero if none has a rate.
    pub fn time_for(&self, flows: usize) -> Duration {
        let up = self.nodes.iter().filter(|n| n.state() == State::Up);
        let rate: f64 = up.filter_map(|n| n.limits.admits()).sum();
        if rate > 0.0 {
            Duration::from_secs_f64(flows as f64 / rate)
        } else {
            Duration::ZERO
        }
    }

    /// Returns when a node that [`Pool::pick`] may choose can admit the next flow. If no node may be chosen,
    /// returns `Open`, so that waiting flows are refused at once, as new ones are (D64).
    pub fn room(&self, now: Instant) -> Room {
        let room = |may: Rule| {
            let of = self.nodes.iter().filter(|n| may(n));
            of.map(|n| n.room(now)).min()
        };
        let room = RULES.iter().find_map(|may| room(*may));
        room.unwrap_or(Room::Open)
    }
}

/// Which nodes may be chosen.
type Rule = fn(&Node) -> bool;

/// The rules in the order in which they are tried: the last two are about backups.
const RULES: [Rule; 4] = [
    |node| takes(node) && !node.is_backup(),
    |node| leaves(node) && !node.is_backup(),
    |node| takes(node) && node.is_backup(),
    |node| leaves(node) && node.is_backup(),
];

/// Whether a node serves and drains only because it left DNS, so that it may take flows as a last resort.
fn leaves(node: &Node) -> bool {
    let is_well = node.state() == State::Draining && node.ordered() == Order::Up;
    node.weight() > 0 && is_well && node.is_leaving()
}

/// Whether the balancer may choose the node: Up, with weight.
fn takes(node: &Node) -> bool {
    node.weight() > 0 && node.state() == State::Up
}

#[cfg(test)]
mod tests;
