//! Streams of one connection: routes, ends and stalls of one leave its siblings alone.
//!
//! Source: RFC 9113 §5.2.2 (flow control of one stream is not to block others), §9.1.1.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h2::{H2, piece};
use crate::client::raw_h2::{RawH2, head};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::Setup;
use crate::vip::Block;

use super::rig::{HOST, Rig};

/// Aim: each request is routed by its own `:authority`, whatever the connection's server name and its earlier
/// requests were. A name without a route gets the answer of `unknown`. Fails if the first request, or the
/// handshake, decides for all.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_routed_by_its_own_authority() {
    let (block, certs) = (Block::claim(), Certs::new());
    let names = [HOST, "push1.mycompany.com", "push2.mycompany.com"];
    certs.leaf("push", &names, Key::Ecdsa);
    let dir = certs.dir().display();
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
         listeners:\n  - name: tls\n    bind: [200.0.0.10:443]\n    mode: http\n    to: n1\n    \
         tls: {{ certificates: [push] }}\n    plugins:\n      - host_route:\n          \
         hosts: {{ {}: n1, {}: n2 }}\n          unknown: {{ refuse: 404 }}\n",
        names[1], names[2]
    );
    let _nodes = [
        Node::start("n1", block.at("10.0.0.1:8080")).await,
        Node::start("n2", block.at("10.0.0.2:8080")).await,
    ];
    let _edge = Edge::start(&block, &yaml).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let mut client = H2::connect(&dial).await;
    for (host, status, node) in [
        (names[1], 200, "n1"),
        (names[2], 200, "n2"),
        ("PUSH1.mycompany.com", 200, "n1"),
        ("push2.mycompany.com:8443", 200, "n2"),
        (HOST, 404, ""),
        (names[2], 200, "n2"),
    ] {
        let answer = client
            .open_at(host, "/hello", &[])
            .await
            .expect("an answer");
        let got = answer
            .headers()
            .get("x-node")
            .map_or("", |v| v.to_str().expect("text"));
        assert_eq!((answer.status().as_u16(), got), (status, node), "{host}");
    }
}

/// Aim: a rebalance closes only the streams that move, and leaves the other streams of their connection
/// alone. A drain of their node closes none. Fails if the connection is closed with its streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_closes_only_streams_that_move() {
    let setup = Setup::with(2, "[{ sticky_cookie: {} }]", "").await;
    let order = async |path: &str| setup.edge.admin("POST", path).await.status;
    assert_eq!(order("/api/nodes/n2/drain").await, 200);
    let mut client = H2::connect(&setup.tls()).await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let answer = client.open("/sse?every=5", &[]).await.expect("a head");
        assert_eq!(answer.headers()["x-node"], "n1");
        bodies.push(answer.into_body());
    }
    assert_eq!(order("/api/nodes/n2/up").await, 200);
    assert_eq!(
        order("/api/pools/p/rebalance?to_even&rate=100/s&close").await,
        202
    );
    let mut cut = 0;
    let mut alive = Vec::new();
    // At the same time: a client that leaves small frames unread ends its connection itself.
    for (last, body) in futures_util::future::join_all(bodies.into_iter().map(follow)).await {
        match last {
            Some(Ok(_)) => alive.push(body),
            Some(Err(e)) => {
                assert_eq!(e.reason(), Some(h2::Reason::CANCEL));
                cut += 1;
            }
            None => panic!("a stream that was cut looks whole"),
        }
    }
    assert_eq!((cut, alive.len()), (2, 2));
    assert_eq!(order("/api/nodes/n1/drain").await, 200);
    for (last, _) in futures_util::future::join_all(alive.into_iter().map(follow)).await {
        assert!(matches!(last, Some(Ok(_))), "{last:?}");
    }
    assert_eq!(client.get("/hello", &[]).await.headers()["x-node"], "n2");
}

/// Reads 200 events, or to the stream's end; returns the last event, and the stream.
async fn follow(mut body: RecvStream) -> (Option<Result<Bytes, h2::Error>>, RecvStream) {
    let mut last = None;
    for _ in 0..200 {
        last = piece(&mut body).await;
        if !matches!(last, Some(Ok(_))) {
            break;
        }
    }
    (last, body)
}

/// Aim: uploads that their node does not read stop at their own windows, and a sibling's upload passes whole.
/// Source: RFC 9113 §5.2.2; golang/go#16481. Fails if the connection's window is smaller than all streams may
/// hold (field 01).
#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_do_not_stop_a_sibling() {
    const STREAMS: usize = 20;
    let rig = Rig::with("", "", "    limits: { http2: { streams: 21 } }\n").await;
    let small = socket2::SockRef::from(rig.listener()).set_recv_buffer_size(4096);
    small.expect("SO_RCVBUF");
    let mut client = rig.client().await;
    let (mut held, mut stalled) = (Vec::new(), 0);
    for _ in 0..STREAMS {
        let id = client
            .open(&head("POST", HOST, "/stalled", &[]), false)
            .await;
        held.push(rig.asked().await.0);
        stalled += fill(&mut client, id).await;
    }
    println!("{STREAMS} stalled uploads hold {stalled} bytes");
    let id = client
        .open(&head("POST", HOST, "/sibling", &[]), false)
        .await;
    let (mut node, _) = rig.asked().await;
    let mut sent = 0;
    for part in vec![b'x'; 60_000].chunks(16_000) {
        client.data(id, part, false).await;
        sent += part.len();
    }
    client.data(id, b"", true).await;
    let body = node.until(b"\r\n0\r\n\r\n").await;
    assert_eq!(body.matches('x').count(), sent);
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer(id).await.status, 200);
    assert!(client.goaways.is_empty(), "{:?}", client.goaways);
}

/// Sends DATA until the stream's window is used up and stays so for 100 ms; returns the number of bytes.
async fn fill(client: &mut RawH2, id: u32) -> usize {
    const FIRST: usize = 65_535;
    let mut sent = 0;
    loop {
        let given = client.updates.iter().filter(|(stream, _)| *stream == id);
        let left = FIRST + given.map(|(_, n)| *n as usize).sum::<usize>() - sent;
        if left > 0 {
            let n = left.min(16_384);
            client.data(id, &vec![b's'; n], false).await;
            sent += n;
            continue;
        }
        let more = tokio::time::timeout(Duration::from_millis(100), client.pump());
        match more.await {
            Ok(read) => assert!(read, "the connection ended: {:?}", client.goaways),
            Err(_) => return sent,
        }
    }
}

/// Aim: when a client resets one of many streams, only that stream's node connection is reset; its siblings
/// go on. Fails if the node keeps an abandoned request.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_reaches_the_node_of_its_stream_alone() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut streams = Vec::new();
    for path in ["/answered", "/unanswered", "/upload", "/sibling"] {
        let method = if path == "/upload" { "POST" } else { "GET" };
        let id = client
            .open(&head(method, HOST, path, &[]), method == "GET")
            .await;
        streams.push((id, rig.asked().await.0));
    }
    let (id, node) = &mut streams[0];
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        .await;
    client.until(*id, |a| a.body == b"ab").await;
    for (id, node) in &mut streams[..3] {
        client.reset(*id, h2::Reason::CANCEL).await;
        deadline("the node's end", node.ended()).await;
    }
    let (id, node) = &mut streams[3];
    node.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.answer(*id).await.body, b"ok");
    let lines = rig.lines(4).await;
    let reasons: Vec<_> = lines
        .iter()
        .map(|l| l["reason"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(
        reasons,
        ["client_closed", "client_closed", "client_closed", "done"]
    );
}

/// Aim: a stalled upload is over when its client has reset it, or has closed the connection, and its node has
/// taken no byte for the node's `user_timeout` (10 s). Fails if the edge waits for the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_ends_with_its_client() {
    let rig = Rig::start().await;
    let small = socket2::SockRef::from(rig.listener()).set_recv_buffer_size(4096);
    small.expect("SO_RCVBUF");
    let (mut clients, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut client = rig.client().await;
        let id = client
            .open(&head("POST", HOST, "/stalled", &[]), false)
            .await;
        nodes.push(rig.asked().await.0);
        fill(&mut client, id).await;
        clients.push((client, id));
    }
    drop(clients.pop());
    let (client, id) = &mut clients[0];
    client.reset(*id, h2::Reason::CANCEL).await;
    let lines = rig.lines(2).await;
    let left = |l: &serde_json::Value| {
        let reason = l["reason"].as_str().unwrap_or_default();
        ["client_closed", "client_failed"].contains(&reason)
    };
    assert!(lines.iter().all(left), "{lines:?}");
    for mut node in nodes {
        assert!(!node.ended().await, "the node takes a part for all");
    }
}
