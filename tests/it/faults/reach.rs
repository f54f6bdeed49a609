//! D59: nodes that refuse, drop SYNs, reset, or send nothing. Source: Lightstreamer clustering §3 (a client
//! is sent elsewhere only where that is safe); RFC 9110 §9.2.2.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;

use super::{Counted, Rig, Verdict, request};

/// The edge tries `bad` first or second; `good` is a node that serves.
const YAML: &str = "
nodes: { good: { address: 10.0.0.1:8080 }, bad: { address: 10.0.0.9:8080 } }
pools:
  both: { nodes: [good, bad], balance: round_robin, connect_timeout: 300ms }
  alone: { nodes: [bad], connect_timeout: 300ms, retries: 0, on_lost: 502 }
  tried: { nodes: [bad], connect_timeout: 300ms, on_lost: 502 }
  slow: { nodes: [good, bad], balance: round_robin, connect_timeout: 15s }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: both }
  - { name: alone, bind: [200.0.0.11:80], mode: http, to: alone }
  - { name: plain, bind: [200.0.0.12:80], mode: tcp, to: alone }
  - { name: tried, bind: [200.0.0.13:80], mode: http, to: tried }
  - { name: slow, bind: [200.0.0.14:80], mode: http, to: slow }
  - { name: slow4, bind: [200.0.0.15:80], mode: tcp, to: slow }
";

/// What listens at the bad node's address; kept as long as it must.
enum Bad {
    Refuses,
    /// Its backlog is full: SYNs are dropped.
    Swallows {
        _socket: Socket,
        _fill: Vec<TcpStream>,
    },
    /// Accepts and resets, or accepts and holds.
    Accepts(tokio::task::JoinHandle<()>),
}

impl Drop for Bad {
    fn drop(&mut self) {
        if let Bad::Accepts(task) = self {
            task.abort();
        }
    }
}

async fn swallows(at: SocketAddr) -> Bad {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&at.into()).expect("bind");
    socket.listen(0).expect("listen");
    let mut fill = Vec::new();
    // The kernel accepts a connection or two beyond the backlog; the first one that hangs shows that it is
    // full.
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(at)).await
    {
        fill.push(stream);
    }
    Bad::Swallows {
        _socket: socket,
        _fill: fill,
    }
}

async fn accepts(at: SocketAddr, resets: bool) -> Bad {
    let listener = TcpListener::bind(at).await.expect("bind");
    Bad::Accepts(tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            if resets {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            } else {
                held.push(stream);
            }
        }
    }))
}

async fn bad(rig: &Rig, kind: &str) -> Bad {
    let at = rig.block.at("10.0.0.9:8080");
    match kind {
        "refuses" => Bad::Refuses,
        "swallows" => swallows(at).await,
        "resets" => accepts(at, true).await,
        _ => accepts(at, false).await,
    }
}

async fn rig() -> Rig {
    Rig::start(1, YAML).await
}

/// D59: with another node in the pool, no client notices. Fails if a GET is answered with an error, or later
/// than one connect timeout plus a margin.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over() {
    for kind in ["refuses", "swallows", "resets"] {
        let mut rig = rig().await;
        let _bad = bad(&rig, kind).await;
        for _ in 0..6 {
            let start = Instant::now();
            let answer = H1::connect(&rig.good).await.get("/hello", &[]).await;
            assert_eq!((answer.status, answer.node()), (200, "n1"), "{kind}");
            assert!(start.elapsed() < Duration::from_secs(5), "{kind}");
        }
        rig.rest().await;
    }
}

/// D60: when a node goes Down during a connect, the edge gives the connect up and serves the client elsewhere
/// at once, at both layers. Fails if the connect runs to `connect_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn a_connect_in_progress_moves_on() {
    let mut rig = rig().await;
    let _bad = bad(&rig, "swallows").await;
    for vip in [14, 15] {
        let to = Dial::plain(rig.block.at(&format!("200.0.0.{vip}:80")));
        let get = || async { H1::connect(&to).await.get("/hello", &[]).await };
        let both = async { tokio::join!(get(), get()) };
        let order = async {
            let waits = |n: &serde_json::Value| n[0]["flows"] == 1;
            rig.edge.wait_nodes("a flow on its way", waits).await;
            let start = Instant::now();
            rig.edge.admin("POST", "/api/nodes/bad/down").await;
            start
        };
        let ((one, other), start) = tokio::join!(both, order);
        assert_eq!((one.node(), other.node()), ("n1", "n1"), "{vip}");
        assert!(start.elapsed() < Duration::from_secs(5), "{vip}");
        rig.edge.admin("POST", "/api/nodes/bad/up").await;
    }
    rig.rest().await;
}

/// D59: a bad node alone in its pool: a refusal gives 502, dropped SYNs 504 within the connect timeout, a
/// reset 502. The same holds if retries are left but no node is. Fails if the client waits for the kernel's
/// own timeout, if a POST that was sent is sent again, or if the last failure is reported as `no node` (503).
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_node_alone_is_a_gateway_error() {
    for (kind, status, reason) in [
        ("refuses", 502, "node_unreachable"),
        ("swallows", 504, "node_unreachable"),
        ("resets", 502, "node_failed"),
    ] {
        let rows = [("GET", "alone"), ("POST", "alone"), ("GET", "tried")];
        for (method, listener) in rows {
            // Each row has its own edge, whose node is Up until the connect fails.
            let mut rig = rig().await;
            let _bad = bad(&rig, kind).await;
            let vip = if listener == "alone" { 11 } else { 13 };
            let to = rig.block.at(&format!("200.0.0.{vip}:80"));
            let bytes = request(
                method,
                "/hello",
                "Connection: close\r\nContent-Length: 0\r\n",
            );
            let verdict = Verdict {
                status,
                counted: Counted::Flow(reason),
                reaches: false,
            };
            let start = Instant::now();
            let row = format!("D59 {kind} {method} {listener}");
            rig.judge_at(&row, to, listener, &bytes, verdict).await;
            assert!(start.elapsed() < Duration::from_secs(5), "{row}");
            rig.rest().await;
        }
    }
}

/// Aim: after a gateway error the connection closes, and the answer announces that: otherwise the client
/// would lose its next request on it. Fails if the answer announces keep-alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_error_says_that_it_closes() {
    let mut rig = rig().await;
    let _bad = bad(&rig, "refuses").await;
    let mut dial = rig.good.clone();
    dial.to = rig.block.at("200.0.0.11:80");
    let answer = H1::connect(&dial).await.get("/hello", &[]).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("connection"), Some("close"));
    rig.rest().await;
}

/// D59: a node that accepts and sends nothing: no timer of ours cuts the flow. When the client goes, nothing
/// is left. Clients of the other pool go on.
#[tokio::test(flavor = "multi_thread")]
async fn silence_lasts_as_long_as_the_client() {
    let mut rig = rig().await;
    let _bad = bad(&rig, "holds").await;
    let mut dial = rig.good.clone();
    let flows = "pushgate_flows_total{listener=\"alone\",reason=\"client_closed\"}";
    dial.to = rig.block.at("200.0.0.11:80");
    let mut client = H1::connect(&dial).await;
    client.send("GET", "/hello", &[], b"").await.expect("send");
    let heard = tokio::time::timeout(Duration::from_millis(500), client.head()).await;
    assert!(heard.is_err(), "{heard:?}");
    rig.edge
        .wait_nodes("its flow", |n| n[0]["flows"] == 1)
        .await;
    drop(client);
    rig.edge.wait_nodes("no flow", |n| n[0]["flows"] == 0).await;
    rig.wait_sample("D59 silence", flows, 1.0).await;
    rig.rest().await;
}

/// D59 at layer 4: the edge closes the client's connection in bounded time, whatever the node does.
#[tokio::test(flavor = "multi_thread")]
async fn layer_4_is_closed() {
    for kind in ["refuses", "swallows", "resets"] {
        let mut rig = rig().await;
        let _bad = bad(&rig, kind).await;
        let dial = Dial::plain(rig.block.at("200.0.0.12:80"));
        // The reset may arrive before the client uses the connection.
        if let Ok(stream) = dial.try_tcp().await {
            let mut client = H1::over(Box::new(stream));
            deadline(kind, client.ended()).await;
        }
        rig.serves(kind).await;
        rig.rest().await;
    }
}
