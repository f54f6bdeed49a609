//! Requests that their node does not read.
//!
//! In: a head larger than a node's kernel accepts. Out: another node's answer, as soon as the first node is
//! Down. Source: FAULTS D59, D60.

use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 }, n2: { address: 10.0.0.2:8080 } }
pools: { p: { nodes: [n1, n2], balance: round_robin } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p }
";

/// Aim: a request whose head is still being sent to a node that goes Down is sent to another node at once.
/// Fails if an eviction wakes only tasks that read from the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_read_is_tried_elsewhere() {
    let block = Block::claim();
    let deaf = TcpSocket::new_v4().expect("a socket");
    deaf.set_reuseaddr(true).expect("SO_REUSEADDR");
    deaf.set_recv_buffer_size(2048).expect("SO_RCVBUF");
    deaf.bind(block.at("10.0.0.1:8080")).expect("bind");
    let deaf = deaf.listen(16).expect("listen");
    let _well = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let edge = Edge::start(&block, YAML).await;
    edge.admin("POST", "/api/nodes/n2/drain").await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.mycompany.com");
    let asked = tokio::spawn(async move {
        let filler = "x".repeat(3_000);
        let names: Vec<_> = (0..8).map(|n| format!("X-Filler-{n}")).collect();
        let headers: Vec<_> = names
            .iter()
            .map(|n| (n.as_str(), filler.as_str()))
            .collect();
        H1::connect(&dial).await.get("/hello", &headers).await
    });
    let (mut first, _) = deadline("a connection", deaf.accept())
        .await
        .expect("accept");
    // The kernels accept a part of the 24 KiB; the rest waits in the edge.
    let unread =
        || socket2::SockRef::from(&first).peek(&mut [std::mem::MaybeUninit::uninit(); 1024]);
    deadline("the request", async {
        while unread().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    edge.admin("POST", "/api/nodes/n2/up").await;
    let down = Instant::now();
    edge.admin("POST", "/api/nodes/n1/down").await;
    edge.admin("POST", "/api/nodes/n1/evict").await;
    let answer = deadline("an answer", asked).await.expect("an answer");
    println!("answered {:.1?} after Down", down.elapsed());
    assert_eq!((answer.status, answer.node()), (200, "n2"));
    let mut all = Vec::new();
    let _ = deadline("the end", first.read_to_end(&mut all)).await;
    assert!(
        all.len() < 24_000,
        "{} bytes: nothing was left to be sent",
        all.len()
    );
}
