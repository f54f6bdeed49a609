//! An upstream connection belongs to one client connection for its whole life, and a client has one.
//!
//! In: persistent clients that send their name. Out: the node's record of which client used which connection,
//! and when each ended. Source: Diffusion load balancers, "Connection pooling", "Reuse TCP connection".

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::deadline;
use crate::edge::Edge;
use crate::node::{Health, Seen};
use crate::setup::{self, HOST, Setup};
use crate::vip::Block;

/// Aim: 500 clients send 20 requests each on persistent connections. No upstream connection is shared, each
/// client has exactly one, and it ends with its client's connection. Fails with any shared pool, and if idle
/// upstreams outlive their client.
#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_connection_for_each_client() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let clients = (0..CLIENTS).map(|n| {
        let dial = if n % 5 == 0 {
            setup.tls()
        } else {
            setup.plain()
        };
        tokio::spawn(async move {
            let id = format!("c{n}");
            let mut client = H1::connect(&dial).await;
            for _ in 0..20 {
                let answer = client.get("/hello", &[("X-Client-Id", &id)]).await;
                assert_eq!(answer.status, 200);
            }
            (id, client)
        })
    });
    let mut kept = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        kept.push(client.await.expect("20 answers"));
    }
    let seen = node.seen();
    assert_eq!((seen.requests().len(), seen.shared()), (CLIENTS * 20, 0));
    assert_eq!((seen.traffic().len(), seen.open_now()), (CLIENTS, CLIENTS));
    let mut slowest = Duration::ZERO;
    for (id, client) in kept {
        let end = Instant::now();
        drop(client);
        let gone = |s: &Seen| closed(s, &id).is_some();
        let seen = node.wait("the client's upstream to end", gone).await;
        let closed = closed(&seen, &id).expect("just waited for");
        slowest = slowest.max(closed.saturating_duration_since(end));
    }
    println!("slowest end of an upstream connection after its client's: {slowest:.1?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(node.seen().open_now(), 0);
}

/// Aim: an idle upstream that the node ends is closed at once, over HTTP/1 and HTTP/2: otherwise it keeps a
/// descriptor as long as its client is silent. Fails if only the next request notices the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_upstream_ends_with_its_node() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let listener = TcpListener::bind(block.at("10.0.0.1:8080")).await;
    let (told, mut closed) = mpsc::channel(1);
    let node = tokio::spawn(ends_idle(listener.expect("bind"), told));
    let setup = Setup {
        edge: Edge::start(&block, &setup::yaml(&certs, 1, "", "")).await,
        nodes: Vec::new(),
        block,
        certs,
    };
    let mut client = H1::connect(&setup.plain()).await;
    assert_eq!(client.get("/hello", &[]).await.text(), "ok\n");
    let mut multiplexed = H2::connect(&setup.tls()).await;
    assert_eq!(multiplexed.get("/hello", &[]).await.body(), b"ok\n");
    for _ in 0..2 {
        deadline("the edge to close", closed.recv()).await;
    }
    assert_eq!(client.get("/hello", &[]).await.text(), "ok\n");
    node.abort();
}

/// Answers one request on each connection and sends FIN. Reports when the edge has closed too, unless the
/// request was a health check.
async fn ends_idle(listener: TcpListener, told: mpsc::Sender<()>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let told = told.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap_or_default();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
            stream.write_all(answer).await.expect("send");
            stream.shutdown().await.expect("FIN");
            let end = stream.read(&mut [0]).await;
            if head[..n].starts_with(b"GET /hello") {
                assert_eq!(end.expect("an end"), 0);
                let _ = told.send(()).await;
            }
        });
    }
}

/// When the connection of client `id` ended.
fn closed(seen: &Seen, id: &str) -> Option<Instant> {
    let mut of = seen.connections.iter().filter(|c| c.clients().contains(id));
    of.next().and_then(|c| c.closed)
}

/// Aim: the streams of an HTTP/2 connection use only upstream connections of their own client, and
/// consecutive requests use one. Fails if an upstream connection serves two clients.
#[tokio::test(flavor = "multi_thread")]
async fn http2_streams_share_no_upstream_with_other_clients() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let mut clients = Vec::new();
    for n in 0..5 {
        let mut client = H2::connect(&setup.tls()).await;
        let id = format!("c{n}");
        for _ in 0..10 {
            client.get("/hello", &[("x-client-id", &id)]).await;
        }
        clients.push(client);
    }
    let seen = node.seen();
    assert_eq!((seen.shared(), seen.traffic().len()), (0, 5));
    clients.clear();
    node.wait("all upstreams to end", |s| s.open_now() == 0)
        .await;
}

/// Aim: a node that closes an idle upstream costs the client nothing: the next request, also a POST, goes
/// over a new connection (D63). Fails if an idle upstream is used unchecked.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_closed_while_idle_is_replaced() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        for method in ["GET", "POST", "GET"] {
            let before = node.seen().traffic().len();
            // The answer is complete and announces no close; then the node closes.
            let said = "HTTP/1.1%20200%20OK%0d%0aContent-Length:%202%0d%0a%0d%0aok";
            client.get(&format!("/say?end=1&bytes={said}"), &[]).await;
            node.wait("the node's close", |s| s.open_now() == 0).await;
            let answer = client.request(method, "/echo", &[], b"body").await;
            assert_eq!(
                (answer.status, answer.body),
                (200, b"body".to_vec()),
                "{name} {method}"
            );
            assert_eq!(node.seen().traffic().len(), before + 2, "{name} {method}");
            // A new client each round: the kept connection's first request must not count in the next round.
            let mut fresh = H1::connect(&dial).await;
            std::mem::swap(&mut client, &mut fresh);
            drop(fresh);
            node.wait("the old upstream's end", |s| s.open_now() == 0)
                .await;
        }
    }
}

/// Aim: when the node resets an idle upstream as a POST is sent on it, the client's connection ends without
/// an answer, and the POST is never sent twice (D63). Fails if a request that is not idempotent is retried,
/// or answered 502: the client may repeat it, the edge may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let mut client = H1::connect(&setup.plain()).await;
    client.get("/hello", &[]).await;
    let sent = client.send("POST", "/fault/reset", &[], b"once").await;
    sent.expect("a request");
    assert!(client.head().await.is_err(), "an answer");
    let seen = node.seen();
    let posts = seen
        .requests()
        .iter()
        .filter(|r| r.target == "/fault/reset")
        .count();
    assert_eq!(posts, 1, "sent once");
}

/// Aim: an upstream connection with a surplus answer, or with one cut short, is never used again: the next
/// answer belongs to the next request (D62). Fails if a connection is kept by its status alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_upstream_is_not_used_again() {
    let setup = Setup::start(1).await;
    for fault in ["long-body", "head-after-body"] {
        let mut client = H1::connect(&setup.plain()).await;
        let answer = client.get(&format!("/fault/{fault}?keep=1"), &[]).await;
        assert_eq!(answer.text(), "ok\n", "{fault}");
        let hello = client.get("/hello", &[]).await;
        assert!(hello.text().starts_with("n1 "), "{fault}: {hello:?}");
    }
    for fault in ["short-body", "bad-chunk", "cut-chunk", "no-last-chunk"] {
        let mut client = H1::connect(&setup.plain()).await;
        let path = format!("/fault/{fault}");
        client.send("GET", &path, &[], b"").await.expect("send");
        if client.head().await.is_ok_and(|h| h.status == 200) {
            let rest = client.rest().await;
            assert!(rest.is_err(), "{fault} looks complete: {rest:?}");
        }
    }
}

/// Aim: the same if one TLS record of the node holds the answer's end and another head, which no socket
/// shows. Fails if the connection is kept with decrypted bytes in it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_bytes_left_in_tls_is_not_used_again() {
    let setup = Setup::tls_node().await;
    let mut client = H2::connect(&setup.tls()).await;
    for _ in 0..2 {
        let answer = client.get("/fault/long-record?keep=1", &[]).await;
        assert_eq!(answer.body(), &[b'x'; 6000]);
        let hello = client.get("/hello", &[]).await;
        let text = String::from_utf8_lossy(hello.body());
        assert!(text.starts_with("n1 "), "{text:?}");
    }
    // Without surplus bytes, the connection serves on.
    let node = &setup.nodes[0];
    let before = node.seen().traffic().len();
    client.get("/hello", &[]).await;
    assert_eq!(node.seen().traffic().len(), before);
}

/// Aim: a client that leaves within an answer ends its upstream connection. Fails if the rest of the answer
/// is read for later use.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_answer_ends_its_upstream() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        for path in ["/sse?silent=1", "/poll", "/stream/length?n=3&every=60000"] {
            let mut client = H1::connect(&dial).await;
            client.send("GET", path, &[], b"").await.expect("send");
            node.wait("the request", |s| s.open_now() == 1).await;
            let end = Instant::now();
            drop(client);
            node.wait("its end", |s| s.open_now() == 0).await;
            println!("{name} {path}: upstream gone after {:.1?}", end.elapsed());
        }
    }
}

/// Aim: each fall of a node closes a persistent client's idle upstream, not only the first fall: a POST that
/// used it afterwards would be answered with 502. Fails if the node knows a client connection only until its
/// first fall.
#[tokio::test(flavor = "multi_thread")]
async fn each_fall_closes_idle_upstreams() {
    let setup = Setup::start(2).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        for round in 1..=3 {
            setup.edge.admin("POST", "/api/nodes/n2/drain").await;
            let answer = client.request("POST", "/echo", &[], b"body").await;
            assert_eq!(
                (answer.status, answer.node()),
                (200, "n1"),
                "{name} {round}"
            );
            assert_eq!(node.seen().open_now(), 1, "{name} {round}");
            setup.edge.admin("POST", "/api/nodes/n2/up").await;
            node.set_health(Health::Fail);
            setup.wait_state("n1", "down").await;
            let what = format!("{name} {round}: idle upstreams closed");
            node.wait(&what, |s| s.open_now() == 0).await;
            node.set_health(Health::Ok);
            setup.wait_state("n1", "up").await;
        }
    }
}

/// Aim: after a reload changes a node's address, a persistent client's next request goes to the new address,
/// and the old one keeps no idle upstream, each time. Fails if a connection is kept by the node's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_gets_the_next_request() {
    let setup = Setup::start(1).await;
    let second = setup::node(&setup.block, 2).await;
    let here = setup::yaml(&setup.certs, 1, "", "");
    let there = here.replace("10.0.0.1:8080", "10.0.0.2:8080");
    let mut client = H1::connect(&setup.plain()).await;
    let nodes = [&setup.nodes[0], &second];
    for round in 0..4 {
        let (at, other) = (nodes[round % 2], nodes[(round + 1) % 2]);
        let answer = client.request("POST", "/echo", &[], b"body").await;
        assert_eq!(answer.status, 200, "round {round}");
        assert_eq!(at.seen().open_now(), 1, "round {round}");
        other
            .wait("no idle connection", |s| s.open_now() == 0)
            .await;
        let next = if round % 2 == 0 { &there } else { &here };
        setup.edge.rewrite(&setup.block, next);
        assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
    }
}

/// Clients of the large test.
const CLIENTS: usize = 500;
