//! Requests whose node is lost before it answers: frozen, ordered down, reset or closed.
//!
//! In: requests that a node holds, of methods and bodies of all kinds. Out: the client's connection ends in
//! order, a 502, or another node's answer, according to `on_lost`, `retry_on`, `retry_unanswered`, `retries`
//! and `no_node`. Source: RFC 9110 §9.2.2, RFC 9112 §9.3.1; Lightstreamer clustering §1; FAULTS D59, D63.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::{H1, Response};
use crate::deadline;
use crate::edge::Edge;
use crate::node::{Held, Node};
use crate::setup::{self, HEALTH, HOST, Setup};
use crate::tlcp::{Sessions, Settings};
use crate::vip::Block;

/// The real Lightstreamer client on a lost node.
mod clients;
/// HTTP/2 streams.
mod streams;
/// How often a request is tried, and where.
mod tries;

/// A frozen node is Down after two failed checks. Even on a busy machine, a healthy node is not that late
/// twice.
const CHECKS: &str =
    "{ http: { path: /health }, interval: 50ms, timeout: 500ms, rise: 1, fall: 2 }";

/// The longest time from a node's Down to the end of its clients.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It stops answering; its checks fail.
    Frozen,
    /// An operator orders it down while it serves.
    Ordered,
    /// It resets the request's connection and serves on.
    Reset,
    /// It closes the request's connection in order and serves on.
    Closed,
    /// It resets all connections and closes its listener.
    Killed,
}

const LOSSES: [Loss; 5] = [
    Loss::Frozen,
    Loss::Ordered,
    Loss::Reset,
    Loss::Closed,
    Loss::Killed,
];

impl Loss {
    /// Loses node `name`. Returns when that happened: for a frozen node, when it went Down.
    async fn happens(self, setup: &Setup, name: &str) -> Instant {
        let node = node(setup, name);
        let at = Instant::now();
        match self {
            Loss::Frozen => {
                node.freeze();
                setup.wait_state(name, "down").await;
                return Instant::now();
            }
            Loss::Ordered => {
                let path = format!("/api/nodes/{name}/down");
                assert_eq!(setup.edge.admin("POST", &path).await.status, 200);
            }
            Loss::Reset => node.hold(Held::Resets),
            Loss::Closed => node.hold(Held::Closes),
            Loss::Killed => node.kill(),
        }
        at
    }
}

/// Starts nodes and the edge, with `pool` as more keys of the pool, and with checks that find a frozen node.
async fn start(nodes: u8, pool: &str) -> Setup {
    start_from(nodes, "", pool, CHECKS, Settings::default()).await
}

/// As [`start`], with other checks, with plugins, and with `settings` for the nodes.
async fn start_from(
    nodes: u8,
    plugins: &str,
    pool: &str,
    checks: &str,
    settings: Settings,
) -> Setup {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let mut running = Vec::new();
    for n in 1..=nodes {
        let (name, at) = (format!("n{n}"), block.at(&format!("10.0.0.{n}:8080")));
        let sessions = Sessions::with(&name, settings.clone());
        running.push(Node::start_with(&name, at, sessions).await);
    }
    let yaml = setup::yaml(&certs, nodes, plugins, pool).replace(HEALTH, checks);
    let edge = Edge::start(&block, &yaml).await;
    Setup {
        block,
        nodes: running,
        edge,
        certs,
    }
}

fn node<'s>(setup: &'s Setup, name: &str) -> &'s Node {
    let n: usize = name
        .trim_start_matches('n')
        .parse()
        .expect("n and a number");
    &setup.nodes[n - 1]
}

/// Requests for `/hold` that each node has received.
fn visits(setup: &Setup) -> Vec<usize> {
    let of = |node: &Node| {
        let seen = node.seen();
        let held = seen.requests().into_iter().filter(|r| r.target == "/hold");
        held.count()
    };
    setup.nodes.iter().map(of).collect()
}

/// Waits until a node holds the one request; returns the node's name.
async fn holder(setup: &Setup) -> String {
    deadline("a node to hold the request", async {
        loop {
            if let Some(n) = visits(setup).iter().position(|n| *n > 0) {
                return format!("n{}", n + 1);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// A request for `/hold` in one piece, and the body that a node must read.
struct Asked {
    name: &'static str,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

impl Asked {
    fn get() -> Asked {
        Asked {
            name: "GET",
            bytes: format!("GET /hold HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes(),
            body: Vec::new(),
        }
    }

    fn post(name: &'static str, size: usize, chunked: bool) -> Asked {
        let body: Vec<u8> = (0..size).map(|i| b'a' + (i % 26) as u8).collect();
        let (field, wire) = match chunked {
            false => (format!("Content-Length: {size}"), body.clone()),
            true => ("Transfer-Encoding: chunked".to_owned(), chunks(&body)),
        };
        let head = format!("POST /hold HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n\r\n");
        Asked {
            name,
            bytes: [head.as_bytes(), &wire].concat(),
            body,
        }
    }

    /// A POST of a few bytes, like a client's poll or control request.
    fn form() -> Asked {
        Self::post("POST", 20, false)
    }

    /// Sends it on a new connection.
    async fn send(&self, dial: &Dial) -> H1 {
        let mut client = H1::connect(dial).await;
        client.raw(&self.bytes).await.expect("send");
        client
    }
}

/// `body` in chunks of 1,000 bytes, the last one shorter.
fn chunks(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in body.chunks(1000) {
        wire.extend(format!("{:x}\r\n", part.len()).bytes());
        wire.extend(part);
        wire.extend(b"\r\n");
    }
    wire.extend(b"0\r\n\r\n");
    wire
}

/// Reads a whole answer.
async fn answer(client: &mut H1, what: &str) -> Response {
    let head = client.head().await;
    let mut response = head.unwrap_or_else(|e| panic!("{what}: no answer: {e}"));
    let body = client.rest().await;
    response.body = body.unwrap_or_else(|e| panic!("{what}: {e}"));
    response
}

/// Waits until the connection ends; asserts that it ends in order and without a byte of an answer.
async fn ends_unanswered(client: &mut H1, what: &str) -> Instant {
    match client.head().await {
        Ok(head) => panic!("{what}: answered {}", head.status),
        Err(e) => assert_eq!(e.kind(), ErrorKind::UnexpectedEof, "{what}: {e}"),
    }
    Instant::now()
}

/// Aim: a POST whose node is lost ends its connection without an answer, in order, within a second of Down,
/// and reaches no other node; plain and TLS. Source: RFC 9112 §9.3.1. Fails if the edge answers 502 by
/// default, waits for the node, resets the client, or sends the POST twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_post_ends_its_connection_in_order() {
    for loss in LOSSES {
        for tls in [false, true] {
            let what = format!("{loss:?}, TLS {tls}");
            let setup = start(2, "").await;
            let dial = if tls { setup.tls() } else { setup.plain() };
            let mut client = Asked::form().send(&dial).await;
            let holder = holder(&setup).await;
            let waits = tokio::spawn({
                let what = what.clone();
                async move { ends_unanswered(&mut client, &what).await }
            });
            let down = loss.happens(&setup, &holder).await;
            let ended = deadline(&what, waits).await.expect("an end");
            let late = ended.saturating_duration_since(down);
            assert!(late < AT_ONCE, "{what}: {late:?} after its node was lost");
            assert_eq!(visits(&setup).iter().sum::<usize>(), 1, "{what}");
            let reason = match loss {
                Loss::Frozen | Loss::Ordered => "evicted",
                _ => "node_failed",
            };
            let told = |l: &serde_json::Value| l["reason"] == reason && l["path"] == "/hold";
            let line = format!("{what}: a line {reason}");
            setup
                .edge
                .wait_access(&line, |all| all.iter().any(told))
                .await;
        }
    }
}

/// Aim: with `on_lost: 502` the same client gets a 502. Fails if the key is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn on_lost_can_answer() {
    for loss in LOSSES {
        let setup = start(2, "    on_lost: 502\n").await;
        let mut client = Asked::form().send(&setup.plain()).await;
        let holder = holder(&setup).await;
        let waits = tokio::spawn(async move { answer(&mut client, "on_lost: 502").await });
        let down = loss.happens(&setup, &holder).await;
        let answer = deadline("an answer", waits).await.expect("an answer");
        assert_eq!(answer.status, 502, "{loss:?}");
        assert!(down.elapsed() < AT_ONCE, "{loss:?}: {:?}", down.elapsed());
        assert_eq!(visits(&setup).iter().sum::<usize>(), 1, "{loss:?}");
    }
}

/// Aim: the other node answers a GET, and a POST on a path of `retry_on`, with the whole body: none, short,
/// 40 KiB, with a length and chunked. Source: RFC 9110 §9.2.2; Lightstreamer clustering §1. Fails if the
/// request is not repeated, or if a byte of its body is lost, doubled or framed anew.
#[tokio::test(flavor = "multi_thread")]
async fn repeatable_requests_are_answered_by_another_node() {
    let asked = [
        Asked::get(),
        Asked::form(),
        Asked::post("short chunked POST", 20, true),
        Asked::post("POST of 40 KiB", 40 << 10, false),
        Asked::post("chunked POST of 40 KiB", 40 << 10, true),
    ];
    for loss in LOSSES {
        let setups = asked.iter().map(|asked| async move {
            let setup = start(2, "    retry_on: [/hold]\n").await;
            repeated(&setup, loss, asked).await;
        });
        futures_util::future::join_all(setups).await;
    }
}

/// Loses the node that holds `asked`, and asserts that the other one's answer is whole.
async fn repeated(setup: &Setup, loss: Loss, asked: &Asked) {
    let what = format!("{loss:?}, {}", asked.name);
    let mut client = asked.send(&setup.plain()).await;
    let holder = holder(setup).await;
    let other = if holder == "n1" { "n2" } else { "n1" };
    node(setup, other).hold(Held::Echo);
    let waits = tokio::spawn({
        let what = what.clone();
        async move { answer(&mut client, &what).await }
    });
    let down = loss.happens(setup, &holder).await;
    let answer = deadline(&what, waits).await.expect("an answer");
    assert!(down.elapsed() < AT_ONCE, "{what}: {:?}", down.elapsed());
    assert_eq!((answer.status, answer.node()), (200, other), "{what}");
    assert!(
        answer.body == asked.body,
        "{what}: {} bytes",
        answer.body.len()
    );
    assert_eq!(visits(setup), [1, 1], "{what}");
}
