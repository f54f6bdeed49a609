//! D62–D64: nodes whose answers are broken, that close at the wrong moment, or are all gone.
//!
//! Source: RFC 9112 §6.3, §9.3.1; RFC 9110 §9.2.2.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::client::h1::H1;
use crate::deadline;
use crate::node::Node;

use super::{Counted, Rig, SECRET, Verdict, request};

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
pools: { p: { nodes: [n1], retries: 0, retry_unanswered: off, on_lost: 502 } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p }
";

/// D62: an answer that is not HTTP becomes a 502, and the error counts as the node's.
#[tokio::test(flavor = "multi_thread")]
async fn broken_heads_are_a_502() {
    let mut rig = Rig::start(1, YAML).await;
    let rows = [
        ("status-line", "bad_answer"),
        ("not-http", "bad_answer"),
        ("short-head", "node_failed"),
        ("two-lengths", "bad_answer"),
        ("big-head", "bad_answer"),
        ("upgrade-unasked", "bad_answer"),
        ("upgrade-other", "bad_answer"),
        ("reset", "node_failed"),
    ];
    let before = rig.edge.rss();
    for (fault, reason) in rows {
        let verdict = Verdict {
            status: 502,
            counted: Counted::Flow(reason),
            reaches: true,
        };
        let close = request("GET", &format!("/fault/{fault}"), "Connection: close\r\n");
        rig.judge(&format!("D62 {fault}"), &close, verdict).await;
    }
    let grown = rig.edge.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    rig.rest().await;
}

/// D62: interim answers pass; a flood of them is cut off. Fails if a node can send them without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_interim_answers_is_cut_off() {
    let mut rig = Rig::start(1, YAML).await;
    let mut client = H1::connect(&rig.good).await;
    let answer = client.get("/fault/interim-flood", &[]).await;
    assert_eq!(answer.status, 502);
    let told = |lines: &[serde_json::Value]| lines.iter().any(|l| l["reason"] == "bad_answer");
    rig.edge.wait_access("bad_answer", told).await;
    rig.serves("D62 interim-flood").await;
    rig.rest().await;
}

/// D62: the client sees that a cut answer is cut. Fails if the client reads a complete body, or if the next
/// answer has a byte of the broken one.
#[tokio::test(flavor = "multi_thread")]
async fn cut_bodies_stay_cut() {
    let mut rig = Rig::start(1, YAML).await;
    for fault in ["short-body", "bad-chunk", "cut-chunk", "no-last-chunk"] {
        let mut client = H1::connect(&rig.good).await;
        let path = format!("/fault/{fault}?password={SECRET}");
        client.send("GET", &path, &[], b"").await.expect("send");
        let head = client
            .head()
            .await
            .unwrap_or_else(|e| panic!("{fault}: {e}"));
        assert_eq!(head.status, 200, "{fault}");
        let body = client.rest().await;
        assert!(body.is_err(), "{fault}: whole: {body:?}");
        rig.serves(fault).await;
    }
    rig.rest().await;
}

/// D62: bytes that a node sends after an answer are dropped. Fails if the next answer on the client's
/// connection has one of them.
#[tokio::test(flavor = "multi_thread")]
async fn answers_never_mix() {
    let mut rig = Rig::start(1, YAML).await;
    for fault in ["long-body", "head-after-body", "upgrade-200", "interim"] {
        let mut client = H1::connect(&rig.good).await;
        for _ in 0..3 {
            let path = format!("/fault/{fault}?keep=1");
            let answer = client.get(&path, &[]).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "ok\n"),
                "{fault}"
            );
            let next = client.get("/hello", &[]).await;
            assert!(next.text().starts_with("n1 "), "{fault}: {}", next.text());
        }
    }
    rig.rest().await;
}

/// How a node treats the requests of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Answers the first and closes at once: the idle upstream is dead before the next request.
    Idle,
    /// Answers the first and closes when the second arrives, without reading it.
    OnArrival,
    /// Reads the second and closes.
    Unanswered,
}

/// A node that answers one request on each connection. The caller counts the whole requests it read.
async fn fickle(listener: TcpListener, ends: Ends, closed: Arc<Notify>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let closed = closed.clone();
        tokio::spawn(async move {
            let mut buf = vec![0; 4096];
            if stream.read(&mut buf).await.unwrap_or(0) == 0 {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
            let _ = stream.write_all(answer).await;
            match ends {
                Ends::Idle => {}
                Ends::OnArrival => {
                    let _ = stream.readable().await;
                }
                Ends::Unanswered => {
                    let _ = stream.read(&mut buf).await;
                }
            }
            drop(stream);
            closed.notify_one();
        });
    }
}

/// D63: a GET that met a closing idle upstream is sent again on a new connection; a POST only if none of it
/// was sent. Otherwise the client's connection ends without an answer, as it would without an edge (RFC 9112
/// §9.3.1). Fails if the client sees the race, if a POST is sent twice, or if it is answered 502.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_connection_is_hidden_from_the_client() {
    for (ends, method, expected) in [
        (Ends::Idle, "GET", Some(200)),
        (Ends::OnArrival, "GET", Some(200)),
        (Ends::Unanswered, "GET", Some(200)),
        (Ends::Idle, "POST", Some(200)),
        (Ends::OnArrival, "POST", None),
        (Ends::Unanswered, "POST", None),
    ] {
        let yaml = YAML.replace("10.0.0.1:8080", "10.0.0.9:8080");
        let mut rig = Rig::start(0, &yaml).await;
        let closed = Arc::new(Notify::new());
        let node = TcpListener::bind(rig.block.at("10.0.0.9:8080")).await;
        let node = tokio::spawn(fickle(node.expect("bind"), ends, closed.clone()));
        let mut client = H1::connect(&rig.good).await;
        let first = client.get("/first", &[]).await;
        assert_eq!(first.text(), "ok\n", "{ends:?}");
        if ends == Ends::Idle {
            // The node has closed: on loopback the FIN has then reached the edge's socket.
            deadline("the node's close", closed.notified()).await;
        }
        let body: &[u8] = if method == "POST" { b"x=1" } else { b"" };
        let sent = client.send(method, "/second", &[], body).await;
        sent.expect("the second request");
        let second = client.head().await;
        assert_eq!(second.ok().map(|s| s.status), expected, "{ends:?} {method}");
        drop(client);
        rig.serves("D63").await;
        rig.rest().await;
        node.abort();
    }
}

/// D64: without a node the answer is 503 with Retry-After. Draining nodes take only their stuck clients. When
/// a node comes back, the pool recovers without help.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_nodes_recovers() {
    let health =
        "health: { http: { path: /health }, interval: 50ms, timeout: 40ms, rise: 1, fall: 1 }";
    let yaml = YAML.replace("retries: 0", health);
    let mut rig = Rig::start(1, &yaml).await;
    let none = Verdict {
        status: 503,
        counted: Counted::Flow("no_node"),
        reaches: false,
    };
    let get = request("GET", "/hello", "Connection: close\r\n");
    for order in ["drain", "down"] {
        rig.edge
            .admin("POST", &format!("/api/nodes/n1/{order}"))
            .await;
        let mut client = H1::connect(&rig.good).await;
        let answer = client.get("/hello", &[]).await;
        assert_eq!(answer.status, none.status, "{order}");
        let wait = answer.header("retry-after").and_then(|v| v.parse().ok());
        assert!(wait.is_some_and(|s: u32| (1..=60).contains(&s)), "{order}");
    }
    rig.edge.admin("POST", "/api/nodes/n1/up").await;
    let is = |state: &'static str| move |nodes: &serde_json::Value| nodes[0]["state"] == state;
    rig.edge.wait_nodes("n1 up", is("up")).await;
    rig.serves("drain and down").await;
    let addr = rig.nodes[0].addr;
    rig.nodes.clear();
    rig.edge.wait_nodes("n1 down", is("down")).await;
    let mut client = H1::connect(&rig.good).await;
    client.raw(&get).await.expect("send");
    assert_eq!(client.head().await.expect("a head").status, 503);
    assert_eq!(rig.edge.admin("GET", "/readyz").await.status, 503);
    rig.nodes.push(Node::start("n1", addr).await);
    deadline("the pool to recover", async {
        while H1::connect(&rig.good).await.get("/hello", &[]).await.status != 200 {}
    })
    .await;
    rig.rest().await;
}
