//! Layer 4 beyond plain bytes: TLS that ends at the edge, VIPs of one wildcard socket, assignments that
//! expire.
//!
//! In: clients of `mode: tcp` listeners. Out: which node they reach, and how each end arrives under TLS.
//! Source: Lightstreamer clustering §3.2.2.3 ("Layer-4 SSL offloading"), §2.1.1, §3.2.1.1, §4; FAULTS D20.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

const HOST: &str = "push.mycompany.com";

/// Aim: D20 where TLS ends at the edge. A client that half-closes still receives everything from the node,
/// and the other way round. A node's reset is not an orderly end. Fails if close_notify ends both directions,
/// or if a reset arrives as close_notify.
#[tokio::test(flavor = "multi_thread")]
async fn ends_pass_through_offload() {
    let (block, certs) = (Block::claim(), Certs::new());
    let leaf = certs.leaf("push", &[HOST], Key::Ecdsa);
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\n\
         certificates: {{ push: {{ chain: {}, key: {} }} }}\nlisteners:\n  \
         - {{ name: raw, bind: [200.0.0.10:443], mode: tcp, to: n1, tls: {{ certificates: [push] }} }}\n",
        leaf.chain.display(),
        leaf.key.display()
    );
    let listener = TcpListener::bind(block.at("10.0.0.1:8080"));
    let listener = listener.await.expect("the node's address");
    let _edge = Edge::start(&block, &yaml).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let bulk = vec![b'x'; 100_000];
    for first in ["client", "node", "reset"] {
        let (mut client, accepted) = tokio::join!(dial.io(), listener.accept());
        let mut node = accepted.expect("the edge connects").0;
        client.write_all(b"hello").await.expect("write");
        let mut hello = [0; 5];
        deadline("the first bytes", node.read_exact(&mut hello))
            .await
            .expect("bytes");
        let mut got = Vec::new();
        match first {
            "client" => {
                client.shutdown().await.expect("close_notify");
                deadline("FIN", node.read_to_end(&mut got))
                    .await
                    .expect("an end");
                node.write_all(&bulk).await.expect("write after FIN");
                drop(node);
                deadline("the rest", client.read_to_end(&mut got))
                    .await
                    .expect("bytes");
                assert_eq!(got.len(), bulk.len(), "the client hears the node out");
            }
            "node" => {
                node.shutdown().await.expect("FIN");
                deadline("an end", client.read_to_end(&mut got))
                    .await
                    .expect("close_notify");
                client
                    .write_all(&bulk)
                    .await
                    .expect("write after close_notify");
                client.shutdown().await.expect("close_notify");
                deadline("the rest", node.read_to_end(&mut got))
                    .await
                    .expect("bytes");
                assert_eq!(got.len(), bulk.len(), "the node hears the client out");
            }
            _ => {
                let linger = socket2::SockRef::from(&node).set_linger(Some(Duration::ZERO));
                linger.expect("SO_LINGER");
                drop(node);
                let end = deadline("an end", client.read_to_end(&mut got)).await;
                assert!(end.is_err(), "a reset is no orderly end: {end:?}");
            }
        }
    }
}

/// Aim: one socket listens on all addresses, and each VIP has its own node. Fails if the edge takes the
/// destination from the bind instead of from the connection.
#[tokio::test(flavor = "multi_thread")]
async fn vips_of_a_wildcard_bind() {
    let block = Block::claim();
    let _nodes = two(&block).await;
    let yaml = "nodes: { n1: { address: 10.0.0.1:8080 }, n2: { address: 10.0.0.2:8080 } }\n\
         listeners:\n  - name: raw\n    bind: [0.0.0.0:0]\n    mode: tcp\n    \
         plugins: [vip_route: { vips: { 127.0.0.2: n1, 127.0.0.3: n2 } }]\n";
    let edge = Edge::start(&block, yaml).await;
    let text = edge.admin("GET", "/api/listeners").await.text();
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bound: SocketAddr = told[0]["address"]
        .as_str()
        .and_then(|a| a.parse().ok())
        .expect("an address");
    for (vip, node) in [([127, 0, 0, 2], "n1"), ([127, 0, 0, 3], "n2")] {
        let dial = Dial::plain((vip, bound.port()).into());
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!(answer.node(), node);
    }
    // An address without a route; the edge must close the connection.
    let other = Dial::plain(([127, 0, 0, 4], bound.port()).into());
    assert!(H1::connect(&other).await.ended().await);
}

/// Aim: at layer 4 an assignment by address ends with its `max_age`, while the connection that made it lives
/// on. Fails if use renews it, or if the table never forgets.
#[tokio::test(flavor = "multi_thread")]
async fn assignments_age() {
    let block = Block::claim();
    let _nodes = two(&block).await;
    let yaml = "nodes: { n1: { address: 10.0.0.1:8080 }, n2: { address: 10.0.0.2:8080 } }\n\
         pools: { p: { nodes: [n1, n2] } }\nlisteners:\n  - name: raw\n    bind: [200.0.0.10:80]\n    \
         mode: tcp\n    to: p\n    plugins: [sticky_ip: { max_age: 1s, jitter: 0%, expiry: none }]\n";
    let _edge = Edge::start(&block, yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    let before = Instant::now();
    let mut held = H1::connect(&dial).await;
    let first = held.get("/hello", &[]).await.node().to_owned();
    // The other node always has fewer flows: only the table keeps the client on its node.
    let moved = deadline("another node", async {
        loop {
            let answer = H1::connect(&dial).await.get("/hello", &[]).await;
            if answer.node() != first {
                return before.elapsed();
            }
        }
    })
    .await;
    assert!(moved >= Duration::from_secs(1), "{moved:?}");
    assert_eq!(held.get("/hello", &[]).await.node(), first);
}

async fn two(block: &Block) -> [Node; 2] {
    let (first, second) = (block.at("10.0.0.1:8080"), block.at("10.0.0.2:8080"));
    [
        Node::start("n1", first).await,
        Node::start("n2", second).await,
    ]
}
