//! Peers that vanish without a close (dead peers), on their own cable that is pulled or drops everything.
//!
//! In: clients and nodes in network namespaces. Out: when the edge ends their flows, that it does not take a
//! client that only does not read for a dead one, and that it sends nothing to a dead node. Source: Diffusion
//! load balancers, "TCP retransmission timeout"; FAULTS D53, D60.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::client::ws;
use crate::client::{Dial, Io};
use crate::deadline;
use crate::edge::Edge;
use crate::netns::{Host, skipped};
use crate::node::Node;
use crate::setup::{self, HOST, node};
use crate::tlcp::Sessions;
use crate::vip::Block;

mod clients;
mod unchecked;
mod ways;

/// How a cable fails: name and function.
type Fault = (&'static str, fn(&Host));
const FAULTS: [Fault; 2] = [("pulled", Host::pull), ("swallowing", Host::swallow)];

/// Starts an edge at our end of `host`'s cable, with a node on loopback.
async fn edge(host: &Host) -> (Block, Node, Edge) {
    let block = Block::claim();
    let node = node(&block, 1).await;
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\npools: {{ p: {{ nodes: [n1] }} }}\n\
         listeners: [{{ name: l, bind: [{}:8080], mode: http, to: p, \
         tcp: {{ keepalive: 1s, user_timeout: 1s }} }}]\n",
        host.here
    );
    let edge = Edge::start(&block, &yaml).await;
    (block, node, edge)
}

/// Opens `path` as a WebSocket from the host and waits for its first frame or, if silent, its 101.
async fn upgrade(host: &Host, path: &str, receive: Option<usize>) -> TcpStream {
    let mut stream = host.connect((host.here, 8080).into(), receive);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: push\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut first = [0; 12];
    let read = stream.read_exact(&mut first);
    deadline("the 101", read).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 101");
    stream
}

/// Aim: the edge notices a vanished client on a silent flow (keep-alive) and on a busy one (unacknowledged
/// bytes), cable pulled or switch dead: the flow ends and its node's connection is closed. Fails if the edge
/// waits for the kernel's own quarter of an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_let_go() {
    if skipped() {
        return;
    }
    for (fault, cut) in FAULTS {
        let host = Host::new();
        let (_block, node, edge) = edge(&host).await;
        let silent = upgrade(&host, "/ws/silent", None).await;
        let busy = upgrade(&host, "/ws/tick?every=20", None).await;
        edge.wait_nodes("two flows", |n| n[0]["flows"] == 2).await;
        cut(&host);
        let vanished = Instant::now();
        let told =
            |l: &serde_json::Value, path: &str| l["reason"] == "client_failed" && l["path"] == path;
        for path in ["/ws/tick", "/ws/silent"] {
            let line = |lines: &[serde_json::Value]| lines.iter().any(|l| told(l, path));
            edge.wait_access(&format!("{fault}: {path}"), line).await;
            println!("{fault}: {path} let go after {:?}", vanished.elapsed());
        }
        node.wait("no connection", |s| s.open_now() == 0).await;
        drop((silent, busy));
    }
}

/// Aim (D53): a client that does not read for three times `user_timeout` is left alone, and gets every byte
/// when it reads again. When it vanishes with its window shut, its flow ends. Fails with TCP_USER_TIMEOUT,
/// which does not distinguish the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stays_until_it_vanishes() {
    if skipped() {
        return;
    }
    let host = Host::new();
    let (_block, node, edge) = edge(&host).await;
    let mut stream = upgrade(&host, "/ws/flood?sndbuf=4096", Some(8192)).await;
    let before = node.stalled(Duration::from_millis(500)).await;
    // The window stays shut this long; the limit is 1 s, checked each 250 ms.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.flooded(), before, "the node feels the client");
    assert_eq!(edge.nodes().await[0]["flows"], 1);
    let mut got = vec![0; 256 * 1024];
    let read = deadline("bytes", stream.read_exact(&mut got)).await;
    read.expect("the flow lives");
    let head = memchr::memmem::find(&got, b"\r\n\r\n").expect("the 101's end") + 4;
    // Frames of 1,000 digits after a header of four bytes; each repeats the number of its message.
    for (i, frame) in got[head..].chunks_exact(1004).enumerate() {
        let number = format!("{i:01000}");
        assert_eq!(&frame[4..], number.as_bytes(), "message {i}");
    }
    let stalled = node.stalled(Duration::from_millis(500)).await;
    assert!(stalled > before);
    host.swallow();
    let vanished = Instant::now();
    let told = |lines: &[serde_json::Value]| lines.iter().any(|l| l["reason"] == "client_failed");
    edge.wait_access("its end", told).await;
    println!(
        "window shut, then vanished: let go after {:?}",
        vanished.elapsed()
    );
    node.wait("no connection", |s| s.open_now() == 0).await;
}

/// Messages of a client that goes on sending to a dead node, and their size.
const SENT: usize = 1000;
/// Port that is used for checks.
const CHECKED: u16 = 8081;

/// Aim (D60): a node whose network vanishes is Down after interval × fall + timeout. Its clients, silent and
/// sending, are cut and served elsewhere. From then on no byte of theirs leaves for the node, not even as a
/// retransmission, while checks, to another port, do. Fails if flows wait for TCP, or if the kernel goes on
/// sending what clients had sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_loses_its_clients_and_gets_nothing() {
    if skipped() {
        return;
    }
    for (fault, cut) in FAULTS {
        let host = Host::new();
        let block = Block::claim();
        let far = Node::on("far", host.listen(8080), Sessions::new("far"), None);
        let near = node(&block, 1).await;
        // Checks have their own port, so that their packets do not look like those of clients.
        let _checked = Node::on("far", host.listen(CHECKED), Sessions::new("far"), None);
        near.also(block.at(&format!("10.0.0.1:{CHECKED}")), None);
        let yaml = format!(
            "nodes: {{ far: {{ address: '{}:8080' }}, near: {{ address: 10.0.0.1:8080 }} }}\n\
             pools: {{ p: {{ nodes: [far, near], \
             health: {{ http: {{ path: /health, port: {CHECKED} }}, interval: 200ms, timeout: 400ms, fall: 2 }} }} }}\n\
             listeners: [{{ name: l, bind: [200.0.0.10:80], mode: http, to: p }}]\n",
            host.there
        );
        let edge = Edge::start(&block, &yaml).await;
        let dial = Dial::plain(block.at("200.0.0.10:80"));
        edge.admin("POST", "/api/nodes/near/drain").await;
        let mut clients = Vec::new();
        for path in ["/ws/silent", "/ws/tick?every=20", "/ws/echo", "/ws/echo"] {
            clients.push((path, ws::connect(&dial, path, &[]).await));
        }
        edge.admin("POST", "/api/nodes/near/up").await;
        edge.wait_nodes("near is up", |n| n[1]["state"] == "up")
            .await;
        let mut packets = host.watch();
        cut(&host);
        let vanished = Instant::now();
        let ends = clients.into_iter().map(|(path, mut socket)| async move {
            match path {
                "/ws/echo" => sends_on(socket).await,
                _ => drop(socket.ended().await),
            }
        });
        futures_util::future::join_all(ends).await;
        let cut_after = vanished.elapsed();
        edge.wait_log("node far is down").await;
        println!("{fault}: all clients of the node cut after {cut_after:?}");
        // 200 × 2 + 400 ms by the rule; the margin is for a loaded machine.
        assert!(cut_after < Duration::from_secs(4), "{cut_after:?}");
        edge.wait_nodes("no flow on it", |n| n[0]["flows"] == 0)
            .await;
        let before = packets.payload();
        println!("{fault}: before that {before:?}");
        let seen = fault == "pulled" || before[&8080] > SENT;
        assert!(seen, "nobody looked at the packets");
        let again = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!(again.node(), "n1");
        // Bounded wait: unacknowledged bytes would be sent again within it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let sunk = packets.payload();
        println!("{fault}: TCP payload that left for it since, by port: {sunk:?}");
        assert_eq!(sunk.get(&8080).copied().unwrap_or(0), 0, "bytes sunk");
        drop((near, far));
    }
}

/// All clients share one node.
const STUCK: &str = "[{ sticky_ip: { table: t } }]";

/// Aim (D60): once a node whose network vanished is Down, none of the bytes on their way to it leaves any
/// more: unanswered requests over HTTP/1, HTTP/2 and layer 4, an upload, and bytes of clients that had left
/// before. Another node answers the requests that may be repeated. Fails if a socket is closed in order,
/// because the kernel would go on sending its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_is_sent_no_request() {
    if skipped() {
        return;
    }
    let (host, block, certs) = (Host::new(), Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let far = Node::on("far", host.listen(8080), Sessions::new("far"), None);
    let near = node(&block, 1).await;
    let _checked = Node::on("far", host.listen(CHECKED), Sessions::new("far"), None);
    near.also(block.at(&format!("10.0.0.1:{CHECKED}")), None);
    let there = format!("'{}:8080'", host.there);
    let health = format!(
        "{{ http: {{ path: /health, port: {CHECKED} }}, interval: 200ms, timeout: 400ms, fall: 2 }}"
    );
    let yaml = setup::yaml(&certs, 2, STUCK, "    retries: 1\n")
        .replace("10.0.0.2:8080", &there)
        .replacen(setup::HEALTH, &health, 1)
        + &format!(
            "  - {{ name: raw, bind: [200.0.0.10:81], mode: tcp, to: p, plugins: {STUCK} }}\n"
        );
    let edge = Edge::start(&block, &yaml).await;
    edge.admin("POST", "/api/nodes/n1/drain").await;
    let [plain, raw] = [80, 81].map(|port| Dial::plain(block.at(&format!("200.0.0.10:{port}"))));
    let mut asking = Vec::new();
    for dial in [&plain, &plain, &plain, &raw, &raw] {
        let mut client = H1::connect(dial).await;
        assert_eq!(client.get("/hello", &[]).await.node(), "far");
        asking.push(client);
    }
    let secure = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let mut h2 = H2::connect(&secure).await;
    h2.get("/hello", &[]).await;
    edge.admin("POST", "/api/nodes/n1/up").await;
    let mut packets = host.watch();
    host.swallow();
    let [mut gets, mut posts, gives_up, at_layer_4, gives_up_too] =
        <[H1; 5]>::try_from(asking).ok().expect("five clients");
    posts
        .send("POST", "/echo", &[], &[7; 65_536])
        .await
        .expect("send");
    for mut client in [gives_up, gives_up_too] {
        client.send("GET", "/hello", &[], b"").await.expect("send");
    }
    let mut at_layer_4 = at_layer_4;
    at_layer_4
        .send("GET", "/hello", &[], b"")
        .await
        .expect("send");
    let (got, by_h2) = tokio::join!(gets.get("/hello", &[]), h2.get("/hello", &[]));
    assert_eq!(
        (got.node(), &by_h2.headers()["x-node"]),
        ("n1", &"n1".parse().expect("text"))
    );
    assert!(posts.head().await.is_err(), "an answer");
    assert!(at_layer_4.head().await.is_err());
    edge.wait_log("node n2 is down").await;
    edge.wait_nodes("no flow on it", |n| n[1]["flows"] == 0)
        .await;
    let before = packets.payload();
    assert!(
        before[&8080] > 8192,
        "nobody looked at the packets: {before:?}"
    );
    // Bounded wait: the kernel would send unacknowledged bytes again, twice.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sunk = packets.payload();
    println!("before {before:?}, since {sunk:?}");
    assert_eq!(sunk.get(&8080).copied().unwrap_or(0), 0, "bytes sunk");
    drop((near, far));
}

/// Sends a message each 5 ms until the socket ends.
async fn sends_on(socket: ws::Ws) {
    let (mut write, mut read) = socket.socket.split();
    let sending = async {
        let message = || "x".repeat(SENT).into();
        while write.send(message()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let heard = async { while let Some(Ok(_)) = read.next().await {} };
    tokio::select! { () = sending => {}, () = deadline("its end", heard) => {} }
}
