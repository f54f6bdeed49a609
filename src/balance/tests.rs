//! Long-run shares of each method, and what must not move.

use super::*;

fn nodes(facts: &[(u32, usize)]) -> Vec<Candidate> {
    let one = |(i, (weight, live)): (usize, &(u32, usize))| Candidate {
        id: NodeId::of(&format!("n{i}")),
        weight: *weight,
        live: *live,
    };
    facts.iter().enumerate().map(one).collect()
}

fn shares(word: Balance, facts: &[(u32, usize)], rounds: u64) -> Vec<u64> {
    let (candidates, m) = (nodes(facts), method(word));
    let mut counts = vec![0; facts.len()];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..rounds {
        let seed = Seed {
            client: rng.u64(..),
            random: rng.u64(..),
        };
        counts[m.pick(&candidates, seed)] += 1;
    }
    counts
}

/// Each method's long-run shares; tolerance 3 % of the rounds.
#[test]
fn shares_follow_weights_and_load() {
    type Case<'a> = (&'a str, Balance, &'a [(u32, usize)], &'a [f64]);
    let cases: &[Case] = &[
        (
            "equal nodes share equally",
            Balance::LeastFlows,
            &[(1, 5), (1, 5)],
            &[0.5, 0.5],
        ),
        (
            "the emptier takes all",
            Balance::LeastFlows,
            &[(1, 5), (1, 4)],
            &[0.0, 1.0],
        ),
        (
            "load counts per weight",
            Balance::LeastFlows,
            &[(4, 9), (1, 4)],
            &[1.0, 0.0],
        ),
        (
            "in turn",
            Balance::RoundRobin,
            &[(1, 0), (1, 9)],
            &[0.5, 0.5],
        ),
        (
            "in turn by weight",
            Balance::RoundRobin,
            &[(3, 0), (1, 0)],
            &[0.75, 0.25],
        ),
        (
            "two draws, less loaded wins",
            Balance::Random,
            &[(1, 0), (1, 9)],
            &[0.75, 0.25],
        ),
        (
            "hash by weight",
            Balance::Hash,
            &[(3, 0), (1, 0)],
            &[0.75, 0.25],
        ),
        (
            "hash ignores load",
            Balance::Hash,
            &[(1, 99), (1, 0)],
            &[0.5, 0.5],
        ),
    ];
    for (name, word, facts, expected) in cases {
        let rounds = 10_000;
        for (got, want) in shares(*word, facts, rounds).iter().zip(*expected) {
            let off = (*got as f64 / rounds as f64 - want).abs();
            assert!(off < 0.03, "{name}: share off by {off}");
        }
    }
}

#[test]
fn round_robin_interleaves() {
    let (candidates, m) = (nodes(&[(2, 0), (1, 0)]), method(Balance::RoundRobin));
    let seed = Seed {
        client: 0,
        random: 0,
    };
    let turns: Vec<usize> = (0..6).map(|_| m.pick(&candidates, seed)).collect();
    assert_eq!(turns, [0, 1, 0, 0, 1, 0]);
}

/// A node that goes moves only its own clients.
#[test]
fn hash_moves_only_the_clients_of_the_lost_node() {
    let (three, m) = (nodes(&[(1, 0), (1, 0), (1, 0)]), method(Balance::Hash));
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..2_000 {
        let seed = Seed {
            client: rng.u64(..),
            random: 0,
        };
        let before = m.pick(&three, seed);
        let after = m.pick(&three[..2], seed);
        assert!(before == 2 || before == after);
    }
}
