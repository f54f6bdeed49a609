//! Diffusion servers behind `conf/diffusion.yaml`: silence, no pooling, re-use, sticky by IP, eviction.
//!
//! In: clients that stay connected, with and without requests. Out: what the nodes counted. Source: Diffusion
//! load balancers, all points, each by its heading.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

struct Cluster {
    block: Block,
    nodes: [Node; 2],
    edge: Edge,
}

async fn cluster() -> Cluster {
    let block = Block::claim();
    let nodes = [
        Node::start("diffusion1", block.at("10.0.0.1:8080")).await,
        Node::start("diffusion2", block.at("10.0.0.2:8080")).await,
    ];
    let edge = Edge::file(&block, "diffusion.yaml", &[]).await;
    Cluster { block, nodes, edge }
}

impl Cluster {
    /// Dials as client number `n`, from its own address.
    fn dial(&self, n: u8) -> Dial {
        let dial = Dial::plain(self.block.at("200.0.0.10:80"));
        dial.from(self.block.client(n))
            .host("diffusion.mycompany.com")
    }

    fn node(&self, name: &str) -> &Node {
        &self.nodes[usize::from(name == "diffusion2")]
    }
}

/// Aim: silent connections stay open and work afterwards. "Load balancer closing silent connections". Silence
/// lasts 3 s, or `PUSHGATE_TEST_SILENCE` seconds (130 for the full proof). Fails with any idle timer below
/// that.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_live() {
    let cluster = cluster().await;
    let mut socket = ws::connect(&cluster.dial(1), "/ws/echo", &[]).await;
    let mut events = H1::connect(&cluster.dial(2)).await;
    events
        .send("GET", "/sse?silent=1", &[], b"")
        .await
        .expect("send");
    assert_eq!(events.head().await.expect("head").status, 200);
    let mut poll = H1::connect(&cluster.dial(3)).await;
    poll.send("GET", "/poll", &[], b"").await.expect("send");
    let asked = std::env::var("PUSHGATE_TEST_SILENCE").ok();
    let hold = Duration::from_secs(asked.and_then(|s| s.parse().ok()).unwrap_or(3));
    // Bounded wait: the connection must not end, and nothing may arrive.
    let silence = tokio::time::timeout(hold, events.io.read_u8()).await;
    assert!(silence.is_err(), "{silence:?} instead of silence");
    socket.say("still here").await;
    assert_eq!(socket.hear().await, "still here");
    cluster.nodes.iter().for_each(|n| n.answer_polls("now"));
    assert_eq!(poll.head().await.expect("head").status, 200);
    assert_eq!(poll.rest().await.expect("body"), b"now");
    let open: usize = cluster.nodes.iter().map(|n| n.seen().open_now()).sum();
    assert_eq!(open, 3);
}

/// Aim: no two clients share an upstream connection, each client re-uses its own, and it ends with its
/// client. "Connection pooling", "Reuse TCP connection". Fails if idle upstreams are pooled, or if each
/// request opens a connection.
#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_connection_a_client() {
    let cluster = cluster().await;
    let mut clients = Vec::new();
    for n in 1..=20 {
        clients.push((n.to_string(), H1::connect(&cluster.dial(n)).await));
    }
    for _ in 0..10 {
        for (id, client) in &mut clients {
            assert_eq!(
                client
                    .get("/hello", &[("X-Client-Id", id.as_str())])
                    .await
                    .status,
                200
            );
        }
    }
    let seen = cluster.nodes.iter().map(Node::seen).collect::<Vec<_>>();
    assert_eq!(
        seen.iter().map(|s| s.shared()).sum::<usize>(),
        0,
        "shared connections"
    );
    assert_eq!(
        seen.iter().map(|s| s.traffic().len()).sum::<usize>(),
        20,
        "connections for 20 clients"
    );
    drop(clients);
    for node in &cluster.nodes {
        node.wait("the end of all upstream connections", |s| s.open_now() == 0)
            .await;
    }
}

/// Aim: connections from one address reach one node, and addresses spread. "Sticky by IP". Fails
/// without `sticky_ip`.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_one_node() {
    let cluster = cluster().await;
    let mut nodes = std::collections::BTreeSet::new();
    for n in 1..=12 {
        // Held open: least_flows would send each next connection elsewhere.
        let first = ws::connect(&cluster.dial(n), "/ws/echo", &[]).await;
        let second = ws::connect(&cluster.dial(n), "/ws/echo", &[]).await;
        let third = H1::connect(&cluster.dial(n)).await.get("/hello", &[]).await;
        assert_eq!(first.node(), second.node());
        assert_eq!(first.node(), third.node());
        nodes.insert(first.node());
    }
    assert_eq!(nodes.len(), 2, "{nodes:?}");
}

/// Aim: when a server goes Down, the edge closes its clients' connections, although the server closed none,
/// and the clients reconnect elsewhere. "TCP retransmission timeout". Fails without `on_down: evict`.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_dead_server_are_let_go() {
    let cluster = cluster().await;
    let mut socket = ws::connect(&cluster.dial(1), "/ws/echo", &[]).await;
    let was = socket.node();
    let node = cluster.node(&was);
    node.deafen();
    socket.ended().await;
    cluster
        .edge
        .wait_nodes("the dead server to be Down", |nodes| {
            nodes.to_string().to_lowercase().contains("down")
        })
        .await;
    assert_eq!(
        cluster.edge.metric("pushgate_evicted_flows_total").await,
        1.0
    );
    let again = H1::connect(&cluster.dial(1)).await.get("/hello", &[]).await;
    assert_eq!(again.status, 200);
    assert_ne!(again.node(), was);
    node.wait("the end of its connection", |s| s.open_now() == 0)
        .await;
}
