//! Runs on a virtual clock: up to 10,000 clients that come back where the balancer sends them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use pushgate_plugins::api::{Forgotten, Mark};

use super::*;
use crate::config::units::Rate;

const TICK: Duration = Duration::from_millis(20);
/// The second of the run; all clients were assigned before it.
const NOW: u64 = 1_000;

/// A client with one flow.
#[derive(Clone, Copy)]
struct Client {
    node: usize,
    mark: Mark,
    /// When it comes back after a close.
    back: Instant,
}

/// Nodes of weight 1, and their clients by flow number.
struct Fake {
    now: Cell<Instant>,
    clients: RefCell<BTreeMap<u64, Client>>,
    counts: RefCell<Vec<usize>>,
    away: RefCell<Vec<Client>>,
    rules: RefCell<HashMap<NodeId, Forget>>,
    closes: RefCell<Vec<(Instant, usize)>>,
    /// Time a client takes to come back.
    delay: Duration,
    /// Clients per second that the last node accepts.
    intake: Option<u64>,
    /// A flow whose answer has not begun.
    unanswered: Option<u64>,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64)
}

impl Fake {
    /// Creates flows with a token each, learned before `NOW`.
    fn new(flows: &[usize], delay: Duration) -> Self {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut clients = BTreeMap::new();
        let now = Instant::now();
        for (node, count) in flows.iter().enumerate() {
            for _ in 0..*count {
                let mark = Mark {
                    id: rng.u64(..),
                    learned: NOW - 1,
                    by: Forgotten::Rule,
                    cut_after: None,
                };
                let client = Client {
                    node,
                    mark,
                    back: now,
                };
                clients.insert(clients.len() as u64, client);
            }
        }
        Fake {
            now: Cell::new(now),
            counts: RefCell::new(flows.to_vec()),
            away: RefCell::default(),
            clients: RefCell::new(clients),
            rules: RefCell::default(),
            closes: RefCell::default(),
            delay,
            intake: None,
            unanswered: None,
        }
    }

    fn flows(&self) -> Vec<usize> {
        self.counts.borrow().clone()
    }

    /// Lets clients that are due come back to the emptiest node, because their assignments are forgotten.
    fn come_back(&self) {
        let now = self.now.get();
        let mut clients = self.clients.borrow_mut();
        let mut counts = self.counts.borrow_mut();
        self.away.borrow_mut().retain_mut(|client| {
            if client.back > now {
                return true;
            }
            let emptiest = (0..counts.len()).min_by_key(|n| counts[*n]);
            client.node = emptiest.expect("a node");
            client.mark.learned = NOW + 1;
            counts[client.node] += 1;
            let next = clients.last_key_value().map_or(0, |(n, _)| n + 1);
            clients.insert(next.max(1 << 20), *client);
            false
        });
    }

    /// Runs the rebalance to its end and returns how long it took; fails after ten minutes of virtual time.
    fn run(&self, run: &mut RebalanceRun) -> Duration {
        let start = self.now.get();
        while !run.state.is_over() {
            assert!(self.now.get() < start + Duration::from_secs(600), "no end");
            run.tick(self.now.get(), self);
            self.now.set(self.now.get() + TICK);
            self.come_back();
        }
        self.now.get() - start
    }

    fn start(&self, goal: Goal, rate: u64, close: bool) -> RebalanceRun {
        let request = RebalanceRequest {
            goal,
            rate: Rate::a_second(rate),
            close,
            dry_run: false,
            before: None,
        };
        RebalanceRun::new(PoolId(1), request, NOW, self.now.get())
    }

    /// Returns the most flows closed in any second.
    fn busiest_second(&self) -> usize {
        let closes = self.closes.borrow();
        let within = |at: Instant| {
            let second = at + Duration::from_secs(1);
            closes
                .iter()
                .filter(|(t, _)| *t >= at && *t < second)
                .count()
        };
        closes.iter().map(|(at, _)| within(*at)).max().unwrap_or(0)
    }
}

impl Cluster for Fake {
    fn loads(&self, leaving: &[Leaving]) -> Vec<Load> {
        let live = |l: &&Leaving| self.clients.borrow().contains_key(&l.flow);
        let leave = |n| {
            let of_node = leaving.iter().filter(live).filter(|l| l.node == id(n));
            of_node.count()
        };
        let load = |(n, flows): (usize, usize)| Load {
            id: id(n),
            name: format!("n{n}"),
            weight: 1,
            takes: true,
            flows: flows - leave(n),
            intake: self.intake.filter(|_| n == 2).map(Rate::a_second),
        };
        self.flows().into_iter().enumerate().map(load).collect()
    }

    fn movable(&self, node: NodeId) -> Vec<MovableFlow> {
        let clients = self.clients.borrow();
        let of = clients.iter().filter(|(_, c)| id(c.node) == node);
        of.map(|(flow, c)| MovableFlow {
            flow: *flow,
            mark: c.mark,
        })
        .collect()
    }

    fn has(&self, _: NodeId, flow: u64) -> bool {
        self.clients.borrow().contains_key(&flow)
    }

    fn forget(&self, what: &Forget) {
        let node = what.node.expect("a rebalance names the node");
        self.rules.borrow_mut().insert(node, *what);
    }

    fn close(&self, node: NodeId, flow: u64) -> bool {
        if self.unanswered == Some(flow) {
            return false;
        }
        let mut client = self.clients.borrow_mut().remove(&flow).expect("a client");
        let rule = self.rules.borrow().get(&node).copied();
        let covered = rule.is_some_and(|r| r.covers(client.mark.id, client.mark.learned));
        assert!(covered, "closed, and would come back to its node");
        assert_eq!(id(client.node), node);
        client.back = self.now.get() + self.delay;
        self.counts.borrow_mut()[client.node] -= 1;
        self.closes.borrow_mut().push((self.now.get(), client.node));
        self.away.borrow_mut().push(client);
        true
    }
}

/// 10,000 clients are on two of three nodes. The run evens them within 5 % by the fewest moves, never above
/// the rate; also if clients take 5 s to come back and the pool looks smaller meanwhile.
#[test]
fn a_returned_node_gets_its_share_by_the_fewest_moves() {
    for delay in [0, 300, 5_000].map(Duration::from_millis) {
        let fake = Fake::new(&[5_000, 5_000, 0], delay);
        let mut run = fake.start(Goal::Even(0.05), 200, true);
        let took = fake.run(&mut run);
        assert_eq!(run.state, RunState::Done);
        let flows = fake.flows();
        assert_eq!(flows.iter().sum::<usize>(), 10_000);
        let most = flows.iter().max().copied().unwrap_or(0);
        assert!(most * 3 * 100 <= 10_000 * 105, "{flows:?} after {delay:?}");
        let moves = fake.closes.borrow().len();
        assert!((3_000..=3_060).contains(&moves), "{moves} after {delay:?}");
        assert_eq!((run.moved(), run.left()), (moves, 0));
        assert!(fake.busiest_second() <= 220, "{}", fake.busiest_second());
        assert!(took < Duration::from_millis(16_500) + delay * 2, "{took:?}");
        assert!(fake.closes.borrow().iter().all(|(_, n)| *n != 2));
    }
}

/// A node in slow start sets the pace. If clients were closed faster, they would come back to the full nodes.
#[test]
fn a_slow_start_sets_the_pace() {
    let mut fake = Fake::new(&[300, 300, 0], Duration::ZERO);
    fake.intake = Some(20);
    let mut run = fake.start(Goal::Even(0.05), 200, true);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Done, 180));
    assert!(fake.busiest_second() <= 22, "{}", fake.busiest_second());
}

#[test]
fn an_even_pool_is_left_alone() {
    let fake = Fake::new(&[100, 103, 97], Duration::ZERO);
    let mut run = fake.start(Goal::Even(0.05), 200, true);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Done, 0));
    assert!(fake.rules.borrow().is_empty());
}

/// Clients that do not come back (they went to another edge, or for good) are not replaced. Otherwise all
/// clients would be closed one after another.
#[test]
fn clients_that_stay_away_are_given_up() {
    let fake = Fake::new(&[600, 600, 0], Duration::from_secs(3_600));
    let mut run = fake.start(Goal::Even(0.05), 1_000, true);
    let took = fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Done, 360));
    assert!(took >= AWAY, "{took:?}");
}

/// If all flows are newer than the run, or belong to one address too large to move, the run
/// ends as exhausted.
#[test]
fn a_run_that_can_move_nothing_ends() {
    let fake = Fake::new(&[100, 0], Duration::ZERO);
    for client in fake.clients.borrow_mut().values_mut() {
        client.mark.learned = NOW;
    }
    let mut run = fake.start(Goal::Even(0.05), 200, true);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Exhausted, 0));

    let fake = Fake::new(&[100, 0], Duration::ZERO);
    for client in fake.clients.borrow_mut().values_mut() {
        client.mark.id = 1;
        client.mark.by = Forgotten::Name;
    }
    let mut run = fake.start(Goal::Even(0.05), 200, true);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Exhausted, 0));
}

/// An address with many clients moves as a whole, or not at all if it has too many.
#[test]
fn an_address_moves_whole() {
    let fake = Fake::new(&[120, 0], Duration::ZERO);
    for (n, client) in fake.clients.borrow_mut().iter_mut() {
        // One address of 80 clients, and forty addresses of one client each.
        client.mark.id = if *n < 80 { 1 } else { *n };
        client.mark.by = Forgotten::Name;
    }
    let mut run = fake.start(Goal::Even(0.0), 200, true);
    fake.run(&mut run);
    let of_large: Vec<_> = fake
        .clients
        .borrow()
        .values()
        .filter(|c| c.mark.id == 1)
        .map(|c| c.node)
        .collect();
    assert!(of_large.iter().all(|n| *n == 0), "{of_large:?}");
    assert_eq!(fake.flows(), [80, 40]);
}

/// A flow without an answer ends by itself: its client is forgotten, and the run does not wait for it.
#[test]
fn an_unanswered_flow_holds_nothing_up() {
    let mut fake = Fake::new(&[10, 0], Duration::ZERO);
    fake.unanswered = Some(3);
    let mut run = fake.start(Goal::Share("n0".into(), 1.0), 1_000, true);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Done, 9));
    assert_eq!(fake.rules.borrow()[&id(0)].share, 1.0);
}

#[test]
fn a_share_is_forgotten_with_and_without_closing() {
    for close in [true, false] {
        let fake = Fake::new(&[2_000, 500], Duration::ZERO);
        let mut run = fake.start(Goal::Share("n0".into(), 0.3), 200, close);
        let took = fake.run(&mut run);
        assert_eq!(run.state, RunState::Done);
        assert!(run.moved().abs_diff(600) < 60, "{}", run.moved());
        assert!(
            took >= Duration::from_millis(2_600),
            "at the rate: {took:?}"
        );
        let rule = fake.rules.borrow()[&id(0)];
        assert_eq!((rule.share, rule.spares_live), (0.3, close));
        assert_eq!(
            fake.closes.borrow().len(),
            if close { run.moved() } else { 0 }
        );
        assert!(fake.rules.borrow().get(&id(1)).is_none());
    }
}

/// Without closing, flows stay; the run plans once what to forget, not again and again.
#[test]
fn forgetting_for_evenness_stops_at_what_was_planned() {
    let fake = Fake::new(&[600, 600, 0], Duration::ZERO);
    let mut run = fake.start(Goal::Even(0.0), 200, false);
    fake.run(&mut run);
    assert_eq!((run.state, run.moved()), (RunState::Done, 400));
    for node in [0, 1] {
        let share = fake.rules.borrow()[&id(node)].share;
        assert!((share - 1.0 / 3.0).abs() < 0.01, "{share}");
    }
    assert!(fake.closes.borrow().is_empty());
}
