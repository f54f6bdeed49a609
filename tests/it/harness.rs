//! The harness against itself: each client, endpoint and fault used once, with no edge between.
//!
//! In: clients that dial nodes. Out: proof that the conditions which later tests assert can fail.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::certs::{Certs, Key, Leaf};
use crate::client::h1::H1;
use crate::client::h2::{H2, piece as h2_piece};
use crate::client::{Dial, curl, curl_at, ws};
use crate::client::{Tls, handshake};
use crate::node::{Health, Node};
use crate::vip::Block;

async fn node() -> Node {
    Node::start("n1", ([127, 0, 0, 1], 0)).await
}

/// Aim: a persistent connection carries many requests and counts once; the node notices another client on it.
#[tokio::test]
async fn kept_connection_is_one_and_sharing_shows() {
    let node = node().await;
    let mut client = H1::connect(&Dial::plain(node.addr)).await;
    for i in 1..=5 {
        let answer = client.get("/hello", &[("X-Client-Id", "a")]).await;
        assert_eq!((answer.node(), answer.text()), ("n1", format!("n1 {i}\n")));
    }
    assert_eq!(
        (node.seen().connections.len(), node.seen().shared()),
        (1, 0)
    );
    client
        .get("/hello?cookie=app=1", &[("X-Client-Id", "b")])
        .await;
    assert_eq!(node.seen().shared(), 1);
    assert_eq!(
        node.seen().connections[0].requests[0].header("X-Client-Id"),
        ["a"]
    );
    assert!(
        node.seen().connections[0].requests[0]
            .head
            .ends_with(b"\r\n\r\n")
    );
    drop(client);
    node.wait("the end of the connection", |s| s.open_now() == 0)
        .await;
}

/// Aim: the three framings carry the same bytes in pieces that arrive apart.
#[tokio::test]
async fn streams_arrive_in_pieces() {
    let node = node().await;
    for framing in ["chunked", "length", "close"] {
        let mut client = H1::connect(&Dial::plain(node.addr)).await;
        let path = format!("/stream/{framing}?n=5&every=5&size=100");
        client.send("GET", &path, &[], b"").await.expect("send");
        assert_eq!(client.head().await.expect("head").status, 200);
        let (mut pieces, mut bytes) = (0, 0);
        while let Some(piece) = client.piece().await.expect("a piece") {
            pieces += 1;
            bytes += piece.len();
        }
        assert_eq!(bytes, 5 * 101, "{framing}");
        assert!(pieces >= 4, "{framing}: {pieces} pieces");
    }
}

/// Aim: server-sent events, a long poll, an echoed body and curl work.
#[tokio::test]
async fn events_poll_echo_and_curl() {
    let node = node().await;
    let mut client = H1::connect(&Dial::plain(node.addr)).await;
    let events = client.get("/sse?n=3&every=1", &[]).await.text();
    assert!(events.ends_with("data: n1 2\n\n"), "{events}");
    client.send("GET", "/poll", &[], b"").await.expect("send");
    node.wait("the poll", |s| s.requests().len() == 2).await;
    node.answer_polls("now");
    client.head().await.expect("head");
    assert_eq!(client.rest().await.expect("body"), b"now");
    node.hold_polls();
    let echoed = client.request("POST", "/echo", &[], b"body").await;
    assert_eq!(echoed.body, b"body");
    let url = format!("http://push.mycompany.com:{}/hello", node.addr.port());
    let mut args = curl_at("push.mycompany.com", node.addr, None);
    args.push(url);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(curl(&args).await, "n1 1\n");
}

/// Aim: a client that does not read stalls the node, which counts the bytes its kernel took.
#[tokio::test]
async fn flood_stalls_without_a_reader() {
    let node = node().await;
    for framing in ["chunked", "length", "close"] {
        let mut client = H1::connect(&Dial {
            rcvbuf: Some(8192),
            ..Dial::plain(node.addr)
        })
        .await;
        let before = node.flooded();
        let path = format!("/flood?sndbuf=8192&framing={framing}");
        client.send("GET", &path, &[], b"").await.expect("send");
        node.wait("the flood", |s| s.open_now() > 0).await;
        let stalled = node.stalled(Duration::from_millis(100)).await - before;
        assert!(
            (4096..1 << 20).contains(&stalled),
            "{framing}: {stalled} bytes"
        );
        drop(client);
        node.wait("the end of the flood", |s| s.open_now() == 0)
            .await;
    }
}

/// Aim: WebSockets work: the node speaks first, in one segment with the 101 and apart; a refusal; a close.
#[tokio::test]
async fn websockets() {
    let node = node().await;
    let dial = Dial::plain(node.addr);
    for path in ["/ws/first?n=3", "/ws/first?n=3&split=1"] {
        let mut socket = ws::connect(&dial, path, &[("X-Client-Id", "a")]).await;
        assert_eq!(socket.node(), "n1");
        for i in 0..3 {
            assert_eq!(socket.hear().await, format!("first {i}"));
        }
        socket.say("echo").await;
        assert_eq!(socket.hear().await, "echo");
    }
    let mut ticks = ws::connect(&dial, "/ws/tick?n=2&every=1", &[]).await;
    assert_eq!(
        (ticks.hear().await, ticks.hear().await),
        ("tick 0".into(), "tick 1".into())
    );
    ticks.ended().await;
    let mut echo = ws::connect(&dial, "/ws/echo", &[]).await;
    echo.say("x").await;
    assert_eq!(echo.hear().await, "x");
    let flood = ws::connect(&dial, "/ws/flood?sndbuf=8192&size=100", &[]).await;
    node.stalled(Duration::from_millis(100)).await;
    drop(flood);
    let silent = ws::connect(&dial, "/ws/silent", &[]).await;
    drop(silent);
    let refused = ws::try_connect(&dial, "/ws/decline", &[]).await.err();
    assert!(refused.is_some_and(|e| e.to_string().contains("403")));
}

/// Aim: a killed node resets its connections; a frozen node is silent, and serves new connections once it
/// thaws.
#[tokio::test]
async fn kill_and_freeze() {
    let node = node().await;
    let dial = Dial::plain(node.addr);
    let mut stream = H1::connect(&dial).await;
    stream
        .send("GET", "/sse?every=1", &[], b"")
        .await
        .expect("send");
    stream.head().await.expect("head");
    node.freeze();
    let mut late = H1::connect(&dial).await;
    late.send("GET", "/hello", &[], b"").await.expect("send");
    // Bounded wait: nothing may come from a frozen node in 100 ms.
    assert!(
        tokio::time::timeout(Duration::from_millis(100), late.head())
            .await
            .is_err()
    );
    node.thaw();
    assert_eq!(late.head().await.expect("head").status, 200);
    node.kill();
    assert!(!stream.ended().await, "a killed node resets");
    node.wait("no open connection", |s| s.open_now() == 0).await;
    assert!(dial.try_tcp().await.is_err(), "its listener is closed");
    let again = Node::start("n1", node.addr).await;
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.node(),
        "n1"
    );
    drop(again);
}

/// Aim: tests can set the result of the health check.
#[tokio::test]
async fn health_switches() {
    let node = node().await;
    let mut client = H1::connect(&Dial::plain(node.addr)).await;
    assert_eq!(
        client.get("/lightstreamer/healthcheck", &[]).await.text(),
        "OK\r\n"
    );
    node.set_health(Health::Fail);
    assert_eq!(client.get("/health", &[]).await.status, 500);
    node.set_health(Health::Hang);
    client.send("GET", "/health", &[], b"").await.expect("send");
    assert!(
        tokio::time::timeout(Duration::from_millis(50), client.head())
            .await
            .is_err()
    );
    assert_eq!(
        (node.seen().requests().len(), node.seen().traffic().len()),
        (0, 0)
    );
}

/// Aim: the node sends each fault as written.
#[tokio::test]
async fn faults_are_sent() {
    let node = node().await;
    let dial = Dial::plain(node.addr);
    for (name, bytes) in crate::node::FAULTS {
        let mut client = H1::connect(&dial).await;
        client
            .send("GET", &format!("/fault/{name}"), &[], b"")
            .await
            .expect("send");
        let mut got = Vec::new();
        client.io.read_to_end(&mut got).await.expect("bytes");
        assert_eq!(String::from_utf8_lossy(&got), *bytes, "{name}");
    }
    let mut client = H1::connect(&dial).await;
    client
        .send("GET", "/fault/reset", &[], b"")
        .await
        .expect("send");
    assert!(!client.ended().await);
    for (name, least) in [("big-head", 1 << 20), ("interim-flood", 400_000)] {
        let mut client = H1::connect(&dial).await;
        client
            .send("GET", &format!("/fault/{name}"), &[], b"")
            .await
            .expect("send");
        let mut got = Vec::new();
        client.io.read_to_end(&mut got).await.expect("bytes");
        assert!(got.len() > least, "{name}: {}", got.len());
    }
}

/// Aim: certificates verify for their names, and not if expired or for another name.
#[tokio::test]
async fn certificates() {
    let certs = Certs::new();
    let good = certs.leaf("wild", &["*.mycompany.com", "127.0.0.1"], Key::Rsa);
    let plain = certs.leaf("push", &["push.mycompany.com"], Key::Ecdsa);
    let old = certs.expired("old", &["push.mycompany.com"]);
    for (leaf, name, works) in [
        (&good, "push1.mycompany.com", true),
        (&good, "push.ourcompany.com", false),
        (&plain, "push.mycompany.com", true),
        (&plain, "push1.mycompany.com", false),
        (&old, "push.mycompany.com", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let dial = Dial::tls(listener.local_addr().expect("address"), name, certs.ca());
        let context = server_context(leaf);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accept");
            let ssl = openssl::ssl::Ssl::new(&context).expect("ssl");
            let mut stream = tokio_openssl::SslStream::new(ssl, stream).expect("stream");
            // The client sees the failure.
            let _ = std::pin::Pin::new(&mut stream).accept().await;
        });
        let tls: Tls = dial.tls.clone().expect("TLS was asked for");
        let shaken = handshake(dial.tcp().await, &tls).await;
        assert_eq!(shaken.is_ok(), works, "{name}: {:?}", shaken.err());
    }
    assert!(certs.ca_file().starts_with(certs.dir()));
}

/// Aim: the HTTP/2 client sends many requests over TLS, each with its own authority, and reads DATA as
/// it arrives.
#[tokio::test]
async fn http2_client() {
    let certs = Certs::new();
    let leaf = certs.leaf("push", &["*.mycompany.com"], Key::Ecdsa);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let dial = Dial::tls(
        listener.local_addr().expect("address"),
        "push.mycompany.com",
        certs.ca(),
    );
    let context = server_context(&leaf);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let ssl = openssl::ssl::Ssl::new(&context).expect("ssl");
        let mut stream = tokio_openssl::SslStream::new(ssl, stream).expect("stream");
        std::pin::Pin::new(&mut stream)
            .accept()
            .await
            .expect("handshake");
        let mut server = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = server.accept().await {
            let authority = request
                .uri()
                .authority()
                .map_or("", |a| a.as_str())
                .to_owned();
            let mut body = respond
                .send_response(http::Response::new(()), false)
                .expect("head");
            body.send_data(authority.into(), true).expect("data");
        }
    });
    let mut client = H2::connect(&dial).await;
    assert_eq!(
        client.get("/a", &[("x-client-id", "a")]).await.body(),
        b"push.mycompany.com"
    );
    let mut other = client
        .open_at("push1.mycompany.com", "/b", &[])
        .await
        .expect("an answer")
        .into_body();
    assert_eq!(
        h2_piece(&mut other).await.expect("DATA").expect("bytes"),
        "push1.mycompany.com"
    );
    assert!(h2_piece(&mut other).await.is_none());
}

fn server_context(leaf: &Leaf) -> openssl::ssl::SslContext {
    use openssl::ssl::{AlpnError, SslAcceptor, SslFiletype, SslMethod, select_next_proto};
    let mut acceptor =
        SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("acceptor");
    acceptor
        .set_certificate_chain_file(&leaf.chain)
        .expect("chain");
    acceptor
        .set_private_key_file(&leaf.key, SslFiletype::PEM)
        .expect("key");
    acceptor.set_alpn_select_callback(|_, offered| {
        select_next_proto(b"\x02h2", offered).ok_or(AlpnError::NOACK)
    });
    acceptor.build().into_context()
}

/// Aim: blocks are distinct, and map the guide's addresses and ports in a file.
#[test]
fn blocks_map_the_guides_addresses() {
    let (a, b) = (Block::claim(), Block::claim());
    assert_ne!(a.ip("200.0.0.10"), b.ip("200.0.0.10"));
    assert_eq!(a.ip("10.0.0.1").octets()[2..], [10, 1]);
    let yaml = a.map("bind: [200.0.0.10:80, 200.0.0.1:443]\naddress: 10.0.0.1:80");
    for guide in ["200.0.0.10:80", "200.0.0.1:443", "10.0.0.1:80"] {
        assert!(yaml.contains(&a.at(guide).to_string()), "{yaml}");
    }
}

/// Aim: a wait for an event that never comes ends at its deadline, so that no test hangs.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "for nothing")]
async fn a_deadline_ends_a_wait() {
    let start = Instant::now();
    crate::deadline("nothing", std::future::pending::<()>()).await;
    unreachable!("{:?}", start.elapsed());
}
