//! One run of a rebalance: decides which assignments to forget, which flows to close, and when.
//!
//! In: the time, and a [`Cluster`] to observe. Out: orders to it. Nothing here waits: a tick does what is
//! due. Source: Lightstreamer clustering §5, §5.1.
//!
//! A rule {node, before, share} forgets assignments by their hash. Its share grows from one live flow to the
//! next in the order of the hash. A flow is closed when the rule reaches it, so its client finds its token
//! forgotten. The rule spares table entries of clients with live flows; a close forgets such an entry by name.

mod cluster;
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
pub use cluster::Cluster;
pub(super) use node_progress::Place;
pub use node_progress::{Leaving, NodeProgress};
pub use state::RunState;

/// Slack of the pace: two and a half ticks, so that a late tick loses no move.
const LATE: Duration = Duration::from_millis(50);
/// How long the last closed clients have to come back; later ones are not replaced.
const AWAY: Duration = Duration::from_secs(10);
/// Pause between two surveys of all flows: new flows may have old assignments, and closed
/// clients may have come back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same pause while the run only waits for clients to come back.
const LOOK_SOON: Duration = Duration::from_millis(200);
/// A node is given up after this many surveys in a row in which nothing could be closed.
const LOOKS: u32 = 3;

/// A running rebalance.
pub struct RebalanceRun {
    /// The request.
    pub request: RebalanceRequest,
    /// Assignments learned before this second are moved.
    pub before: u64,
    /// State of the run.
    pub state: RunState,
    /// When it begins to move clients.
    pub begins: Instant,
    /// Progress of each node.
    pub nodes: HashMap<NodeId, NodeProgress>,
    /// Whether the run must go on though no flow is due, because the predecessor still has flows.
    pub holds: bool,
    /// The plan of the last tick.
    pub plan: Plan,
    /// The loads of that tick.
    pub loads: Vec<Load>,
    pool: PoolId,
    bucket: TokenBucket,
    /// Rate at which the nodes below their share accept clients, if limited below the request's rate.
    intake: Option<(Rate, TokenBucket)>,
    /// Flows assigned since the beginning, by the last survey; includes clients that
    /// reconnected after we closed them.
    arrived: usize,
    /// Clients moved by the predecessor; they count as back, wherever they are.
    carried: usize,
    surveyed: Option<Instant>,
    last_close: Option<Instant>,
    leaving: Vec<Leaving>,
}

impl RebalanceRun {
    /// Creates a run that begins at `begins`, the first instant of the second `before`. So every flow live
    /// now was learned before it, and every flow that comes back is learned after it.
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

    /// Continues the predecessor's run.
    pub fn carry(&mut self, nodes: HashMap<NodeId, NodeProgress>) {
        self.nodes = nodes;
        self.carried = self.moved();
    }

    /// Goes on where another edge was. Its clients are counted where they came back, at whatever edge.
    pub fn resume(&mut self, nodes: HashMap<NodeId, NodeProgress>) {
        self.nodes = nodes;
    }

    /// Clients that were closed and have not come back.
    fn away(&self) -> usize {
        self.moved().saturating_sub(self.carried + self.arrived)
    }

    /// Clients moved so far.
    pub fn moved(&self) -> usize {
        self.nodes.values().map(|s| s.moved).sum()
    }

    /// Clients still to be moved, by the last look.
    pub fn left(&self) -> usize {
        match self.state.is_over() {
            true => 0,
            false => self.nodes.values().map(|s| s.due).sum(),
        }
    }

    /// Does what is due at `now`: plans, closes flows or grows rules, and updates the state.
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

    /// Returns the rule that forgets this share of a node.
    fn rule(&self, node: NodeId, share: f64) -> Forget {
        Forget {
            pool: self.pool,
            node: Some(node),
            before: self.before,
            share,
            spares_live: self.request.close,
        }
    }

    /// Reads the loads and plans; closes nothing.
    pub fn look(&mut self, cluster: &impl Cluster) {
        self.leaving.retain(|l| cluster.has(l.node, l.flow));
        self.loads = cluster.loads(&self.leaving);
        let tolerance = match self.request.goal {
            Goal::Even(tolerance) => tolerance,
            Goal::Share(..) => 0.0,
        };
        let first = self.nodes.is_empty();
        // Counts clients on their way back; otherwise each close would lower the share of all nodes.
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
                // Without closing, flows stay where they are, so only the first look sets what is due.
                Goal::Even(_) if self.request.close || first => node.due = aim.excess,
                Goal::Share(from, share) if first && *from == load.name => {
                    node.due = (load.flows as f64 * share).round() as usize;
                }
                _ => {}
            }
        }
    }

    /// Chooses flows to close, one per token, from the node with the most to give.
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
                node.spared.remove(&next.flow.mark.id);
                node.due -= 1;
                node.share = node.share.max(Forget::share_at(next.at));
                orders.shares.insert(id, node.share);
                orders.closes.push((id, next.flow.flow));
            }
        }
    }

    /// Closes no faster than the nodes below their share accept clients (`slow_start`, `admit_rate`).
    fn follow_intake(&mut self, now: Instant) {
        let rate = intake(&self.loads, &self.plan).filter(|rate| *rate < self.request.rate);
        if self.intake.map(|(rate, _)| rate) != rate {
            self.intake = rate.map(|rate| (rate, TokenBucket::new(rate, LATE, now).begun()));
        }
    }

    /// Whether a share of this node is to be forgotten.
    pub(super) fn is_from(&self, id: NodeId) -> bool {
        let of = |from: &str| self.loads.iter().any(|l| l.id == id && l.name == from);
        matches!(&self.request.goal, Goal::Share(from, _) if of(from))
    }

    fn node(&self, id: NodeId) -> &NodeProgress {
        static NONE: std::sync::LazyLock<NodeProgress> =
            std::sync::LazyLock::new(NodeProgress::default);
        self.nodes.get(&id).unwrap_or(&NONE)
    }

    /// Reads the loads and plans. Once a second it also surveys all flows: how many clients
    /// came back, and which flows to close.
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
        let ids = cluster.loads(&[]).into_iter().map(|l| l.id);
        let flows: Vec<_> = ids.map(|id| (id, cluster.movable(id))).collect();
        let all = flows.iter().flat_map(|(_, flows)| flows);
        let arrived = all.filter(|f| f.mark.learned >= self.before).count();
        self.arrived = arrived + cluster.arrived();
        self.look(cluster);
        for (id, flows) in flows {
            if self.node(id).due > 0 || self.is_from(id) {
                self.queue(id, flows);
            }
        }
    }

    /// Queues the flows of a node in the order in which its rule reaches them.
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

    /// Grows the rules without closing flows, one client per token.
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

    /// Returns the state of the run after this tick.
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
                // New flows with an old assignment may have come since the last survey.
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

    /// Forgets the whole share, however many flows the node had.
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
