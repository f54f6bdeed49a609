//! Orders given at one edge hold at all, at one that starts later, and after the store was away.
//!
//! In: orders of the admin endpoints, a store that is killed and comes back empty. Out: states of the nodes at every
//! edge, nodes that new flows reach. Source: issue 16 §3, §6.

use std::time::{Duration, Instant};

use super::three::{NAMES, Three};
use crate::client::h1::H1;
use crate::client::ws;
use crate::deadline;

const COOKIE: &str = "{ sticky_cookie: { key_file: KEYS } }";

async fn reached(three: &Three, n: usize, cookie: Option<&str>) -> (String, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|c| ("Cookie", *c)).collect();
    let answer = H1::connect(&three.dial(n))
        .await
        .get("/hello", &headers)
        .await;
    let set = answer.cookies();
    let pair = set.first().and_then(|line| line.split(';').next());
    (answer.node().to_owned(), pair.map(str::to_owned))
}

/// Aim: states and weights hold at all edges within a second; an order with `here` at one alone, until a later one of
/// the site; an eviction closes the flows of all edges. Fails if an order stays at its edge, or if the edge that gave it
/// obeys it twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_holds_at_all_edges() {
    let three = Three::start(3, 2, "", "").await;
    let given = Instant::now();
    let answer = three.order(0, "/api/nodes/n1/drain?deadline=1h").await;
    assert_eq!(
        (&answer["state"], &answer["site"]),
        (&"draining".into(), &"everywhere".into())
    );
    for n in 0..3 {
        three.wait_node(n, "n1", "state", "draining").await;
        let node = three.node(n, "n1").await;
        assert_eq!(node["ordered"]["edge"], "a", "{node}");
        let left = node["drain"]["deadline_seconds"]
            .as_u64()
            .expect("a deadline");
        assert!((3_590..=3_600).contains(&left), "{node}");
    }
    assert!(
        given.elapsed() < Duration::from_secs(2),
        "{:?}",
        given.elapsed()
    );
    three.order(1, "/api/nodes/n2/weight?to=7").await;
    for n in 0..3 {
        three.wait_node(n, "n2", "weight", 7).await;
    }
    let answer = three.order(2, "/api/nodes/n1/up?here").await;
    assert!(answer["site"].is_null(), "{answer}");
    three.wait_node(2, "n1", "state", "up").await;
    // Longer than the pause between two looks at all orders: the site's older order does not come back.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let states = [0, 1, 2].map(|n| three.node(n, "n1"));
    let [a, b, c] = states;
    assert_eq!(
        (a.await["state"].clone(), b.await["state"].clone()),
        ("draining".into(), "draining".into())
    );
    let c = c.await;
    assert_eq!(
        (&c["state"], &c["ordered"]["here"]),
        (&"up".into(), &true.into())
    );
    three.order(1, "/api/nodes/n1/down").await;
    three.wait_node(2, "n1", "state", "down").await;
    three.order(2, "/api/nodes/n1/up").await;
    for n in 0..3 {
        three.wait_node(n, "n1", "state", "up").await;
        let log = three.edges[n].log();
        assert!(log.matches("node n1 is draining").count() <= 1, "{log}");
    }
    let mut sockets = Vec::new();
    for n in 0..3 {
        sockets.push(ws::connect(&three.dial(n), "/ws/silent", &[]).await);
    }
    three.order(0, "/api/nodes/n1/evict").await;
    let answer = three.order(0, "/api/nodes/n2/evict").await;
    assert_eq!(answer["site"], "everywhere", "{answer}");
    use futures_util::StreamExt;
    for mut socket in sockets {
        deadline("the eviction", async {
            while let Some(Ok(_)) = socket.socket.next().await {}
        })
        .await;
    }
}

/// Aim: an edge that starts later obeys before its listeners accept; orders outlive a restart of all edges, and `up` ends
/// them. Fails if the first flows of a new edge reach a node that was ordered down.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_starts_later_obeys() {
    let mut three = Three::start(1, 2, COOKIE, "").await;
    let mut stuck = None;
    while stuck.is_none() {
        let (node, cookie) = reached(&three, 0, None).await;
        stuck = cookie.filter(|_| node == "n2");
    }
    three.order(0, "/api/nodes/n1/down").await;
    three.order(0, "/api/pools/p/forget").await;
    three.order(0, "/api/nodes/n2/weight?to=50%25").await;
    three.start_next().await;
    let states: Vec<_> = (0..10).map(|_| reached(&three, 1, None)).collect();
    for state in states {
        assert_eq!(state.await.0, "n2");
    }
    let node = three.node(1, "n1").await;
    assert_eq!(
        (&node["state"], &node["ordered"]["edge"]),
        (&"down".into(), &"a".into())
    );
    let (_, new) = reached(&three, 1, stuck.as_deref()).await;
    assert!(
        new.is_some(),
        "the cookie was forgotten at the other edge, before this one started"
    );
    three.stop();
    three.start_next().await;
    assert_eq!(three.node(0, "n1").await["state"], "down");
    three.order(0, "/api/nodes/n1/up").await;
    three.start_next().await;
    assert_eq!(three.node(1, "n1").await["state"], "up");
}

/// Aim: issue 16 §6. Without the store an order holds where it was given; when the store is back, empty, the later one
/// holds everywhere, the log says which one lost, and orders from before are in the store again. Fails if the last edge
/// to reconnect wins, or if an empty store ends orders.
#[tokio::test(flavor = "multi_thread")]
async fn orders_without_the_store_are_reconciled() {
    let mut three = Three::start(2, 3, "", "").await;
    three.order(0, "/api/nodes/n3/drain").await;
    three.wait_node(1, "n3", "state", "draining").await;
    three.redis.kill();
    let begun = Instant::now();
    three.start_next().await;
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    three.edges[2]
        .wait_log("starts without the orders of its site")
        .await;
    assert_eq!(three.node(2, "n3").await["state"], "up");
    let answer = three.order(0, "/api/nodes/n1/down").await;
    assert_eq!(
        (&answer["state"], &answer["site"]),
        (&"down".into(), &"later".into())
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answer = three.order(1, "/api/nodes/n1/drain").await;
    assert_eq!(answer["state"], "draining", "{answer}");
    assert_eq!(three.node(2, "n1").await["state"], "up");
    three.redis.again().await;
    for n in 0..3 {
        three.wait_node(n, "n1", "state", "draining").await;
        three.wait_node(n, "n3", "state", "draining").await;
        assert_eq!(three.node(n, "n1").await["ordered"]["edge"], NAMES[1]);
    }
    three.edges[0]
        .wait_log("given here while the store was away lost to `drain`")
        .await;
    let orders = three.get(2, "/api/edges").await["orders"].clone();
    assert_eq!(orders.as_array().map(Vec::len), Some(2), "{orders}");
    // What the empty store was told again, an edge that starts now obeys.
    three.edges.pop();
    three.start_next().await;
    assert_eq!(three.node(2, "n3").await["state"], "draining");
}

/// Aim: the successor of an edge has its orders, also those for this edge alone, and the flows that stay with the
/// predecessor count. Fails if the order of the site wins over a later one for this edge, or if the predecessor is taken
/// for a second edge of one name.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_is_the_same_edge() {
    let mut three = Three::start(2, 3, "", "").await;
    three.order(1, "/api/nodes/n1/drain").await;
    three.wait_node(0, "n1", "state", "draining").await;
    three.order(0, "/api/nodes/n1/down?here").await;
    three.order(0, "/api/nodes/n2/down?here").await;
    let held = ws::connect(&three.dial(0), "/ws/silent", &[]).await;
    three.wait_node(1, "n3", "site_flows", 1).await;
    let successor = three.edges[0].successor();
    three.edges[0]
        .wait_log("another process has taken over")
        .await;
    let predecessor = std::mem::replace(&mut three.edges[0], successor);
    // Longer than a report lives, and than the pause between two looks at all orders.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (node, order) in [("n1", "down"), ("n2", "down"), ("n3", "up")] {
        let shown = three.node(0, node).await;
        assert_eq!(shown["order"], order, "{shown}");
    }
    assert_eq!(three.node(1, "n1").await["state"], "draining");
    for n in 0..2 {
        assert_eq!(
            three.node(n, "n3").await["site_flows"],
            1,
            "the predecessor's"
        );
        let log = three.edges[n].log();
        assert!(!log.contains("same name"), "{log}");
    }
    let all = three.get(1, "/api/edges").await;
    let edges = all["edges"].as_array().into_iter().flatten();
    let leaving = edges.filter(|e| e["name"] == "a" && e["draining"] == true);
    assert_eq!(leaving.count(), 1, "{all}");
    drop((held, predecessor));
}
