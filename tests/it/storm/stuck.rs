//! How many stuck flows a node gets: bounded for each cookie, and for the node as a whole.
//!
//! Source: issue 14, section 1 (a replayed cookie put 203 flows on a node with `max_flows: 3`).

use super::get;
use crate::client::{Dial, ws};
use crate::setup::Setup;

/// Returns a cookie of a new client, and its node.
async fn arrive(dial: Dial) -> (String, String) {
    let (answer, _) = get(dial, "/hello", None).await;
    assert_eq!(answer.status, 200);
    (answer.cookies()[0].to_owned(), answer.node().to_owned())
}

/// Opens `count` WebSockets with `cookie`.
async fn open(dial: &Dial, cookie: &str, count: usize) -> Vec<ws::Ws> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(ws::connect(dial, "/ws/echo", &[("Cookie", cookie)]).await);
    }
    all
}

/// Aim: one cookie, replayed from many connections, brings at most its `max_flows` to its node, and all cookies
/// together at most `max_flows_hard`. What is over gets 429 or 503 with Retry-After at once, never another node,
/// and new clients are served elsewhere. A flow that ends makes room. Fails if stuck flows pass a limit, wait,
/// or go to another node.
#[tokio::test(flavor = "multi_thread")]
async fn stuck_flows_have_limits_too() {
    let plugins = "[{ sticky_cookie: { max_flows: 4 } }]";
    let pool = "    max_flows: 3\n    max_flows_hard: 6\n    queue_timeout: 60s\n";
    let setup = Setup::with(2, plugins, pool).await;
    let (thief, node) = arrive(setup.plain()).await;
    let (mut other, mut at) = arrive(setup.plain()).await;
    while at != node {
        (other, at) = arrive(setup.plain()).await;
    }
    let mut stolen = open(&setup.plain(), &thief, 4).await;
    assert!(stolen.iter().all(|ws| ws.node() == node));
    let (refused, _) = get(setup.plain(), "/hello", Some(thief.clone())).await;
    assert_eq!((refused.status, refused.cookies().len()), (429, 0));
    assert!(refused.header("retry-after").is_some());
    let (served, _) = get(setup.plain(), "/hello", Some(other.clone())).await;
    assert_eq!(
        (served.status, served.node()),
        (200, &*node),
        "another cookie"
    );
    let _honest = open(&setup.plain(), &other, 2).await;
    let (full, _) = get(setup.plain(), "/hello", Some(other.clone())).await;
    assert_eq!(full.status, 503);
    assert!(full.header("retry-after").is_some());
    let reasons = |lines: &[serde_json::Value]| {
        let of = |why: &str| lines.iter().filter(|l| l["reason"] == why).count();
        (of("client_limit"), of("busy")) == (1, 1)
    };
    setup.edge.wait_access("both reasons", reasons).await;
    let metrics = setup.edge.metrics().await;
    for limit in ["cookie", "max_flows_hard"] {
        let name = format!("pushgate_stuck_refused_total{{limit=\"{limit}\",node=\"{node}\"}}");
        assert_eq!(metrics.get(&name), Some(&1.0), "{limit}");
    }
    assert_eq!(
        metrics.get(&format!("pushgate_node_flows{{node=\"{node}\"}}")),
        Some(&6.0)
    );
    let (_, elsewhere) = arrive(setup.plain()).await;
    assert_ne!(elsewhere, node, "the balancer passes the full node over");
    drop(stolen.pop());
    setup
        .edge
        .wait_metric("pushgate_node_flows", |n| n == 5.0)
        .await;
    let (served, _) = get(setup.plain(), "/hello", Some(thief)).await;
    assert_eq!((served.status, served.node()), (200, &*node));
}
