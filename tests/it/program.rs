//! The program as a process: it becomes ready, logs and counts what it does, and ends on a signal.
//!
//! In: signals and admin requests. Out: metrics, access lines, an exit code. Source: FAULTS D70.

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

/// One listener, one node.
const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
pools: { p: { nodes: [n1] } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p }
";

/// Aim: a request gets an access line without its query string, and metrics move. Fails if the query is
/// logged: push clients put passwords there.
#[tokio::test(flavor = "multi_thread")]
async fn access_lines_omit_the_query() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, YAML).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.mycompany.com");
    let answer = H1::connect(&dial)
        .await
        .get("/hello?password=secret", &[])
        .await;
    assert_eq!(answer.text(), "n1 1\n");
    let told = |lines: &[serde_json::Value]| lines.iter().any(|l| l.to_string().contains("/hello"));
    edge.wait_access("an access line", told).await;
    assert!(!edge.log().contains("secret"), "{}", edge.log());
    assert!(!edge.access().is_empty() && edge.rss() > 0);
    assert!(edge.metric("pushgate_connections_total").await >= 1.0);
}

/// Aim: SIGTERM with no live flow ends the program at once with code 0. Fails if it waits for the
/// drain deadline.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_program_at_once() {
    let block = Block::claim();
    let mut edge = Edge::start(&block, YAML).await;
    edge.signal(libc::SIGTERM);
    assert_eq!(edge.ended().await.code(), Some(0), "{}", edge.log());
}
