//! Unusual but legal HTTP/1: pipelines, unexpected bodies, HTTP/1.0, half-closed connections, and a pool with
//! no node.
//!
//! In: raw requests. Out: answers in order, each to its own request. Source: RFC 9112 §9.3.2, §9.6; RFC 9110
//! §10.1.1, §15.6.4; FAULTS D12, D20, D64.

use std::io::{Read, Write};
use std::time::Duration;

use openssl::ssl::{ShutdownState, SslConnector, SslMethod, SslVerifyMode};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::setup::{HOST, Setup};

/// Aim: 1,000 requests in one write are answered in order on one upstream connection (D12). Fails if bytes
/// after a request are lost, or served in parallel.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_answered_in_order() {
    let setup = Setup::start(1).await;
    for (round, (name, dial)) in setup.both().into_iter().enumerate() {
        let (mut read, mut write) = tokio::io::split(dial.io().await);
        let writer = tokio::spawn(async move {
            let request = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
            let all = request.repeat(1000);
            write.write_all(all.as_bytes()).await.expect("send");
            write
        });
        let mut got = Vec::new();
        let last = format!("n1 {}\n", (round + 1) * 1000);
        while !got.ends_with(last.as_bytes()) {
            let n = deadline("answers", read.read_buf(&mut got)).await;
            assert!(n.expect("bytes") > 0, "{name}: ended early");
        }
        let text = String::from_utf8(got).expect("text");
        let bodies = text.lines().filter(|l| l.starts_with("n1 "));
        let expected: Vec<_> = (1..=1000)
            .map(|n| format!("n1 {}", round * 1000 + n))
            .collect();
        assert_eq!(bodies.collect::<Vec<_>>(), expected, "{name}");
        writer.await.expect("all sent");
    }
    assert_eq!(setup.nodes[0].seen().traffic().len(), 2);
}

/// Aim: head and body of a short answer leave in one write, which one read takes; under TLS one record. Fails
/// if the head is written before its body, as Pingora does.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_answer_leaves_in_one_write() {
    let setup = Setup::start(1).await;
    let say = "/say?bytes=HTTP/1.1%20200%20OK%0d%0aContent-Length:%205%0d%0a%0d%0ahello";
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        for round in 0..50 {
            client.send("GET", say, &[], b"").await.expect("send");
            let mut got = vec![0; 4096];
            let n = deadline("the answer", client.io.read(&mut got)).await;
            let text = String::from_utf8_lossy(&got[..n.expect("bytes")]).into_owned();
            assert!(text.ends_with("hello"), "{name}, {round}: {text:?}");
        }
    }
}

/// Aim: HEAD answered with chunked framing or a length has no body. GET may have one. An expected 100 passes,
/// and a 100 that never comes blocks nothing. The connection goes on each time (D12). Fails with any
/// desynchronised reading.
#[tokio::test(flavor = "multi_thread")]
async fn odd_bodies_do_not_desynchronise() {
    let setup = Setup::start(1).await;
    let chunked = "/say?bytes=HTTP/1.1%20200%20OK%0d%0aTransfer-Encoding:%20chunked%0d%0a%0d%0a";
    let length = "/say?bytes=HTTP/1.1%20200%20OK%0d%0aContent-Length:%2099%0d%0a%0d%0a";
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        for path in [chunked, length, "/hello"] {
            let head = client.request("HEAD", path, &[], b"").await;
            assert_eq!(head.status, 200, "{name} {path}");
            let hello = client.get("/hello", &[]).await;
            assert!(hello.text().starts_with("n1 "), "{name} {path}: {hello:?}");
        }
        let echoed = client.request("GET", "/echo", &[], b"a body").await;
        assert_eq!(echoed.body, b"a body", "{name}");
        let expects = [("Expect", "100-continue")];
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n"
        );
        client.raw(head.as_bytes()).await.expect("send");
        let mut interim = [0; 25];
        let read = client.io.read_exact(&mut interim);
        deadline("the 100", read).await.expect("the 100");
        assert_eq!(&interim[..12], b"HTTP/1.1 100", "{name}");
        client.raw(b"a body").await.expect("send");
        let answer = client.head().await.expect("the answer");
        assert_eq!(client.rest().await.expect("its body"), b"a body", "{name}");
        if answer.header("connection") == Some("close") {
            client = H1::connect(&dial).await;
        }
        let at_once = client.request("POST", "/echo", &expects, b"now").await;
        assert_eq!(at_once.body, b"now", "{name}");
        assert_eq!(client.get("/hello", &[]).await.status, 200, "{name}");
    }
}

/// Aim: an HTTP/1.0 client gets an answer it can read: no chunks, a visible end, and a persistent connection
/// if it asks for one. Fails if chunked framing is passed on unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_clients_are_served() {
    let setup = Setup::start(1).await;
    for (name, dial) in setup.both() {
        for path in [
            "/hello",
            "/stream/chunked?n=3&size=10",
            "/stream/close?n=3&size=10",
            // RFC 9110 §15.2: no interim answer to a client of HTTP/1.0, which does not know them.
            "/fault/interim",
        ] {
            let mut io = dial.io().await;
            let request = format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
            io.write_all(request.as_bytes()).await.expect("send");
            let mut got = Vec::new();
            deadline("the end", io.read_to_end(&mut got))
                .await
                .expect("an orderly end");
            let text = String::from_utf8(got).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(!head.to_lowercase().contains("chunked"), "{name}: {head}");
            let expected = match path {
                "/hello" => body.len() > 3 && body.starts_with("n1 "),
                "/fault/interim" => head.contains(" 200 ") && body == "ok\n",
                _ => body == "00000000..\n00000001..\n00000002..\n",
            };
            assert!(expected, "{name} {path}: {text}");
        }
    }
}

/// Aim: a close-delimited answer under TLS ends with close_notify, however slowly its client reads: without
/// it the whole answer looks cut. Fails if the edge gives up close_notify because the kernel is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_http_1_0_client_sees_the_end() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let mut dial = setup.tls();
    // Smaller than the answer.
    dial.rcvbuf = Some(1024);
    for n in 0..5 {
        let tcp = dial.tcp().await.into_std().expect("a socket");
        tcp.set_nonblocking(false).expect("a blocking socket");
        let ask = move || {
            let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("TLS");
            connector.set_verify(SslVerifyMode::NONE);
            let mut tls = connector.build().connect(HOST, tcp).expect("a handshake");
            let path = "/stream/close?n=1&size=3899";
            write!(tls, "GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n").expect("send");
            tls
        };
        let mut tls = tokio::task::spawn_blocking(ask).await.expect("a request");
        node.wait("its part of the answer", |s| {
            s.traffic().len() == n + 1 && s.open_now() == 0
        })
        .await;
        // The client reads nothing until the edge has had time to finish.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let read = move || {
            let mut got = Vec::new();
            tls.read_to_end(&mut got).expect("bytes");
            (got, tls.get_shutdown())
        };
        let read = deadline("the end", tokio::task::spawn_blocking(read)).await;
        let (got, end) = read.expect("an answer");
        let body = memchr::memmem::find(&got, b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(got.len() - body, 3900);
        assert!(end.contains(ShutdownState::RECEIVED), "no close_notify");
    }
    let done = |l: &serde_json::Value| l["reason"] == "done";
    let all = |lines: &[serde_json::Value]| lines.iter().filter(|l| done(l)).count() == 5;
    setup.edge.wait_access("five whole answers", all).await;
}

/// Aim: bytes of the next request, sent with a body, do not count as the body's. Fails if they count, or
/// count twice.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_bytes_are_no_body() {
    let setup = Setup::start(1).await;
    const BODY: &str = "6\r\na body\r\n0\r\n\r\n";
    let mut client = H1::connect(&setup.plain()).await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let next = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let both = [&head, BODY, &next].concat();
    client.raw(both.as_bytes()).await.expect("send");
    client.head().await.expect("an answer");
    assert_eq!(client.rest().await.expect("its body"), b"a body");
    client.head().await.expect("another");
    let two = |lines: &[serde_json::Value]| lines.len() == 2;
    let lines = setup.edge.wait_access("two requests", two).await;
    let up: Vec<_> = lines.iter().map(|l| l["bytes_up"].as_u64()).collect();
    assert_eq!(up, [Some(BODY.len() as u64), Some(0)]);
}

/// Aim: a client pipelines as much as the edge keeps, and then leaves; its flow and its node's connection
/// end. Fails if the edge does not watch a socket that it does not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pipelined_too_much_is_still_watched() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        for path in ["/sse?silent=1", "/poll"] {
            let mut client = H1::connect(&dial).await;
            client.send("GET", path, &[], b"").await.expect("send");
            if path.starts_with("/sse") {
                client.head().await.expect("the head");
            }
            node.wait("the request", |s| s.open_now() == 1).await;
            client.raw(&[b'x'; 30_000]).await.expect("send");
            client.io.shutdown().await.expect("FIN");
            node.wait(&format!("{name} {path}: its end"), |s| s.open_now() == 0)
                .await;
        }
    }
}

/// Aim: a client that half-closes within an answer ends the flow on both sides. A node that half-closes after
/// a WebSocket's last message loses none of it (D20). Fails if an end is not passed on, or is passed before
/// the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn half_closed_connections_end_whole() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        for path in ["/sse?every=1", "/sse?silent=1"] {
            let mut client = H1::connect(&dial).await;
            client.send("GET", path, &[], b"").await.expect("send");
            client.head().await.expect("the head");
            client.io.shutdown().await.expect("FIN");
            node.wait("the end", |s| s.open_now() == 0).await;
            client.ended().await;
        }
        let mut ticks = ws::connect(&dial, "/ws/tick?n=50&every=0", &[]).await;
        for n in 0..50 {
            assert_eq!(ticks.hear().await, format!("tick {n}"), "{name}");
        }
        ticks.ended().await;
        drop(ticks);
        node.wait("its end", |s| s.open_now() == 0).await;
        let mut echo = H1::connect(&dial).await;
        echo.send("GET", "/ws/silent", UPGRADE, b"")
            .await
            .expect("send");
        assert_eq!(echo.head().await.expect("a 101").status, 101);
        echo.io.shutdown().await.expect("FIN");
        node.wait("the end", |s| s.open_now() == 0).await;
        echo.ended().await;
    }
    // No flow is left.
    setup
        .edge
        .wait_nodes("no live flow", |nodes| nodes[0]["flows"] == 0)
        .await;
}

/// Aim: a reset by either side ends the other at once (D20). Fails if a reset is not passed on.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_the_other_side() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for path in ["/sse?silent=1", "/ws/silent", "/poll"] {
        let stream = setup.plain().tcp().await;
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n");
        for (name, value) in UPGRADE.iter().filter(|_| path.starts_with("/ws")) {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        let mut stream = stream;
        stream.write_all(request.as_bytes()).await.expect("send");
        node.wait("the request", |s| s.open_now() == 1).await;
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
        drop(stream);
        node.wait("its end", |s| s.open_now() == 0).await;
    }
    let mut events = H1::connect(&setup.plain()).await;
    events
        .send("GET", "/sse?silent=1", &[], b"")
        .await
        .expect("send");
    events.head().await.expect("the head");
    let mut socket = ws::connect(&setup.plain(), "/ws/silent", &[]).await;
    node.kill();
    assert!(events.rest().await.is_err(), "a cut stream looks whole");
    socket.ended().await;
}

/// Aim: with all nodes Down a request gets 503 with `Retry-After`. As soon as a node is back, requests are
/// served again without help (D64). Fails if Down nodes get requests, or stay Down.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_nodes_answers_503_and_recovers() {
    let setup = Setup::start(2).await;
    let mut client = H1::connect(&setup.plain()).await;
    for node in &setup.nodes {
        node.set_health(crate::node::Health::Fail);
    }
    setup.wait_state("n1", "down").await;
    setup.wait_state("n2", "down").await;
    for _ in 0..3 {
        let answer = client.get("/hello", &[]).await;
        assert_eq!(answer.status, 503);
        let after = answer
            .header("retry-after")
            .and_then(|v| v.parse::<u32>().ok());
        assert!(after.is_some_and(|s| (1..60).contains(&s)), "{answer:?}");
    }
    assert_eq!(setup.edge.admin("GET", "/readyz").await.status, 503);
    setup.nodes[1].set_health(crate::node::Health::Ok);
    setup.wait_state("n2", "up").await;
    assert_eq!(client.get("/hello", &[]).await.node(), "n2");
    assert_eq!(setup.edge.admin("GET", "/readyz").await.status, 200);
}

/// Aim: `no_node: close` closes without an answer, so that some push clients reconnect elsewhere (D64). Fails
/// if anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_can_close() {
    let setup = Setup::with(1, "", "    no_node: close\n").await;
    setup.nodes[0].set_health(crate::node::Health::Fail);
    setup.wait_state("n1", "down").await;
    for (name, dial) in setup.both() {
        let mut io = dial.io().await;
        let request = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        io.write_all(request.as_bytes()).await.expect("send");
        let mut got = Vec::new();
        // TLS may end without close_notify: an error, but no byte.
        let _ = deadline("the end", io.read_to_end(&mut got)).await;
        assert_eq!(String::from_utf8_lossy(&got), "", "{name}");
    }
    setup.nodes[0].set_health(crate::node::Health::Ok);
    setup.wait_state("n1", "up").await;
    let dial: Dial = setup.plain();
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.status,
        200
    );
}

/// Headers of an upgrade.
const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
