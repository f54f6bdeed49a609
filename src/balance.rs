//! Chooses a node of a pool for a flow that is not stuck, among those whose limits allow it.
//!
//! Pure functions of the nodes' facts, one trait; `round_robin` remembers whose turn it is. Source: Lightstreamer clustering §2.1
//! ("balancing"), §1 (S connections can always be freely balanced), §2.2.2, §3.2.1.2, §3.2.2.2 (the
//! edge balances S, CR does not pass it).

mod hash;
mod least_flows;
pub mod queue;
mod random;
mod round_robin;
pub mod wait;

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pushgate_plugins::api::{NodeId, PoolId};

use self::round_robin::{RoundRobin, TimeToTurn};
use self::wait::Waiting;
use crate::config::units::Rate;
use crate::config::{self, Balance, NoNode, OnLost};
use crate::upstream::flow_limiter::Room;
use crate::upstream::node::Order;
use crate::upstream::{Node, State};

/// Facts of one node that can take the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Identity.
    pub id: NodeId,
    /// Weight, above 0.
    pub weight: u32,
    /// Live flows.
    pub live: usize,
}

/// Facts of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Hash of the client's address.
    pub client: u64,
    /// A random number.
    pub random: u64,
}

/// A way to choose by facts: a few nodes drawn by lot are as good to choose from as all of a large pool.
pub trait Method: Send + Sync {
    /// Index of the chosen candidate; there is at least one.
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize;
}

/// How a pool chooses.
enum Way {
    /// By the facts of its nodes.
    Compares(&'static dyn Method),
    /// One after the other.
    TakesTurns(Mutex<RoundRobin>),
    /// By the client's address.
    Computes,
}

impl Way {
    /// The way of a configured word, among so many nodes.
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
    /// Identity.
    pub id: PoolId,
    /// Name in the configuration.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<Arc<Node>>,
    /// Their places, in the order of identities: stickiness asks for nodes by those, flow by flow.
    places: Box<[(NodeId, usize)]>,
    /// Deadline of connecting.
    pub connect_timeout: Duration,
    /// Other nodes tried after a failed connect.
    pub retries: u32,
    /// Answer when no node can take the flow.
    pub no_node: NoNode,
    /// Answer when a node is lost before it answered, and the request may not be repeated.
    pub on_lost: OnLost,
    /// Other nodes tried for a request that a node got and did not answer, if it may be repeated; 0: none.
    pub retry_unanswered: u32,
    /// Paths of requests that may be repeated whatever their method; compared whole, without query.
    pub retry_on: Box<[String]>,
    /// Flows that wait because every node is at its limit.
    pub waiting: Waiting,
    /// While a rebalance runs: flows go to the node with the fewest, whatever the method, so that
    /// no client is closed only to come back to a full node.
    levels: AtomicBool,
    /// The pool of this name that is in force, shared by all that had the name.
    latest: Arc<ArcSwapOption<Pool>>,
    /// How clients are moved.
    pub rebalance: config::Rebalance,
    /// Paths of requests that are balanced anew although their client is stuck.
    pub rebalance_on: Box<[String]>,
    way: Way,
}

/// What the balancer says.
pub enum Picked<'a> {
    /// This node, which has let the flow in.
    Node(&'a Arc<Node>),
    /// None now: those that are Up are at their limits.
    Full,
    /// None: no node is Up.
    Nobody,
}

/// In pools up to this size every node is looked at.
const EXACT: usize = 64;
/// Nodes drawn of a larger pool: the emptiest of 32 is among the emptiest tenth of all but for one
/// flow in 30, and looking at 1,000 nodes took 22 µs.
const SAMPLE: usize = 32;

thread_local! {
    /// Candidates of the pick under way, with their places in the pool: a pick allocates nothing.
    static FACTS: RefCell<(Vec<Candidate>, Vec<usize>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Pool {
    /// Builds a pool of the nodes given.
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

    /// Stands in the place of `before`, once it is put in force.
    pub fn after(self, before: &Pool) -> Self {
        self.resume(before);
        Pool {
            latest: before.latest.clone(),
            ..self
        }
    }

    /// Is in force from now on: flows that began with a pool of this name before it are balanced here.
    pub fn put_in_force(self: &Arc<Self>) {
        self.latest.store(Some(self.clone()));
    }

    /// Has a successor, to which flows that wait here move, or is removed: then they stay.
    pub fn resign(&self, succeeded: bool) {
        match succeeded {
            true => self.waiting.dissolve(),
            false => self.latest.store(None),
        }
    }

    /// The pool of its name that is in force.
    pub fn current(self: &Arc<Self>) -> Arc<Self> {
        self.latest.load_full().unwrap_or_else(|| self.clone())
    }

    /// Takes turns from where the pool `before` it stands, as far as they have nodes in common: where nodes
    /// join and leave faster than a round passes, the last would never be reached otherwise.
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

    /// Says whether flows go to the node with the fewest, whatever the method.
    pub fn level(&self, on: bool) {
        self.levels.store(on, Ordering::Relaxed);
    }

    /// The pool's node of that identity.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        let found = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.nodes.get(self.places[found].1)
    }

    /// Chooses among the nodes that are Up, have weight and room, and were not tried for this flow. Where none
    /// is Up, among those that left DNS and are still there: what DNS has instead may not serve yet.
    pub fn pick(&self, seed: Seed, tried: &[NodeId], now: Instant) -> Picked<'_> {
        match self.pick_of(takes, seed, tried, now) {
            Picked::Nobody => self.pick_of(leaves, seed, tried, now),
            picked => picked,
        }
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

    /// Lets `choose` find a node by what is asked of few: whether it is open, with its weight, and whether it
    /// was tried.
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
            if node.is_ramping() {
                self.settle_ramps();
            }
            // Otherwise another thread was given its room meanwhile.
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
            for at in places {
                let node = &self.nodes[at];
                if !may(node) || tried.contains(&node.id) {
                    continue;
                }
                up = true;
                let (id, weight, live) = (node.id, node.weight(), node.live());
                ramping |= node.is_ramping();
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
                // Another thread was given its room meanwhile.
                facts.swap_remove(chosen);
                of.swap_remove(chosen);
            }
            if up { Picked::Full } else { Picked::Nobody }
        })
    }

    /// Ends the slow start of nodes that have as many flows for their weight as those without one.
    /// Where all have returned at once there is nobody to catch up with.
    fn settle_ramps(&self) {
        let (mut flows, mut weights) = (0, 0);
        for node in self.nodes.iter().filter(|n| takes(n) && !n.is_ramping()) {
            flows += node.live();
            weights += node.weight() as usize;
        }
        let ramping = self.nodes.iter().filter(|n| n.is_ramping() && weights > 0);
        for node in ramping {
            if node.live() * weights >= flows * node.weight() as usize {
                node.caught_up();
            }
        }
    }

    /// Time in which those that wait now can be let in, by the rates of the nodes that are Up.
    pub fn backlog(&self) -> Duration {
        self.time_for(self.waiting.len())
    }

    /// Time in which so many flows can be let in.
    pub fn time_for(&self, flows: usize) -> Duration {
        let up = self.nodes.iter().filter(|n| n.state() == State::Up);
        let rate: f64 = up
            .filter_map(|n| n.admit_rate())
            .map(Rate::per_second)
            .sum();
        if rate > 0.0 {
            Duration::from_secs_f64(flows as f64 / rate)
        } else {
            Duration::ZERO
        }
    }

    /// When the next flow can be let in, by any node that [`Pool::pick`] may choose. Where there is
    /// none, now: those that wait are to be told so, as newcomers are (D64).
    pub fn room(&self, now: Instant) -> Room {
        let room = |may: Rule| {
            let of = self.nodes.iter().filter(|n| may(n));
            of.map(|n| n.room(now)).min()
        };
        let room = room(takes).or_else(|| room(leaves));
        room.unwrap_or(Room::Open)
    }
}

/// Which nodes may be chosen.
type Rule = fn(&Node) -> bool;

/// Whether the node may be given flows though it is to go: it serves, and only DNS says so.
fn leaves(node: &Node) -> bool {
    let is_well = node.state() == State::Draining && node.ordered() == Order::Up;
    node.weight() > 0 && is_well && node.is_leaving()
}

/// Whether the balancer may give the node flows at all.
fn takes(node: &Node) -> bool {
    node.weight() > 0 && node.state() == State::Up
}

#[cfg(test)]
mod tests;
