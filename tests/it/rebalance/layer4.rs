//! Rebalance at layer 4, where the edge identifies clients by address only and reads none of their bytes.
//!
//! In: WebSockets through listeners of `mode: tcp`, plain and with TLS that ends there, each from its own
//! address. Out: their nodes after an order, and which flows were closed. Source: Lightstreamer clustering
//! §5.1.

use super::crowd::Crowd;
use super::{drain, order, over};
use crate::certs::{Certs, Key};
use crate::client::{Dial, ws};
use crate::edge::Edge;
use crate::setup::{self, HOST, Setup};
use crate::vip::Block;

/// As [`Setup::with`], at layer 4, with three nodes; the third takes no clients yet.
async fn setup() -> Setup {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let mut nodes = Vec::new();
    for n in 1..=3 {
        nodes.push(setup::node(&block, n).await);
    }
    let yaml = setup::yaml(&certs, 3, "[{ sticky_ip: {} }]", "");
    let edge = Edge::start(&block, &yaml.replace("mode: http", "mode: tcp")).await;
    let setup = Setup {
        block,
        nodes,
        edge,
        certs,
    };
    drain(&setup, "n3", "drain").await;
    setup
}

/// How client `n` dials: every second one by TLS.
fn dial(setup: &Setup, n: u8) -> Dial {
    let dials = [setup.plain(), setup.tls()];
    dials[usize::from(n % 2)]
        .clone()
        .from(setup.block.client(n))
}

/// Access lines of flows that a rebalance closed.
fn rebalanced(setup: &Setup) -> usize {
    let lines = setup.edge.access();
    let closed = lines.iter().filter(|l| l["reason"] == "rebalanced");
    closed.filter(|l| l["protocol"] == "tcp").count()
}

/// Aim: with `close`, 60 flows, two of each address, become 20 on each node by 20 closes. Both flows of an
/// address are on one node, and stay there. Fails if the table still holds the address of a closed client
/// because its other flow lives: the client would come back to its old node.
#[tokio::test(flavor = "multi_thread")]
async fn closed_clients_come_back_elsewhere() {
    let setup = setup().await;
    let mut crowd = Vec::new();
    for n in 1..=30 {
        crowd.push(Crowd::enter(&dial(&setup, n), 2).await);
    }
    let counts = || {
        crowd.iter().fold([0; 3], |sum, one| {
            let counts = one.counts();
            [0, 1, 2].map(|i| sum[i] + counts[i])
        })
    };
    assert_eq!(counts(), [30, 30, 0]);
    drain(&setup, "n3", "up").await;
    order(&setup, "?to_even&rate=50/s&tolerance=0%&close").await;
    let end = over(&setup).await;
    assert_eq!((&end["state"], &end["moved"]), (&"done".into(), &20.into()));
    for one in &crowd {
        one.settled(2).await;
    }
    assert_eq!(counts(), [20, 20, 20]);
    let closes: Vec<_> = crowd.iter().flat_map(Crowd::closes).collect();
    assert_eq!(closes.len(), 20);
    assert!(closes.iter().all(|(_, node)| node != "n3"), "{closes:?}");
    setup
        .edge
        .wait_access("their lines", |_| rebalanced(&setup) == 20)
        .await;
    // A moved client sticks to its new node.
    for (n, one) in (1..).zip(&crowd) {
        let again = ws::connect(&dial(&setup, n), "/ws/silent", &[]).await;
        let at = ["n1", "n2", "n3"].map(|name| 2 * usize::from(again.node() == name));
        assert_eq!(at, one.counts(), "client {n}");
    }
}

/// Aim: without `close` no flow is closed; a forgotten client is balanced anew after its stream has ended by
/// itself. Fails if live flows are touched, or if they keep their address in the table.
#[tokio::test(flavor = "multi_thread")]
async fn forgotten_clients_move_when_they_come_back() {
    let setup = setup().await;
    let mut live = Vec::new();
    for n in 1..=20 {
        live.push(ws::connect(&dial(&setup, n), "/ws/echo", &[]).await);
    }
    drain(&setup, "n3", "up").await;
    order(&setup, "?from=n1&share=100%&rate=1000/s").await;
    let end = over(&setup).await;
    assert_eq!((&end["state"], &end["moved"]), (&"done".into(), &10.into()));
    for socket in &mut live {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here");
    }
    assert_eq!(rebalanced(&setup), 0);
    let mut ended = 0;
    for (n, socket) in (1..).zip(live) {
        let before = socket.node();
        drop(socket);
        gone(&setup, &mut ended).await;
        drop(ws::connect(&dial(&setup, n), "/ws/silent", &[]).await);
        gone(&setup, &mut ended).await;
        let how = setup.edge.access()[ended - 1]["how"].clone();
        let expected = if before == "n1" {
            "balanced"
        } else {
            "sticky_ip"
        };
        assert_eq!(how, expected, "client {n} was on {before}");
    }
}

/// Waits until one more flow has ended.
async fn gone(setup: &Setup, ended: &mut usize) {
    *ended += 1;
    let all = |lines: &[serde_json::Value]| lines.len() == *ended;
    setup.edge.wait_access("a flow's end", all).await;
}
