//! The admin endpoint under clients that take what they can get: connections, descriptors, time, log lines.
//!
//! In: hundreds of connections that read no answer, bodies that never come, wrong tokens, a process without
//! descriptors. Out: an operator is answered all the same. Source: FAULTS D71, D54.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::reloads::leave_descriptors;
use crate::vip::Block;

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1 }
";

/// Connections that the endpoint has at most.
const MOST: usize = 64;

/// Returns how many connections the endpoint has open.
fn connections(block: &Block) -> usize {
    let std::net::SocketAddr::V4(at) = block.admin() else {
        panic!("an IPv4 address");
    };
    let ip = u32::from_ne_bytes(at.ip().octets());
    let local = format!("{ip:08X}:{:04X}", at.port());
    let all = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
    let fields = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Established, or closed by the client.
    let open = |f: &Vec<&str>| f.len() > 3 && f[1] == local && matches!(f[3], "01" | "08");
    fields.filter(open).count()
}

/// Waits until at most `most` connections are open.
async fn at_most(block: &Block, most: usize) {
    deadline("fewer connections", async {
        while connections(block) > most {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Asks for `path` `requests` times, and reads nothing.
async fn unread(block: &Block, path: &str, requests: usize) -> TcpStream {
    let dial = Dial {
        rcvbuf: Some(4096),
        ..Dial::plain(block.admin())
    };
    let mut stream = dial.tcp().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", block.admin());
    // The endpoint may have closed it already, in favour of another one.
    let _ = stream.write_all(request.repeat(requests).as_bytes()).await;
    stream
}

/// Aim: clients that read no answer have 64 connections at most, and are closed in time; an operator is
/// answered meanwhile. Fails without the limit (1,010 of them took every descriptor), or if newcomers are
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_end() {
    let block = Block::claim();
    let edge = Edge::start(&block, YAML).await;
    let begin = Instant::now();
    let mut all = Vec::new();
    for _ in 0..3 * MOST {
        all.push(unread(&block, "/", 100).await);
    }
    assert_eq!(edge.admin("GET", "/healthz").await.status, 200);
    at_most(&block, MOST).await;
    let refused = edge.metric("pushgate_admin_refused_total").await;
    assert!(
        refused >= 2.0 * MOST as f64,
        "{refused} refused after {:?}",
        begin.elapsed()
    );
    at_most(&block, 0).await;
}

/// Aim: a dashboard that reads no event is closed. Fails without the deadline of writes.
#[tokio::test(flavor = "multi_thread")]
async fn unread_events_end() {
    let block = Block::claim();
    let node = |n| format!("  n{n}: {{ address: 10.0.0.1:{} }}\n", 10_000 + n);
    let nodes: String = (2..500).map(node).collect();
    let yaml = YAML.replace(
        "{ n1: { address: 10.0.0.1:8080 } }",
        &format!("\n  n1: {{ address: 10.0.0.1:8080 }}\n{nodes}"),
    );
    let edge = Edge::start(&block, &yaml).await;
    let _events = unread(&block, "/api/events", 1).await;
    edge.wait_nodes("the nodes", |nodes| nodes[400].is_object())
        .await;
    assert!(connections(&block) > 0, "open for a while");
    at_most(&block, 0).await;
}

/// Aim: a body that does not come is given up. Fails if a handler waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_deadline() {
    let block = Block::claim();
    let _edge = Edge::start(&block, YAML).await;
    for path in ["/api/nodes/n1/up", "/api/pools/p/rebalance"] {
        let mut stream = Dial::plain(block.admin()).tcp().await;
        let host = block.admin();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.expect("send");
        let mut answer = [0; 12];
        let read = deadline("an answer", stream.read_exact(&mut answer)).await;
        read.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 408", "{path}");
    }
}

/// Aim: wrong tokens are counted, and logged with their sender at a bounded pace. Fails without the count, or
/// if each writes a line.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_counted() {
    let (block, dir) = (Block::claim(), tempfile::tempdir().expect("a folder"));
    let file = dir.path().join("token");
    std::fs::write(&file, "right\n").expect("write");
    let admin = format!(
        "admin: {{ bind: {}, token_file: {} }}\n",
        block.admin(),
        file.display()
    );
    let edge = Edge::start(&block, &format!("{YAML}{admin}")).await;
    let begin = Instant::now();
    for _ in 0..100 {
        let mut client = H1::connect(&Dial::plain(block.admin())).await;
        let wrong = [("Authorization", "Bearer wrong")];
        assert_eq!(client.get("/metrics", &wrong).await.status, 401);
    }
    let most = 10 + 3 * (begin.elapsed().as_secs() as usize + 1);
    let metrics = edge.metrics().await;
    let counted = metrics["pushgate_admin_refused_total{reason=\"token\"}"];
    assert_eq!(counted, 100.0);
    edge.wait_log("token missing or wrong").await;
    let log = edge.log();
    let lines = log.matches("admin: refused a request from 127.").count();
    assert!((10..=most).contains(&lines), "{log}");
}

/// Aim: an operator is answered when the process has no descriptor left. Fails without descriptors of the
/// endpoint's own.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_no_free_descriptor() {
    const LIMIT: u64 = 256;
    let block = Block::claim();
    let edge = Edge::start_limited(&block, YAML, LIMIT).await;
    leave_descriptors(&edge, 0, LIMIT);
    for _ in 0..10 {
        assert_eq!(edge.admin("GET", "/healthz").await.status, 200);
    }
    leave_descriptors(&edge, LIMIT as usize, LIMIT);
}
