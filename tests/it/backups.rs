//! Backup nodes, and the address from which nodes are connected to.
//!
//! In: pools with a backup, nodes with a `source`. Out: which node gets a flow, and whom it sees.
//! Source: haproxy(1), `backup`, `source`; issue 15, 3.

use std::sync::mpsc::sync_channel;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Health;
use crate::setup;
use crate::vip::Block;

/// Aim: a backup gets flows while no other node can take them; a client stuck to it stays; the others get new clients
/// again. Fails if a backup is balanced as any node, or if stickiness to it ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_serves_while_no_other_node_can() {
    let block = Block::claim();
    let nodes = [setup::node(&block, 1).await, setup::node(&block, 2).await];
    let yaml = "
nodes:
  n1: { address: 10.0.0.1:8080 }
  n2: { address: 10.0.0.2:8080, backup: true, weight: 1000 }
pools:
  p: { nodes: [n1, n2], health: { http: { path: /health }, interval: 20ms, rise: 1, fall: 1, hold_down: 0s } }
listeners:
  - { name: free, bind: [200.0.0.10:80], mode: http, to: p }
  - { name: stuck, bind: [200.0.0.20:80], mode: http, to: p, plugins: [{ sticky_cookie: {} }] }
";
    let edge = Edge::start(&block, yaml).await;
    let ask = async |vip: &str, cookie: &str| {
        let mut client = H1::connect(&Dial::plain(block.at(vip))).await;
        let answer = client.get("/hello", &[("Cookie", cookie)]).await;
        assert_eq!(answer.status, 200);
        let set = answer.cookies().first().map(|c| c.to_string());
        (answer.node().to_owned(), set.unwrap_or_default())
    };
    for _ in 0..4 {
        assert_eq!(ask("200.0.0.10:80", "").await.0, "n1");
    }
    let told = edge.nodes().await;
    assert_eq!(
        (&told[0]["backup"], &told[1]["backup"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
    let metrics = edge.metrics().await;
    assert_eq!(metrics["pushgate_node_backup{node=\"n2\"}"], 1.0);

    nodes[0].set_health(Health::Fail);
    edge.wait_nodes("n1 down", |n| n[0]["state"] == "down")
        .await;
    let mut kept = H1::connect(&Dial::plain(block.at("200.0.0.10:80"))).await;
    assert_eq!(kept.get("/hello", &[]).await.node(), "n2");
    let (node, set) = ask("200.0.0.20:80", "").await;
    assert_eq!(node, "n2");
    let cookie = set.split(';').next().unwrap_or_default().to_owned();
    nodes[0].set_health(Health::Ok);
    edge.wait_nodes("n1 up", |n| n[0]["state"] == "up").await;
    assert_eq!(ask("200.0.0.20:80", &cookie).await.0, "n2", "stuck");
    assert_eq!(
        kept.get("/hello", &[]).await.node(),
        "n1",
        "the same connection"
    );
    for _ in 0..4 {
        assert_eq!(ask("200.0.0.20:80", "").await.0, "n1");
    }
}

/// Aim: an ordered weight counts from the next flow on, survives a reload of the same file, and gives way to another
/// weight in the file. Fails if each reload sets the weight of the file.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_weight_holds_until_the_file_has_another() {
    let block = Block::claim();
    let _nodes = [setup::node(&block, 1).await, setup::node(&block, 2).await];
    let yaml = "
nodes:
  n1: { address: 10.0.0.1:8080, weight: 10 }
  n2: { address: 10.0.0.2:8080, weight: 10 }
pools: { p: { nodes: [n1, n2], balance: round_robin } }
listeners: [{ name: a, bind: [200.0.0.10:80], mode: http, to: p }]
";
    let edge = Edge::start(&block, yaml).await;
    let weights = async || {
        let nodes = edge.nodes().await;
        [nodes[0]["weight"].as_u64(), nodes[1]["weight"].as_u64()]
    };
    let half = edge.admin("POST", "/api/nodes/n1/weight?to=50%25").await;
    assert_eq!(
        (half.status, half.text().as_str()),
        (200, "{\"name\":\"n1\",\"weight\":5}")
    );
    assert_eq!(
        edge.admin("POST", "/api/nodes/n2/weight?to=0").await.status,
        200
    );
    assert_eq!(weights().await, [Some(5), Some(0)]);
    for _ in 0..4 {
        let mut client = H1::connect(&Dial::plain(block.at("200.0.0.10:80"))).await;
        assert_eq!(client.get("/hello", &[]).await.node(), "n1");
    }
    edge.rewrite(&block, &yaml.replace("n1, n2]", "n2, n1]"));
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    assert_eq!(weights().await, [Some(5), Some(0)]);
    edge.rewrite(
        &block,
        &yaml.replace("8080, weight: 10 }\n  n2", "8080, weight: 20 }\n  n2"),
    );
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    assert_eq!(weights().await, [Some(20), Some(0)]);
    for (path, status) in [
        ("/api/nodes/n1/weight", 400),
        ("/api/nodes/n1/weight?to=1001", 400),
        ("/api/nodes/n1/weight?to=half", 400),
        ("/api/nodes/n1/drain?to=1", 400),
        ("/api/nodes/none/weight?to=1", 404),
    ] {
        assert_eq!(edge.admin("POST", path).await.status, status, "{path}");
    }
}

/// Aim: a node sees the address of its `source`, of its own or of its pool; one that is not of this machine is told,
/// counted, and no fault of the node. Fails if the kernel chooses, or if it looks like a lack of ports.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_connected_to_from_their_source() {
    let block = Block::claim();
    let (seen, peers) = sync_channel(64);
    for n in 1..=2 {
        let socket = TcpListener::bind(block.at(&format!("10.0.0.{n}:8080"))).await;
        let (socket, seen) = (socket.expect("bind"), seen.clone());
        // A task, because a thread would keep the address when the test has ended.
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = socket.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
                if seen.send((n, peer.ip().to_string())).is_err() {
                    return;
                }
            }
        });
    }
    let yaml = "
nodes:
  n1: { address: 10.0.0.1:8080 }
  n2: { address: 10.0.0.2:8080, source: 127.0.0.78 }
  n3: { address: 10.0.0.1:8080, source: 192.0.2.77 }
pools:
  p: { nodes: [n1], source: 127.0.0.77 }
  q: { nodes: [n3, n2], balance: round_robin }
listeners:
  - { name: p, bind: [200.0.0.10:80], mode: http, to: p }
  - { name: n2, bind: [200.0.0.20:80], mode: http, to: n2 }
  - { name: q, bind: [200.0.0.30:80], mode: http, to: q }
";
    let edge = Edge::start(&block, yaml).await;
    let get = async |vip: &str| {
        let mut client = H1::connect(&Dial::plain(block.at(vip))).await;
        client.get("/", &[]).await.status
    };
    let next = || peers.recv_timeout(crate::DEADLINE).expect("a connection");
    assert_eq!(get("200.0.0.10:80").await, 200);
    assert_eq!(next(), (1, "127.0.0.77".to_owned()));
    assert_eq!(get("200.0.0.20:80").await, 200);
    assert_eq!(next(), (2, "127.0.0.78".to_owned()));
    for _ in 0..2 {
        assert_eq!(get("200.0.0.30:80").await, 200);
        assert_eq!(next().0, 2);
    }
    let failed = "pushgate_connect_failures_total{node=\"n3\",reason=\"no_source\"}";
    assert!(edge.metrics().await[failed] >= 1.0);
    edge.wait_log("from 192.0.2.77, which is no address of this machine")
        .await;
    assert_eq!(edge.nodes().await[2]["state"], "up");
}

/// Aim: `source` works for IPv6 as for IPv4: the node sees it, and an address of another machine is told and counted.
/// Fails if an IPv6 node is connected to from where the kernel likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_may_be_of_ipv6() {
    let block = Block::claim();
    let Ok(socket) = TcpListener::bind("[::1]:0").await else {
        return eprintln!("skipped: this machine has no IPv6");
    };
    let port = socket.local_addr().expect("bound").port();
    let peer = tokio::spawn(async move {
        let (mut stream, peer) = socket.accept().await.expect("a connection");
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("send");
        peer.ip().to_string()
    });
    let yaml = format!(
        "nodes:\n  n1: {{ address: \"[::1]:{port}\", source: \"::1\" }}\n  \
         n2: {{ address: \"[::1]:{port}\", source: \"2001:db8::77\" }}\n\
         listeners:\n  - {{ name: a, bind: [200.0.0.10:80], mode: http, to: n1 }}\n  \
         - {{ name: b, bind: [200.0.0.20:80], mode: http, to: n2 }}\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    let get = async |vip: &str| {
        let mut client = H1::connect(&Dial::plain(block.at(vip))).await;
        client.get("/", &[]).await.status
    };
    assert_eq!(get("200.0.0.20:80").await, 503, "n2 has no source");
    let failed = "pushgate_connect_failures_total{node=\"n2\",reason=\"no_source\"}";
    assert!(edge.metrics().await[failed] >= 1.0);
    edge.wait_log("from 2001:db8::77, which is no address of this machine")
        .await;
    assert_eq!(get("200.0.0.10:80").await, 200);
    assert_eq!(peer.await.expect("a peer"), "::1");
}
