//! One run of a rebalance: which assignments are forgotten and which flows closed, and when.
//!
//! In: the time, and a [`Cluster`] to look at. Out: orders to it. Nothing here waits: a tick does
//! what is due. Source: Lightstreamer clustering §5, §5.1.
//!
//! A rule {node, before, share} forgets assignments by their hash. Its share grows from one live flow
//! to the next in the order of that hash, and each flow is closed when the rule has come to it: its
//! client finds its token forgotten. What a table remembers of clients with live flows is forgotten
//! by name, as they are closed.

mod node_progress;
mod state;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pushgate_plugins::api::{Forget, NodeId, PoolId};

use super::plan::{Load, Plan, intake, plan};
use super::request::{Goal, RebalanceRequest};
use crate::config::units::Rate;
use crate::upstream::flow_limiter::TokenBucket;
use crate::upstream::live_flows::MovableFlow;
pub use node_progress::NodeProgress;
use node_progress::{Leaving, Place};
pub use state::RunState;

/// A pool as a run sees it.
pub trait Cluster {
    /// Its nodes.
    fn loads(&self) -> Vec<Load>;
    /// The flows of a node that can be moved.
    fn movable(&self, node: NodeId) -> Vec<MovableFlow>;
    /// Whether the flow is live.
    fn has(&self, node: NodeId, flow: u64) -> bool;
    /// Forgets what the rule covers.
    fn forget(&self, what: &Forget);
    /// Closes a flow whose client is forgotten; false if that cannot be.
    fn close(&self, node: NodeId, flow: u64) -> bool;
}

/// Two ticks and a half: a late one loses no move.
const LATE: Duration = Duration::from_millis(50);
/// Time the last closed clients are given to come back; those who stay away longer are not replaced.
const AWAY: Duration = Duration::from_secs(10);
/// Flows are looked at again after so long: some are new with an old assignment, and clients who
/// were closed have come back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same while nothing is left to do but for clients who are on their way back.
const LOOK_SOON: Duration = Duration::from_millis(200);
/// Looks in a row after which nothing could be closed until a node is given up.
const LOOKS: u32 = 3;

/// A rebalance under way.
pub struct RebalanceRun {
    /// What was asked for.
    pub request: RebalanceRequest,
    /// Assignments learned before this second are moved.
    pub before: u64,
    /// Where it stands.
    pub state: RunState,
    /// When it began to move.
    pub begins: Instant,
    /// What is done to each node.
    pub nodes: HashMap<NodeId, NodeProgress>,
    /// Whether it waits for flows, though nothing is left to be done: another process still has some.
    pub holds: bool,
    /// By the last tick.
    pub plan: Plan,
    /// The loads of that tick.
    pub loads: Vec<Load>,
    pool: PoolId,
    bucket: TokenBucket,
    /// What those below their share are given a second, where that is limited.
    intake: Option<(Rate, TokenBucket)>,
    /// Flows assigned since the beginning, by the last survey: who was closed is back among them.
    arrived: usize,
    /// Clients moved by another process: they are back, wherever they are.
    carried: usize,
    surveyed: Option<Instant>,
    last_close: Option<Instant>,
    leaving: Vec<Leaving>,
}

impl RebalanceRun {
    /// A run that begins at `begins`, the first instant of the second `before`: so every flow
    /// that is live now was learned before it, and none that comes back was.
    pub fn new(pool: PoolId, request: RebalanceRequest, before: u64, begins: Instant) -> Self {
        RebalanceRun {
            bucket: TokenBucket::new(request.rate, LATE, begins).begun(),
            request,
            before,
            state: RunState::Running,
            begins,
            nodes: HashMap::new(),
            holds: false,
            plan: plan(&[], 0, 0.0),
            loads: Vec::new(),
            pool,
            intake: None,
            arrived: 0,
            carried: 0,
            surveyed: None,
            last_close: None,
            leaving: Vec::new(),
        }
    }

    /// Goes on where another process was.
    pub fn carry(&mut self, nodes: HashMap<NodeId, NodeProgress>) {
        self.nodes = nodes;
        self.carried = self.moved();
    }

    /// Clients that were closed and are not back.
    fn away(&self) -> usize {
        self.moved().saturating_sub(self.carried + self.arrived)
    }

    /// Clients moved so far.
    pub fn moved(&self) -> usize {
        self.nodes.values().map(|s| s.moved).sum()
    }

    /// Clients still to be moved, as far as is known.
    pub fn left(&self) -> usize {
        match self.state.is_over() {
            true => 0,
            false => self.nodes.values().map(|s| s.due).sum(),
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, cluster: &impl Cluster) {
        if self.state.is_over() || now < self.begins {
            return self.look(cluster);
        }
        let orders = if self.request.close {
            self.survey(now, cluster);
            self.choose(now)
        } else {
            self.look(cluster);
            self.advance(now)
        };
        for (node, share) in &orders.shares {
            cluster.forget(&self.rule(*node, *share));
        }
        for (node, flow) in orders.closes {
            let closed = false;
            self.leaving.push(Leaving { node, flow, closed });
        }
        self.close_leaving(now, cluster);
        self.state = self.judge(now);
        if self.state == RunState::Done
            && let Goal::Share(..) = self.request.goal
        {
            self.finish(cluster);
        }
    }

    fn close_leaving(&mut self, now: Instant, cluster: &impl Cluster) {
        for l in self.leaving.iter_mut().filter(|l| !l.closed) {
            l.closed = cluster.close(l.node, l.flow);
            if l.closed {
                self.last_close = Some(now);
                let node = self.nodes.entry(l.node).or_default();
                node.moved += 1;
                node.fruitless = 0;
            }
        }
    }

    /// The rule that forgets this share of a node.
    fn rule(&self, node: NodeId, share: f64) -> Forget {
        Forget {
            pool: self.pool,
            node,
            before: self.before,
            share,
            spares_live: self.request.close,
        }
    }

    /// Takes the facts and plans; closes nothing.
    pub fn look(&mut self, cluster: &impl Cluster) {
        self.leaving.retain(|l| cluster.has(l.node, l.flow));
        self.loads = cluster.loads();
        for load in &mut self.loads {
            let leaving = self.leaving.iter().filter(|l| l.node == load.id);
            load.flows = load.flows.saturating_sub(leaving.count());
        }
        let tolerance = match self.request.goal {
            Goal::Even(tolerance) => tolerance,
            Goal::Share(..) => 0.0,
        };
        let first = self.nodes.is_empty();
        // Without those who are on their way back each close would lower the share of all.
        let away = match self.request.close {
            true => self.away(),
            false => 0,
        };
        self.plan = plan(&self.loads, away, tolerance);
        let stays = |id: &NodeId| self.loads.iter().any(|l| l.id == *id);
        for (_, gone) in self.nodes.iter_mut().filter(|(id, _)| !stays(id)) {
            gone.due = 0;
        }
        for (load, aim) in self.loads.iter().zip(&self.plan.aims) {
            let node = self.nodes.entry(load.id).or_insert_with(|| NodeProgress {
                flows: load.flows,
                ..NodeProgress::default()
            });
            match &self.request.goal {
                // Where nothing is closed the flows stay: what is due is known at the beginning.
                Goal::Even(_) if self.request.close || first => node.due = aim.excess,
                Goal::Share(from, share) if first && *from == load.name => {
                    node.due = (load.flows as f64 * share).round() as usize;
                }
                _ => {}
            }
        }
    }

    /// Chooses flows to close: as many as there are tokens, of the node with most to give first.
    fn choose(&mut self, now: Instant) -> Orders {
        let mut orders = Orders::default();
        let ids: Vec<NodeId> = self.loads.iter().map(|l| l.id).collect();
        self.follow_intake(now);
        loop {
            let able = ids.iter().filter(|id| {
                let node = self.node(**id);
                node.due > 0 && !node.queue.is_empty()
            });
            let Some(id) = able.max_by_key(|id| self.node(**id).due).copied() else {
                return orders;
            };
            let even = matches!(self.request.goal, Goal::Even(_));
            let node = self.nodes.entry(id).or_default();
            if even && node.skip_large() {
                continue;
            }
            let taken = self
                .intake
                .as_mut()
                .is_none_or(|(_, b)| b.wait(now).is_zero())
                && self.bucket.take(now);
            if !taken {
                return orders;
            }
            if let Some((_, bucket)) = &mut self.intake {
                bucket.take(now);
            }
            let node = self.nodes.entry(id).or_default();
            if let Some(next) = node.queue.pop() {
                node.due -= 1;
                node.share = node.share.max(Forget::share_at(next.at));
                orders.shares.insert(id, node.share);
                orders.closes.push((id, next.flow.flow));
            }
        }
    }

    /// Closes no faster than those below their share are given clients (`slow_start`, `admit_rate`).
    fn follow_intake(&mut self, now: Instant) {
        let rate = intake(&self.loads, &self.plan).filter(|rate| *rate < self.request.rate);
        if self.intake.map(|(rate, _)| rate) != rate {
            self.intake = rate.map(|rate| (rate, TokenBucket::new(rate, LATE, now).begun()));
        }
    }

    /// Whether a share of this node is to be forgotten.
    fn is_from(&self, id: NodeId) -> bool {
        let of = |from: &str| self.loads.iter().any(|l| l.id == id && l.name == from);
        matches!(&self.request.goal, Goal::Share(from, _) if of(from))
    }

    fn node(&self, id: NodeId) -> &NodeProgress {
        static NONE: std::sync::LazyLock<NodeProgress> =
            std::sync::LazyLock::new(NodeProgress::default);
        self.nodes.get(&id).unwrap_or(&NONE)
    }

    /// Takes the facts and plans; once a second looks at all flows: how many clients have come, and
    /// which are to be closed.
    fn survey(&mut self, now: Instant, cluster: &impl Cluster) {
        let pause = match self.state {
            RunState::Settling => LOOK_SOON,
            _ => LOOK_AGAIN,
        };
        let recent = |at: Instant| now.duration_since(at) < pause;
        if self.surveyed.is_some_and(recent) {
            return self.look(cluster);
        }
        self.surveyed = Some(now);
        let ids = cluster.loads().into_iter().map(|l| l.id);
        let flows: Vec<_> = ids.map(|id| (id, cluster.movable(id))).collect();
        let all = flows.iter().flat_map(|(_, flows)| flows);
        self.arrived = all.filter(|f| f.mark.learned >= self.before).count();
        self.look(cluster);
        for (id, flows) in flows {
            if self.node(id).due > 0 || self.is_from(id) {
                self.queue(id, flows);
            }
        }
    }

    /// Lines up the flows of a node as its rule will meet them.
    fn queue(&mut self, id: NodeId, flows: Vec<MovableFlow>) {
        let rule = self.rule(id, 0.0);
        let up_to = match self.request.goal {
            Goal::Even(_) => 1.0,
            Goal::Share(_, share) => share,
        };
        let place = |flow: MovableFlow| Place {
            at: rule.place(flow.mark.id),
            flow,
        };
        let leaving: HashSet<u64> = self.leaving.iter().map(|l| l.flow).collect();
        let places = flows.into_iter().map(place).filter(|p| {
            let old = p.flow.mark.learned < rule.before;
            old && p.at < up_to && !leaving.contains(&p.flow.flow)
        });
        let node = self.nodes.entry(id).or_default();
        node.queue = places.collect();
        node.queue.sort_unstable_by(|a, b| b.at.total_cmp(&a.at));
        node.found_none = node.queue.is_empty();
        node.fruitless += 1;
        if let Goal::Share(..) = self.request.goal {
            node.due = node.queue.len();
        }
    }

    /// Lets rules grow without closing: as many clients as there are tokens.
    fn advance(&mut self, now: Instant) -> Orders {
        let mut orders = Orders::default();
        while let Some((id, node)) = self.nodes.iter_mut().max_by_key(|(_, node)| node.due) {
            if node.due == 0 || !self.bucket.take(now) {
                break;
            }
            node.moved += 1;
            node.due -= 1;
            node.share = node.moved as f64 / node.flows.max(node.moved) as f64;
            orders.shares.insert(*id, node.share);
        }
        orders
    }

    /// Where the run stands after what was done.
    fn judge(&self, now: Instant) -> RunState {
        let due = self.nodes.values().filter(|s| s.due > 0);
        let hopeless = |s: &NodeProgress| s.queue.is_empty() && s.fruitless >= LOOKS;
        let waited = |at: Instant| now.duration_since(at) >= AWAY;
        let all_back = self.away() == 0 || self.last_close.is_none_or(waited);
        let mut due = due.peekable();
        match (&self.request.goal, due.peek().is_some()) {
            _ if self.holds && self.request.close => RunState::Running,
            (Goal::Even(_), true) if self.request.close => {
                let given_up = due.all(hopeless) && all_back;
                if given_up {
                    RunState::Exhausted
                } else {
                    RunState::Running
                }
            }
            (_, true) => RunState::Running,
            (Goal::Even(_), false) if self.request.close && !all_back => RunState::Settling,
            (Goal::Share(from, _), false) if self.request.close => {
                let of = self.loads.iter().find(|l| l.name == *from);
                // New flows with an old assignment may have come since the last look.
                let none = of.is_none_or(|l| self.node(l.id).found_none);
                if none {
                    RunState::Done
                } else {
                    RunState::Settling
                }
            }
            (_, false) => RunState::Done,
        }
    }

    /// The whole share, whatever flows there were.
    fn finish(&mut self, cluster: &impl Cluster) {
        let Goal::Share(from, share) = &self.request.goal else {
            return;
        };
        if let Some(load) = self.loads.iter().find(|l| l.name == *from) {
            cluster.forget(&self.rule(load.id, *share));
            self.nodes.entry(load.id).or_default().share = *share;
        }
    }
}

#[derive(Default)]
struct Orders {
    shares: HashMap<NodeId, f64>,
    closes: Vec<(NodeId, u64)>,
}

#[cfg(test)]
mod tests;
