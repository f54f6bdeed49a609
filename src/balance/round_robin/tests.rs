//! Shares are exact by weight, whichever nodes shut, open, join or leave meanwhile.

use super::*;

/// Nodes as in a pool: their weights, and which are shut.
struct Nodes {
    turns: RoundRobin,
    weights: Vec<u32>,
    shut: Vec<bool>,
}

impl Nodes {
    fn new(weights: &[u32]) -> Self {
        Nodes {
            turns: RoundRobin::new(weights.iter().map(|_| TimeToTurn::NEW)),
            weights: weights.to_vec(),
            shut: vec![false; weights.len()],
        }
    }

    fn pick_but(&mut self, tried: &[usize]) -> Option<usize> {
        let open = |at: usize| NonZeroU32::new(self.weights[at]).filter(|_| !self.shut[at]);
        self.turns.next(open, |at| tried.contains(&at))
    }

    fn picks(&mut self, count: u32) -> Vec<usize> {
        (0..count).filter_map(|_| self.pick_but(&[])).collect()
    }

    /// Counts how often each node is picked in `count` picks.
    fn counts(&mut self, count: u32) -> Vec<u32> {
        let mut counts = vec![0; self.weights.len()];
        for at in self.picks(count) {
            counts[at] += 1;
        }
        counts
    }

    /// Returns the nodes after a reload that keeps these places, in this order; `None`: a new
    /// node of weight 1.
    fn reloaded(&self, places: &[Option<usize>]) -> Nodes {
        let left: Vec<_> = self.turns.left(|at| self.weights[at]).collect();
        let left_of = |place: usize| left.iter().find(|(at, _)| *at == place).map(|(_, l)| *l);
        let old = |p: &Option<usize>| p.and_then(left_of).unwrap_or(TimeToTurn::NEW);
        Nodes {
            turns: RoundRobin::new(places.iter().map(old)),
            weights: places
                .iter()
                .map(|p| p.map_or(1, |at| self.weights[at]))
                .collect(),
            shut: places
                .iter()
                .map(|p| p.is_some_and(|at| self.shut[at]))
                .collect(),
        }
    }
}

fn random_weights(rng: &mut fastrand::Rng) -> Vec<u32> {
    let most = *rng.choice(&[1, 3, 20, 1000]).expect("a weight");
    (0..rng.usize(1..40)).map(|_| rng.u32(1..=most)).collect()
}

#[test]
fn turns_are_interleaved() {
    for (weights, wanted) in [
        (&[1, 1, 1][..], &[0, 1, 2, 0, 1, 2][..]),
        (&[2, 1], &[0, 1, 0, 0, 1, 0]),
        (&[1, 4], &[1, 1, 0, 1, 1, 1]),
        (&[0, 1], &[1, 1, 1, 1, 1, 1]),
    ] {
        assert_eq!(Nodes::new(weights).picks(6), wanted, "{weights:?}");
    }
    assert_eq!(Nodes::new(&[30, 10]).counts(40), [30, 10]);
}

/// In each round a node has as many turns as its weight, whichever round comes first. Fails if the next turn
/// is due after anything but 1/weight of a round.
#[test]
fn shares_are_exact() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..60 {
        let mut nodes = Nodes::new(&random_weights(&mut rng));
        let round = nodes.weights.iter().sum();
        for _ in 0..3 {
            assert_eq!(nodes.counts(round), nodes.weights);
        }
    }
}

/// Two nodes that stay open get turns by their weights, whatever the others do, to within one turn each; so
/// no node starves. Fails if a node that steps aside or comes back moves the others.
#[test]
fn nodes_that_stay_open_keep_their_shares() {
    for seed in 0..40 {
        let course = || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut nodes = Nodes::new(&random_weights(&mut rng));
            let count = nodes.weights.len();
            let steady: Vec<bool> = (0..count).map(|at| at == 0 || rng.bool()).collect();
            let mut counts = vec![0_u32; count];
            for _ in 0..20_000 {
                let at = rng.usize(..count);
                nodes.shut[at] = !steady[at] && rng.bool();
                let picked = nodes.pick_but(&[]).expect("the first is open");
                assert!(!nodes.shut[picked]);
                counts[picked] += 1;
            }
            (nodes.weights, steady, counts)
        };
        let (weights, steady, counts) = course();
        assert_eq!(course().2, counts, "the same again");
        let rounds = |at: usize| f64::from(counts[at]) / f64::from(weights[at]);
        for at in (1..weights.len()).filter(|at| steady[*at]) {
            let turn = 1.0 / f64::from(weights[0]) + 1.0 / f64::from(weights[at]);
            let off = (rounds(0) - rounds(at)).abs();
            assert!(
                off <= turn + 1e-9,
                "seed {seed}: {at} is off by {off} rounds"
            );
        }
    }
}

/// A node that opens again, after a long or a short time, is next and then gets its share, but not what it
/// missed. Fails if it is owed turns, or waits for the others to use theirs.
#[test]
fn a_node_that_returns_is_owed_nothing() {
    for missed in [1, 2, 10, 1000] {
        let mut nodes = Nodes::new(&[3, 1, 2]);
        nodes.shut[0] = true;
        assert_eq!(nodes.counts(missed * 3), [0, missed, missed * 2]);
        nodes.shut[0] = false;
        assert_eq!(nodes.picks(1), [0]);
        let counts = nodes.counts(600);
        let off = counts
            .iter()
            .zip([300_u32, 100, 200])
            .map(|(c, w)| c.abs_diff(w));
        assert!(off.max() <= Some(1), "{missed}: {counts:?}");
    }
}

/// Of 1,000 nodes, 500 are Down and never picked. A node that returns is found within 500 /
/// LOOKS picks and has its turn within the round.
#[test]
fn one_of_many_that_are_down_returns() {
    for before in [0, 1000] {
        let mut nodes = Nodes::new(&[1; 1000]);
        nodes.picks(before);
        nodes.shut[500..].fill(true);
        assert!(nodes.picks(3000).iter().all(|at| *at < 500));
        for back in [500, 777, 999] {
            nodes.shut[back] = false;
            let seen = nodes.picks(600).iter().position(|at| *at == back);
            assert!(
                seen.is_some_and(|n| n <= 500 + 500 / LOOKS),
                "{back}: {seen:?}"
            );
        }
    }
}

/// All nodes are shut most of the time, as in a storm under `admit_rate`; weights count as usual. Fails if a
/// node that steps aside before its turn is due at once when it is back.
#[test]
fn all_shut_for_a_moment_changes_nothing() {
    let mut nodes = Nodes::new(&[30, 10, 1]);
    let mut counts = [0_u32; 3];
    for _ in 0..410 {
        nodes.shut.fill(true);
        assert_eq!(nodes.pick_but(&[]), None);
        nodes.shut.fill(false);
        counts[nodes.pick_but(&[]).expect("all are open")] += 1;
    }
    assert_eq!(counts, [300, 100, 10]);
}

/// Heavy nodes that are shut do not hide the light one.
#[test]
fn the_only_open_node_is_found_at_once() {
    let mut nodes = Nodes::new(&[1000, 1000, 1]);
    nodes.shut[0] = true;
    nodes.shut[1] = true;
    assert_eq!(nodes.picks(3), [2, 2, 2]);
    nodes.shut[2] = true;
    assert_eq!(nodes.pick_but(&[]), None);
    nodes.shut.fill(false);
    assert_eq!(nodes.picks(3), [0, 1, 0]);
}

/// A flow's second try goes to another node, and the node it skipped keeps its turn.
#[test]
fn a_tried_node_keeps_its_turn() {
    let mut nodes = Nodes::new(&[1, 1, 1]);
    assert_eq!(nodes.pick_but(&[0, 1]), Some(2));
    assert_eq!(nodes.picks(4), [0, 1, 0, 1]);
    assert_eq!(nodes.pick_but(&[0, 1, 2]), None);
    assert_eq!(nodes.picks(3), [2, 0, 1]);
}

/// Nodes come and go by DNS every few picks; all are reached, by their shares. Fails if each
/// change begins at the first node.
#[test]
fn a_reload_continues_the_turns() {
    let mut nodes = Nodes::new(&[4; 100]);
    nodes.weights[50..].fill(1);
    let (mut counts, mut same) = (vec![0; 100], (0..100).map(Some).collect::<Vec<_>>());
    same.push(None);
    for round in 0..500 {
        for at in nodes.picks(5).into_iter().filter(|at| *at < 100) {
            counts[at] += 1;
        }
        // The node that joins is a different one each time.
        nodes = nodes.reloaded(&same[..100 + round % 2]);
    }
    // 2,500 picks are ten rounds of 250.
    assert!(
        counts[..50].iter().all(|n| (37..=40).contains(n)),
        "{counts:?}"
    );
    assert!(
        counts[50..].iter().all(|n| (9..=10).contains(n)),
        "{counts:?}"
    );
}

/// A node that a reload makes heavier does not wait like a light one.
#[test]
fn a_heavier_weight_counts_at_once() {
    let mut nodes = Nodes::new(&[1000, 1000, 1]);
    nodes.picks(1500);
    let mut nodes = nodes.reloaded(&[Some(0), Some(1), Some(2)]);
    nodes.weights[2] = 1000;
    let counts = nodes.counts(30);
    assert!(counts.iter().all(|n| n.abs_diff(10) <= 1), "{counts:?}");
}
