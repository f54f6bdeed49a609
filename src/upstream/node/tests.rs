//! Tests of a node's states, drains and evictions.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::observe::metrics;
use crate::upstream::live_flow::reap;

fn node() -> Arc<Node> {
    let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
    Node::new("n", &conf, OnDown::Evict, None)
}

/// Aim: the last published state is the node's state, even if two threads publish at once. Fails if a
/// state is computed before its turn: the next real fall would then be no change and evict no flow.
#[test]
fn the_last_state_published_is_true() {
    let node = node();
    let both = std::sync::Barrier::new(2);
    for round in 0..20_000 {
        std::thread::scope(|scope| {
            let judge = scope.spawn(|| {
                both.wait();
                node.judged(round % 2 == 0, "test");
            });
            both.wait();
            node.order(if round % 3 == 0 {
                Order::Up
            } else {
                Order::Down
            });
            judge.join().expect("no panic");
        });
        assert_eq!(*node.watch().borrow(), node.state(), "round {round}");
    }
}

/// Aim: an order ends a drain even if its deadline passes at the same moment, and a deadline of zero
/// follows its drain. Fails if the deadline overrides the later order, or never acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_does_not_outlive_its_drain() {
    let node = node();
    for round in 0..5_000 {
        node.drain(Terms::new(Instant::now(), Some(Duration::ZERO), None));
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        node.order(Order::Up);
        let (ordered, later) = (node.state(), tokio::task::yield_now());
        later.await;
        assert_eq!((ordered, node.state()), (State::Up, State::Up), "{round}");
    }
    for round in 0..500 {
        let rate = "5/s".parse().expect("a rate");
        node.drain(Terms::new(Instant::now(), None, Some(rate)));
        let mut state = node.watch();
        let down = state.wait_for(|s| *s == State::Down);
        let down = tokio::time::timeout(Duration::from_secs(10), down).await;
        down.expect("the deadline has passed").expect("a node");
        assert_eq!(node.state(), State::Down, "{round}");
        node.order(Order::Up);
    }
}

/// Seen in benches/failover.py: 3,000 clients of a killed node moved, and the eviction of the first node
/// cut two of them again on their new node. Fails if an eviction ends a flow that has moved on.
#[test]
fn a_flow_that_moved_on_is_left_alone() {
    let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
    let [dead, well] = ["dead", "well"].map(|n| Node::new(n, &conf, OnDown::Evict, None));
    let flow = LiveFlow::new();
    drop(dead.enter(&flow, None));
    flow.clone().reap(dead.id);
    let _entered = well.enter(&flow, None);
    flow.begin();
    flow.clone().reap(dead.id);
    assert!(!flow.is_evicted());
    flow.clone().reap(well.id);
    assert!(flow.is_evicted());
}

/// Flows without an answer end at once and count like the others. Fails if only the flows that end at the
/// rate are counted.
#[tokio::test]
async fn flows_evicted_at_a_rate_are_counted() {
    let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
    let node = Node::new("evicted_at_a_rate", &conf, OnDown::Keep, None);
    let flows: Vec<_> = (0..5).map(|_| LiveFlow::new()).collect();
    let _in: Vec<_> = flows.iter().map(|flow| node.enter(flow, None)).collect();
    flows[0].begin();
    node.obey(Order::Down, None);
    node.close_all(Some(Rate::a_second(50)));
    while flows.iter().any(|f| !f.is_evicted()) {
        tokio::task::yield_now().await;
    }
    let counter = metrics::get().evicted.with_label_values(&[&node.name]);
    assert_eq!(counter.get(), 5);
}

/// Of 100 flows, more than one batch, the last client is notified before the first flow closes, and all
/// close. Fails if a flow does not wait for its turn, or if the reaper stops while flows wait.
#[tokio::test]
async fn all_clients_are_notified_before_a_flow_closes() {
    use crate::stream::graceful_close::wait_for_turn;
    let conf: config::Node = serde_yaml::from_str("address: 10.0.0.1:80").expect("a node");
    let node = Node::new("n", &conf, OnDown::Evict, None);
    tokio::spawn(reap());
    tokio::task::yield_now().await;
    let (done, mut deeds) = mpsc::channel(200);
    let flows: Vec<_> = (0..100).map(|_| LiveFlow::new()).collect();
    for flow in &flows {
        let (flow, done, entered) = (flow.clone(), done.clone(), node.enter(flow, None));
        flow.begin();
        tokio::spawn(async move {
            flow.kill.wait().await;
            let _ = done.send("told").await;
            wait_for_turn().await;
            drop(entered);
            let _ = done.send("closed").await;
        });
    }
    assert_eq!(node.evict(), 100);
    let mut order = Vec::new();
    while order.len() < 200 {
        order.push(deeds.recv().await.expect("an event"));
    }
    assert!(order[..100].iter().all(|deed| *deed == "told"), "{order:?}");
    assert_eq!(node.live(), 0);
}
