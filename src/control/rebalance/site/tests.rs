//! A rebalance of three edges on a virtual clock: real nodes and flows, without a store.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{Forget, Forgotten, Mark};

use super::follower::Follower;
use super::part::Part;
use super::planner::Planner;
use super::site_run::SiteRun;
use crate::balance::Pool;
use crate::config::{self, OnDown};
use crate::control::rebalance::live::Live;
use crate::control::rebalance::request::{Goal, RebalanceRequest};
use crate::control::rebalance::run::{RebalanceRun, RunState};
use crate::upstream::live_flows::Stickiness;
use crate::upstream::node::Entered;
use crate::upstream::{LiveFlow, Node};

const NAMES: [&str; 3] = ["a", "b", "c"];
const NOW: u64 = 1_000;
const TICK: Duration = Duration::from_millis(20);

/// A live flow with its entry and its mark.
type Held = (Arc<LiveFlow>, Entered, Mark);

/// An edge with its flows.
struct Edge {
    pool: Arc<Pool>,
    flows: RefCell<BTreeMap<u64, Held>>,
    follower: RefCell<Option<Follower>>,
    forgotten: RefCell<Vec<Forget>>,
    closed: RefCell<Vec<u64>>,
}

impl Edge {
    fn new() -> Edge {
        let conf: config::Pool = serde_yaml::from_str("{ nodes: [a, b, c] }").expect("a pool");
        let node = |name| {
            let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
            Node::new(name, &conf, OnDown::Evict, None)
        };
        Edge {
            pool: Arc::new(Pool::new("push", &conf, NAMES.map(node).into())),
            flows: RefCell::default(),
            follower: RefCell::default(),
            forgotten: RefCell::default(),
            closed: RefCell::default(),
        }
    }

    fn enter(&self, node: usize, mark: Mark) {
        let flow = LiveFlow::new();
        let pool = self.pool.id;
        let entered = self.pool.nodes[node].enter(&flow, Some(Stickiness { pool, mark }));
        flow.begin();
        let mut flows = self.flows.borrow_mut();
        flows.insert(flow.id, (flow.clone(), entered, mark));
    }

    fn with<T>(&self, look: impl FnOnce(&mut Follower, &Live<'_>) -> T) -> Option<T> {
        let live = Live {
            pool: &self.pool,
            forget: &|what: &Forget| self.forgotten.borrow_mut().push(*what),
            closed: &|_: &Node, flow| self.closed.borrow_mut().push(flow),
        };
        self.follower.borrow_mut().as_mut().map(|f| look(f, &live))
    }

    /// The marks of flows that were never closed.
    fn stayed(&self) -> Vec<Mark> {
        let flows = self.flows.borrow();
        let marks = flows.values().map(|(.., mark)| *mark);
        marks.filter(|m| m.learned < NOW).collect()
    }

    fn obey(&self, state: &SiteRun, now: Instant) {
        self.follower
            .borrow_mut()
            .get_or_insert_with(|| Follower::new(state));
        self.with(|f, live| f.obey(state, live, now));
    }

    fn obey_change(&self, change: &SiteRun, now: Instant) {
        self.with(|f, live| f.obey_change(change, live, now));
    }

    fn part(&self, name: &str, now: Instant) -> Option<Part> {
        self.with(|f, live| {
            f.tick(live, now);
            f.part(live.pool, name)
        })
    }
}

/// What a run did.
struct Outcome {
    state: RunState,
    moved: usize,
    closes: Vec<Duration>,
    counts: Vec<usize>,
    left: Vec<Mark>,
    share: f64,
}

fn mark(id: u64, by: Forgotten) -> Mark {
    Mark {
        id,
        learned: NOW - 1,
        by,
        cut_after: None,
    }
}

fn request(rate: u64) -> RebalanceRequest {
    RebalanceRequest {
        goal: Goal::Even(0.0),
        rate: config::units::Rate::a_second(rate),
        close: true,
        dry_run: false,
        before: None,
    }
}

/// Runs a rebalance of `edges`, whose closed clients come back after 300 ms at the next edge. `lose`: the leader dies
/// after this many ticks, and the second edge goes on from the last state. The last edge then misses every 40th word too,
/// and gets the whole with the next 50th tick.
fn run(edges: &[Edge], rate: u64, lose: Option<usize>) -> Outcome {
    let misses = lose.is_some();
    let (start, request) = (Instant::now(), request(rate));
    let pool = edges[0].pool.clone();
    let mut planner = Planner::new(RebalanceRun::new(pool.id, request, NOW, start), 0);
    let mut state = SiteRun {
        run: "r".into(),
        ..SiteRun::default()
    };
    let mut parts: Vec<Part> = Vec::new();
    let (mut away, mut closes) = (Vec::new(), Vec::new());
    for tick in 0..3_000 {
        let now = start + TICK * tick as u32;
        if lose == Some(tick) {
            let run = state.restore(&pool, now).expect("a run");
            planner = Planner::new(run, state.seq);
        }
        if tick % 10 == 0 {
            let all = edges.iter().enumerate();
            parts = all
                .filter_map(|(n, e)| e.part(&n.to_string(), now))
                .collect();
        }
        planner.tick(&pool, &parts, now);
        let before = state.nodes.clone();
        state.note(&pool, &planner.run);
        if state.nodes != before || state.over || tick % 50 == 0 {
            state.seq = planner.seq + 1;
            planner.seq = state.seq;
            for (n, edge) in edges.iter().enumerate() {
                match tick {
                    _ if misses && n == 2 && state.seq % 40 == 7 && !state.over => {}
                    _ if tick % 50 == 0 || state.over => edge.obey(&state, now),
                    _ => edge.obey_change(&state.change(&before), now),
                }
            }
        }
        for (n, edge) in edges.iter().enumerate() {
            for flow in edge.closed.take() {
                let (_, _, mark) = edge.flows.borrow_mut().remove(&flow).expect("a flow");
                closes.push(now - start);
                let back = now + Duration::from_millis(300);
                away.push((back, (n + 1) % edges.len(), mark));
            }
        }
        away.retain(|(back, edge, mark)| {
            if *back <= now {
                let node = (0..3).min_by_key(|n| live(edges, *n)).expect("a node");
                let learned = NOW;
                edges[*edge].enter(node, Mark { learned, ..*mark });
            }
            *back > now
        });
        if state.over {
            break;
        }
    }
    Outcome {
        state: planner.run.state,
        moved: planner.run.moved(),
        closes,
        counts: (0..3).map(|n| live(edges, n)).collect(),
        left: edges.iter().flat_map(Edge::stayed).collect(),
        share: state.nodes["a"].share(),
    }
}

/// Counts the live flows of a node at all edges.
fn live(edges: &[Edge], node: usize) -> usize {
    edges.iter().map(|e| e.pool.nodes[node].live()).sum()
}

fn busiest(closes: &[Duration]) -> usize {
    let within = |at: &Duration| {
        let second = *at..*at + Duration::from_secs(1);
        closes.iter().filter(|t| second.contains(*t)).count()
    };
    closes.iter().map(within).max().unwrap_or(0)
}

fn edges(rng: &mut fastrand::Rng, flows: usize) -> Vec<Edge> {
    let edges: Vec<Edge> = (0..3).map(|_| Edge::new()).collect();
    for n in 0..flows {
        // The first edge has half of the flows.
        let edge = [0, 0, 1, 2][n % 4];
        edges[edge].enter(n % 2, mark(rng.u64(..), Forgotten::Rule));
    }
    edges
}

/// Aim: issue 16 §5. 9,000 flows of three edges on two nodes, a third node is empty: the pool becomes even by the fewest
/// moves, at the site's pace, and no client is forgotten whose flow stays. Fails if each edge closes its own excess, or
/// if the leader counts a flow twice that it has told another edge to close.
#[test]
fn a_site_becomes_even_by_the_fewest_moves() {
    let mut rng = fastrand::Rng::with_seed(3);
    let edges = edges(&mut rng, 9_000);
    let done = run(&edges, 500, None);
    assert_eq!((done.state, done.moved), (RunState::Done, 3_000));
    assert_eq!((done.closes.len(), done.counts), (3_000, vec![3_000; 3]));
    let most = busiest(&done.closes);
    assert!(most <= 500, "{most} in a second");
    let last = done.closes.last().expect("closes");
    assert!((5.5..10.0).contains(&last.as_secs_f64()), "{last:?}");
    for edge in &edges {
        // Each edge forgets the same, also of clients that it does not have.
        let forgotten = edge.forgotten.borrow();
        let rule = forgotten
            .iter()
            .filter(|f| f.node == Some(edge.pool.nodes[0].id));
        let rule = rule.last().expect("a rule");
        assert_eq!(rule.share, done.share);
    }
    let rule = edges[0].forgotten.borrow();
    let covered = |m: &&Mark| rule.iter().any(|f| f.covers(m.id, m.learned));
    let of_a = done.left.iter().filter(covered).count();
    // Rules of `a` and `b` cover marks of the other node's clients; those are not meant.
    assert!(of_a < 3_500, "{of_a}");
}

/// Aim: clients behind one address move together or not at all, at every edge. Fails if an edge closes a group that the
/// leader spares.
#[test]
fn groups_are_spared_at_every_edge() {
    let mut rng = fastrand::Rng::with_seed(5);
    let edges: Vec<Edge> = (0..3).map(|_| Edge::new()).collect();
    let group = rng.u64(..);
    for n in 0..60 {
        edges[n % 3].enter(0, mark(group, Forgotten::Name));
        edges[n % 3].enter(1, mark(rng.u64(..), Forgotten::Name));
        if n < 30 {
            edges[n % 3].enter(2, mark(rng.u64(..), Forgotten::Name));
        }
    }
    for _ in 0..6 {
        edges[1].enter(0, mark(rng.u64(..), Forgotten::Name));
    }
    let done = run(&edges, 500, None);
    let stays = done.left.iter().filter(|m| m.id == group).count();
    assert_eq!(stays, 60, "the group is more than is due");
    assert!(
        done.counts[0] >= 60 && done.counts[2] > 40,
        "{:?}",
        done.counts
    );
}

/// Aim: another edge goes on where a dead leader was. Fails if it closes again what was closed, or forgets the pace.
#[test]
fn another_edge_goes_on_leading() {
    let mut rng = fastrand::Rng::with_seed(4);
    let edges = edges(&mut rng, 3_000);
    let done = run(&edges, 300, Some(100));
    assert_eq!(done.state, RunState::Done);
    assert_eq!(done.counts, [1_000; 3]);
    assert!((1_000..=1_010).contains(&done.moved), "{}", done.moved);
    // What an edge has missed it does later, at once.
    assert!(busiest(&done.closes) <= 400, "{}", busiest(&done.closes));
}
