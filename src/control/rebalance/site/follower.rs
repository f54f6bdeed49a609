//! One edge's part in a rebalance of the site: forgets what the leader says, and closes its flows of it.
//!
//! In: the published state of the run. Out: rules obeyed, flows closed, a [`Part`] for the leader. Without a clock of
//! its own. Source: issue 16 §5.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pushgate_plugins::api::NodeId;

use super::part::{AtNode, Next, Part};
use super::site_run::SiteRun;
use crate::balance::Pool;
use crate::config::units::Rate;
use crate::control::rebalance::live::Live;
use crate::control::rebalance::run::{Cluster, Place};

/// Pause between two surveys of all flows of this edge.
const SURVEY: Duration = Duration::from_millis(500);
/// Pause before a flow is closed: its client may come back at once to an edge that has not heard yet.
pub const BEFORE_CLOSE: Duration = Duration::from_millis(20);
/// A run that the store does not know, and of which nothing was heard for this long, is lost.
const LOST: Duration = Duration::from_secs(10);
/// Most flows told to the leader for each node, whatever the rate.
const MOST_TOLD: usize = 2_048;

/// One edge's part.
pub struct Follower {
    /// The last state that was obeyed.
    pub state: SiteRun,
    nodes: HashMap<NodeId, AtHand>,
    /// Flows to close that are still live.
    closing: Vec<Closing>,
    arrived: usize,
    surveyed: Option<Instant>,
    /// When a state was last obeyed.
    heard: Option<Instant>,
}

/// A flow that is being closed.
struct Closing {
    node: NodeId,
    flow: u64,
    due: Instant,
    /// Whether it was closed. One whose answer has not begun is tried again; mostly it ends by itself.
    closed: bool,
}

/// The flows of one node.
#[derive(Default)]
struct AtHand {
    /// Flows above the share; the next one is last.
    queue: Vec<Place>,
    /// Flows below the share that are spared.
    spared: Vec<Place>,
}

impl Follower {
    /// Begins a part in a run of which nothing was obeyed yet.
    pub fn new(state: &SiteRun) -> Self {
        let state = SiteRun {
            run: state.run.clone(),
            ..SiteRun::default()
        };
        Follower {
            state,
            nodes: HashMap::new(),
            closing: Vec::new(),
            arrived: 0,
            surveyed: None,
            heard: None,
        }
    }

    /// Obeys a change, if it is the next one. If one was missed, the whole state follows within a second.
    pub fn obey_change(&mut self, change: &SiteRun, live: &Live<'_>, now: Instant) {
        let mut whole = self.state.clone();
        if whole.add(change) {
            self.obey(&whole, live, now);
        }
    }

    /// Obeys a state of the run, unless a later one was obeyed before.
    pub fn obey(&mut self, state: &SiteRun, live: &Live<'_>, now: Instant) {
        if state.seq < self.state.seq {
            return;
        }
        for (name, of) in &state.nodes {
            let before = self.state.nodes.get(name).map_or(0, |of| of.share);
            if of.share > before {
                (live.forget)(&state.rule(live.pool, name, of.share()));
            }
        }
        self.state = state.clone();
        self.heard = Some(now);
        live.pool.level(!state.over);
        self.tick(live, now);
    }

    /// Whether no leader was heard for long.
    pub fn is_lost(&self, now: Instant) -> bool {
        self.heard
            .is_some_and(|at| now.saturating_duration_since(at) > LOST)
    }

    /// Closes what is still to be closed.
    pub fn tick(&mut self, live: &Live<'_>, now: Instant) {
        if self.state.close {
            self.survey(live, now);
            self.choose(live.pool, now + BEFORE_CLOSE);
            self.close(live, now);
        }
    }

    /// Returns what this edge, `edge`, has.
    pub fn part(&self, pool: &Pool, edge: &str) -> Part {
        let rate = self.state.rate.parse::<Rate>();
        let rate = rate.map_or(0.0, Rate::per_second);
        let most = ((rate * 3.0) as usize).clamp(64, MOST_TOLD);
        let mut part = Part {
            run: self.state.run.clone(),
            edge: edge.to_owned(),
            seq: self.state.seq,
            arrived: self.arrived,
            nodes: Default::default(),
        };
        for node in &pool.nodes {
            let leaving = self.closing.iter().filter(|c| c.node == node.id);
            let leaving: Vec<u64> = leaving.map(|c| c.flow).collect();
            let wanted = self.state.nodes.get(&node.name).is_some_and(|of| of.wanted);
            let at_hand = self.nodes.get(&node.id).filter(|_| wanted);
            let queue = at_hand.map_or(&[][..], |at| &at.queue);
            // Those that are spared may be chosen after all, when more are due.
            let spared = at_hand.map_or(&[][..], |at| &at.spared);
            let next = spared.iter().chain(queue.iter().rev());
            let at = AtNode {
                flows: node.flows.count_without(&leaving),
                next: wanted.then(|| Next(next.take(most).map(|p| p.flow.mark).collect())),
                more: spared.len() + queue.len() > most,
            };
            part.nodes.insert(node.name.clone(), at);
        }
        part
    }

    /// Lists the flows of old assignments, in the order in which the rule reaches them.
    fn survey(&mut self, live: &Live<'_>, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < SURVEY;
        if self.surveyed.is_some_and(is_recent) {
            return;
        }
        self.surveyed = Some(now);
        let closing: HashSet<u64> = self.closing.iter().map(|c| c.flow).collect();
        self.arrived = 0;
        for node in &live.pool.nodes {
            let rule = self.state.rule(live.pool, &node.name, 0.0);
            let flows = live.movable(node.id);
            let (old, new): (Vec<_>, Vec<_>) = flows
                .into_iter()
                .partition(|f| f.mark.learned < rule.before);
            self.arrived += new.len();
            let old = old.into_iter().filter(|f| !closing.contains(&f.flow));
            let mut queue: Vec<Place> = old
                .map(|flow| Place {
                    at: rule.place(flow.mark.id),
                    flow,
                })
                .collect();
            queue.sort_unstable_by(|a, b| b.at.total_cmp(&a.at));
            let spared = Vec::new();
            self.nodes.insert(node.id, AtHand { queue, spared });
        }
    }

    /// Takes the flows out of the queues that the rule has reached, to be closed when they are `due`.
    fn choose(&mut self, pool: &Pool, due: Instant) {
        for (name, of) in &self.state.nodes {
            let (Some(node), share) = (pool.node(NodeId::of(name)), of.share()) else {
                continue;
            };
            let Some(at_hand) = self.nodes.get_mut(&node.id) else {
                continue;
            };
            let is_spared = |p: &Place| of.spared.contains(&p.flow.mark.id);
            let closing = &mut self.closing;
            at_hand.spared.retain(|p| {
                let stays = is_spared(p);
                if !stays {
                    closing.push(Closing::new(node.id, p, due));
                }
                stays
            });
            while let Some(next) = at_hand.queue.pop_if(|p| p.at < share) {
                match is_spared(&next) {
                    true => at_hand.spared.push(next),
                    false => closing.push(Closing::new(node.id, &next, due)),
                }
            }
        }
    }

    /// Closes the chosen flows that are due.
    fn close(&mut self, live: &Live<'_>, now: Instant) {
        for one in self
            .closing
            .iter_mut()
            .filter(|c| !c.closed && c.due <= now)
        {
            one.closed = live.close(one.node, one.flow);
        }
        self.closing.retain(|c| live.has(c.node, c.flow));
    }
}

impl Closing {
    fn new(node: NodeId, place: &Place, due: Instant) -> Self {
        Closing {
            node,
            flow: place.flow.flow,
            due,
            closed: false,
        }
    }
}
