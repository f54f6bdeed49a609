//! Assignments that expire, and nodes that an operator empties: two ways to undo imbalance. Source:
//! Lightstreamer clustering §4, §5 (§5.1, §5.2).

use serde_json::Value;

use crate::client::{Dial, ws};
use crate::edge::Edge;

use super::Cluster;

const NODES: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

/// Replaces the file's two hours; long enough for a client to settle within it.
const AGE: &str = "4s";

async fn cluster(age: &str) -> Cluster {
    let cluster = Cluster::start("expiry.yaml", NODES, false, &[("max_age: 2h", age)]).await;
    Cluster {
        cookies: true,
        ..cluster
    }
}

/// Sends an order for a node to the admin endpoint.
async fn order(edge: &Edge, node: &str, word: &str) -> Value {
    let answer = edge
        .admin("POST", &format!("/api/nodes/{node}/{word}"))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

/// Index of the one node that has created `sessions` sessions; panics unless all are on it.
fn home(cluster: &Cluster, sessions: usize) -> usize {
    let created = cluster.counts().map(|c| c.created);
    let at = created.iter().position(|n| *n == sessions);
    at.unwrap_or_else(|| panic!("not all of {sessions} sessions are on one node: {created:?}"))
}

/// Aim: §4 from a client's view. Its assignment expires while its session lives. The edge balances the next
/// request to the idle node, which does not have the session. The client gets error 20 or 21 and creates a
/// new session there. Meanwhile a stream whose assignment is as old goes on. Fails if use renews `max_age`
/// (the poller would stay for ever), or if its end cuts a live flow.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_assignment_ends_and_a_live_flow_does_not() {
    let cluster = cluster(&format!("max_age: {AGE}")).await;
    order(&cluster.edge, "ls2", "drain").await;
    let mut streams = cluster.client(1, Some("WS-STREAMING")).await;
    let mut polls = cluster.client(2, Some("HTTP-POLLING")).await;
    streams.updates(10).await;
    polls.updates(10).await;
    let was = home(&cluster, 2);
    assert_eq!(was, 0, "ls2 takes no new clients while it drains");
    order(&cluster.edge, "ls2", "up").await;
    // ls1 has the stream, ls2 nothing: a new assignment goes to ls2.
    let idle = cluster.nodes[1].sessions();
    idle.wait("a request for a session of ls1", |c| c.wrong_node > 0)
        .await;
    polls
        .wait("error 20 or 21", |events| {
            let told = |e: &Value| e["event"] == "error" && (e["code"] == 20 || e["code"] == 21);
            events.iter().any(told) || idle.counts().created > 0
        })
        .await;
    if idle.counts().created == 0 {
        polls.connect().await;
    }
    idle.wait("a new session", |c| c.created > 0).await;
    polls.updates(10).await;
    streams.updates(10).await;
    assert_eq!(streams.of("error"), [] as [Value; 0]);
    assert_eq!(cluster.counts()[0].created, 2, "the stream's session lives");
    streams.end().await;
    polls.end().await;
}

/// Aim: §5.1. A draining node keeps its clients with their sessions, and takes no new ones; after `up` it
/// takes new ones again. Fails if draining cuts flows or forgets assignments.
#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_keeps_its_clients() {
    let cluster = cluster("max_age: 2h").await;
    let mut old = cluster.client(1, Some("HTTP-STREAMING")).await;
    old.updates(10).await;
    let was = home(&cluster, 1);
    let (its, other) = (["ls1", "ls2"][was], 1 - was);
    assert_eq!(
        order(&cluster.edge, its, "drain").await["state"],
        "draining"
    );
    let mut new = Vec::new();
    for n in 2..=5 {
        let mut client = cluster.client(n, Some("WS-STREAMING")).await;
        client.updates(5).await;
        new.push(client);
    }
    // A move is a CR connection, which must still reach the draining node.
    old.transport("HTTP-POLLING").await;
    old.status("CONNECTED:HTTP-POLLING").await;
    old.updates(20).await;
    assert_eq!(cluster.counts()[was].created, 1);
    assert_eq!(cluster.counts()[other].created, 4);
    order(&cluster.edge, its, "up").await;
    let mut late = cluster.client(6, Some("WS-STREAMING")).await;
    late.updates(5).await;
    assert_eq!(
        cluster.counts()[was].created,
        2,
        "the idle one gets the next"
    );
    cluster.nothing_went_wrong(6);
    for client in new.into_iter().chain([old, late]) {
        client.end().await;
    }
}

/// Aim: §5.1, forcing. `evict` closes the live flows of a node; `down` also refuses it new ones. Its clients
/// come back on the other node. Fails if live flows survive either.
#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_nodes_clients_come_back() {
    let cluster = cluster("max_age: 2h").await;
    let dial = Dial::plain(cluster.block.at("200.0.0.10:80")).host("push.mycompany.com");
    let mut first = ws::connect(&dial, "/ws/echo", &[]).await;
    let its = first.node();
    assert_eq!(order(&cluster.edge, &its, "evict").await["evicted"], 1);
    first.ended().await;
    order(&cluster.edge, &its, "down").await;
    for _ in 0..4 {
        assert_ne!(ws::connect(&dial, "/ws/echo", &[]).await.node(), its);
    }
}

/// Aim: §5.2. Where the application provides stickiness, a draining node keeps its sessions although every CR
/// is a new connection. When the node ends a session for its age, the client creates a new one on the other
/// node. Fails if a pin to a draining node is refused.
#[tokio::test(flavor = "multi_thread")]
async fn application_stickiness_outlives_draining() {
    let cluster = Cluster::start("option-1.B.1.yaml", NODES, true, &[]).await;
    let mut client = cluster.client(1, Some("HTTP-POLLING")).await;
    client.updates(10).await;
    let was = home(&cluster, 1);
    order(&cluster.edge, ["ls1", "ls2"][was], "drain").await;
    client.updates(50).await;
    client.message("still here").await;
    cluster.nothing_went_wrong(1);
    // <max_session_duration_minutes>
    cluster.nodes[was].sessions().expire_all();
    let other = cluster.nodes[1 - was].sessions();
    other
        .wait("the session made anew", |c| c.created == 1)
        .await;
    client.updates(10).await;
    client.end().await;
}
