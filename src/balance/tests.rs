//! Long-run shares of each method, and what must not move.

use pushgate_plugins::rendezvous;

use super::*;
use crate::upstream::{LiveFlow, Membership};

fn nodes(facts: &[(u32, usize)]) -> Vec<Candidate> {
    let one = |(i, (weight, live)): (usize, &(u32, usize))| Candidate {
        id: NodeId::of(&format!("n{i}")),
        weight: *weight,
        live: *live,
    };
    facts.iter().enumerate().map(one).collect()
}

/// Returns the choice of a method among nodes that are all open.
fn choose(word: Balance, candidates: &[Candidate], seed: Seed) -> usize {
    let facts = candidates.iter().map(|c| (c.id, c.weight));
    match Way::new(word, 0) {
        Way::Compares(method) => method.pick(candidates, seed),
        Way::Computes => hash::best(facts, seed.client, |_| true).expect("one is open"),
        Way::TakesTurns(_) => panic!("{word:?} has its own tests"),
    }
}

fn shares(word: Balance, facts: &[(u32, usize)], rounds: u64) -> Vec<u64> {
    let candidates = nodes(facts);
    let mut counts = vec![0; facts.len()];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..rounds {
        let seed = Seed {
            client: rng.u64(..),
            random: rng.u64(..),
        };
        counts[choose(word, &candidates, seed)] += 1;
    }
    counts
}

/// Checks each method's long-run shares; tolerance 3 % of the rounds.
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

/// Every edge and every release must choose the same node: the one with the highest -weight / ln(u). Fails if
/// the shortcut around the logarithm changes a choice.
#[test]
fn hash_is_the_highest_score() {
    let weights: [&[(u32, usize)]; 3] = [
        &[(1, 0); 9],
        &[(1, 0), (3, 0), (3, 0), (7, 0), (1, 0)],
        &[(1000, 0), (1, 0), (999, 0), (30, 0), (1, 0), (500, 0)],
    ];
    let mut rng = fastrand::Rng::with_seed(17);
    for candidates in weights.map(nodes) {
        for _ in 0..1_000 {
            let client = rng.u64(..);
            let score = |c: &Candidate| {
                let u = (rendezvous::lot(client, c.id) >> 11) as f64 / (1u64 << 53) as f64;
                -f64::from(c.weight) / u.ln()
            };
            let scores = candidates.iter().map(score).enumerate();
            let best = scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
            let seed = Seed { client, random: 0 };
            assert_eq!(Some(choose(Balance::Hash, &candidates, seed)), best);
        }
    }
}

/// When a node goes, only its own clients move.
#[test]
fn hash_moves_only_the_clients_of_the_lost_node() {
    let three = nodes(&[(1, 0), (5, 0), (2, 0)]);
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..2_000 {
        let seed = Seed {
            client: rng.u64(..),
            random: 0,
        };
        let before = choose(Balance::Hash, &three, seed);
        let after = choose(Balance::Hash, &three[..2], seed);
        assert!(before == 2 || before == after);
    }
}

/// Creates a pool of `count` nodes with no flows.
fn pool(count: usize, keys: &str) -> Pool {
    let node: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
    let text = format!("{{ nodes: [], {keys} }}");
    let conf: config::Pool = serde_yaml::from_str(&text).expect("a pool");
    let nodes = (0..count).map(|i| Node::new(&format!("n{i}"), &node, conf.on_down, None));
    Pool::new("p", &conf, nodes.collect())
}

fn picked(pool: &Pool, rng: &mut fastrand::Rng, tried: &[NodeId]) -> Result<NodeId, &'static str> {
    let seed = Seed {
        client: rng.u64(..),
        random: rng.u64(..),
    };
    match pool.pick(seed, tried, Instant::now()) {
        Picked::Node(node) => Ok(node.id),
        Picked::Full => Err("full"),
        Picked::Nobody => Err("nobody"),
    }
}

/// Fails if a key of the file does not reach the running pool.
#[test]
fn a_pool_keeps_what_its_section_says_of_failures() {
    let of = |keys: &str| {
        let p = pool(1, keys);
        (p.on_lost, p.retry_unanswered, p.retry_on.to_vec())
    };
    let paths = vec!["/create".to_owned()];
    assert_eq!(of(""), (OnLost::Close, 1, Vec::new()));
    assert_eq!(
        of("on_lost: 502, retry_unanswered: off, retry_on: [/create]"),
        (OnLost::BadGateway, 0, paths)
    );
}

/// Fails if a large pool's sample misses the only node left.
#[test]
fn the_last_node_of_a_large_pool_is_found() {
    for balance in ["least_flows", "round_robin", "random", "hash"] {
        let pool = pool(200, &format!("balance: {balance}"));
        let mut rng = fastrand::Rng::with_seed(3);
        for node in &pool.nodes[1..] {
            node.judged(false, "test");
        }
        let last = pool.nodes[0].clone();
        assert_eq!(picked(&pool, &mut rng, &[]), Ok(last.id), "{balance}");
        assert_eq!(picked(&pool, &mut rng, &[last.id]), Err("nobody"));
        last.judged(false, "test");
        assert_eq!(picked(&pool, &mut rng, &[]), Err("nobody"), "{balance}");
    }
}

/// Sampling keeps a large pool even: 20,000 long flows on 200 nodes give 100 each.
#[test]
fn a_large_pool_is_filled_evenly() {
    let pool = pool(200, "balance: least_flows");
    let mut rng = fastrand::Rng::with_seed(5);
    let mut entered = Vec::new();
    for _ in 0..20_000 {
        let id = picked(&pool, &mut rng, &[]).expect("a node");
        let node = pool.node(id).expect("of the pool");
        entered.push(node.enter(&LiveFlow::new(), None));
    }
    let most = pool.nodes.iter().map(|n| n.live()).max();
    assert!(
        most.is_some_and(|m| m <= 105),
        "{most:?} where 100 are even"
    );
}

/// The balancer skips a node at its limit. "All nodes full" and "no node Up" are different verdicts.
#[test]
fn full_nodes_are_passed_over() {
    use crate::upstream::flow_limiter::Limits;
    let pool = pool(2, "balance: least_flows");
    let mut rng = fastrand::Rng::with_seed(9);
    let limits = Limits {
        max_flows: Some(1),
        ..Limits::default()
    };
    let mut entered = Vec::new();
    for node in &pool.nodes {
        node.set_limits(limits, Instant::now());
    }
    for _ in 0..2 {
        let id = picked(&pool, &mut rng, &[]).expect("room");
        let node = pool.node(id).expect("of the pool");
        entered.push(node.enter(&LiveFlow::new(), None));
    }
    assert!(pool.nodes.iter().all(|n| n.live() == 1));
    assert_eq!(picked(&pool, &mut rng, &[]), Err("full"));
    assert_eq!(pool.room(Instant::now()), Room::Full);
    entered.pop();
    assert!(picked(&pool, &mut rng, &[]).is_ok());
    pool.nodes.iter().for_each(|n| n.judged(false, "test"));
    assert_eq!(picked(&pool, &mut rng, &[]), Err("nobody"));
    // Flows do not wait for a node that will not come.
    assert_eq!(pool.room(Instant::now()), Room::Open);
}

/// Round robin also skips nodes that are Down, full or without weight, and a slow start ends when the node
/// has caught up. Fails if `round_robin` asks anything but what the limits say.
#[test]
fn turns_pass_over_nodes_that_take_none() {
    use crate::upstream::flow_limiter::Limits;
    let pool = pool(4, "balance: round_robin");
    let [down, full, slow, free] = &pool.nodes[..] else {
        panic!("four nodes");
    };
    let (mut rng, mut entered, now) = (fastrand::Rng::with_seed(1), Vec::new(), Instant::now());
    full.set_limits(
        Limits {
            max_flows: Some(2),
            ..Limits::default()
        },
        now,
    );
    let limits = Limits {
        slow_start: Some("1000000/s".parse().expect("a rate")),
        ..Limits::default()
    };
    slow.set_limits(limits, now);
    down.judged(false, "test");
    slow.judged(false, "test");
    let mut flows = |count: usize| {
        for _ in 0..count {
            let id = picked(&pool, &mut rng, &[]).expect("a node");
            let node = pool.node(id).expect("of the pool");
            entered.push(node.enter(&LiveFlow::new(), None));
        }
        [down, full, slow, free].map(|n| n.live())
    };
    assert_eq!(flows(10), [0, 2, 0, 8]);
    slow.judged(true, "test");
    assert_eq!(flows(4), [0, 2, 3, 9]);
    assert!(slow.limits.is_ramping());
    flows(30);
    assert!(!slow.limits.is_ramping());
    free.set_weight(0);
    slow.judged(false, "test");
    assert_eq!(picked(&pool, &mut rng, &[]), Err("full"));
    full.judged(false, "test");
    assert_eq!(picked(&pool, &mut rng, &[]), Err("nobody"));
}

/// After a reload that adds a node, turns do not begin at the first node again.
#[test]
fn a_pool_resumes_the_turns_of_the_one_before() {
    let (mut rng, mut order) = (fastrand::Rng::with_seed(1), Vec::new());
    let (before, after) = (
        pool(3, "balance: round_robin"),
        pool(4, "balance: round_robin"),
    );
    order.push(picked(&before, &mut rng, &[]));
    after.resume(&before);
    order.extend((0..3).map(|_| picked(&after, &mut rng, &[])));
    let names = ["n0", "n1", "n2", "n3"];
    assert_eq!(order, names.map(|n| Ok(NodeId::of(n))));
}

/// If no node is Up, nodes that left DNS serve on, but nodes an operator drains do not. Fails if new clients
/// are refused although a node could take them.
#[test]
fn nodes_that_left_dns_are_the_last_resort() {
    for word in ["least_flows", "round_robin", "hash"] {
        let (pool, mut rng) = (
            pool(3, &format!("balance: {word}")),
            fastrand::Rng::with_seed(1),
        );
        let [new, left, drained] = [0, 1, 2].map(|n| &pool.nodes[n]);
        left.set_membership(Membership::Leaving);
        drained.order(Order::Drain);
        let (first, second) = (Ok(new.id), Ok(left.id));
        assert_eq!(picked(&pool, &mut rng, &[]), first, "{word}");
        assert_eq!(picked(&pool, &mut rng, &[new.id]), second, "{word}");
        new.judged(false, "test");
        assert_eq!(picked(&pool, &mut rng, &[]), second, "{word}");
        assert_eq!(pool.room(Instant::now()), Room::Open);
        left.order(Order::Drain);
        assert_eq!(picked(&pool, &mut rng, &[]), Err("nobody"), "{word}");
    }
}

/// Aim: a server's streams on another port count for its node of the pool, so a server that returns empty gets
/// the new sessions (Lightstreamer clustering §3.2.2.1). Fails if `least_flows` compares single sockets.
#[test]
fn sockets_of_one_server_are_compared_together() {
    let pool = pool(2, "balance: least_flows");
    let conf = config::Node::at(([127, 0, 0, 1], 444).into());
    let streams = Node::new("cr", &conf, config::OnDown::Evict, None);
    pool.nodes[0].load.join([&streams.load].into_iter());
    let flow = LiveFlow::new();
    let _live = streams.enter(&flow, None);
    for random in 0..20 {
        let seed = Seed { client: 1, random };
        let picked = pool.pick(seed, &[], Instant::now());
        assert!(matches!(picked, Picked::Node(n) if n.id == pool.nodes[1].id));
    }
}
