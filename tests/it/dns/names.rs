//! What the edge looks up: a node's host name, SRV records, both address families, `localhost`.

use std::net::SocketAddr;

use serde_json::Value;

use super::rig::{NAME, Rig, ips, named, node, states, yaml};
use super::server::{Dns, Says};
use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::edge::Edge;
use crate::node::{Health, Node};
use crate::vip::Block;

/// Aim: a node follows its host name. New flows go to the new address; the flow at the old address stays, and
/// its checks go on until it ends. Fails if the old address gets new flows, or if it is no longer checked.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_its_host_name() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    dns.hosts(NAME, &ips(&block, &[1]));
    dns.hosts("ls.internal", &ips(&block, &[1, 2]));
    let (one, two) = (node(&block, 1).await, node(&block, 2).await);
    let health =
        "health: { http: { path: /health }, interval: 50ms, timeout: 5s, rise: 1, fall: 1 }";
    let top = format!(
        "  - {{ name: other, bind: [200.0.0.20:80], mode: http, to: ls }}\n\
         nodes: {{ ls: {{ address: 'ls.internal:8080', {health} }} }}\n"
    );
    let rig = Rig::with(block, dns, "host: push.internal:8080", "", &top).await;
    let dial = Dial::plain(rig.block.at("200.0.0.20:80")).host("push.mycompany.com");
    let is_at = |nodes: &Value, at: SocketAddr| {
        let mut nodes = nodes.as_array().into_iter().flatten();
        nodes.any(|n| n["name"] == "ls" && n["address"] == at.to_string() && n["state"] == "up")
    };
    rig.edge
        .wait_nodes("ls at 1", |n| is_at(n, rig.at(1)))
        .await;
    let mut idle = H1::connect(&dial).await;
    assert_eq!(idle.get("/hello", &[]).await.node(), "n1");
    let mut socket = ws::connect(&dial, "/ws/echo", &[]).await;

    // While DNS still lists the node's address, the node keeps it.
    rig.dns.hosts("ls.internal", &ips(&rig.block, &[2, 1]));
    rig.dns.wait_asked(6).await;
    assert!(is_at(&rig.edge.nodes().await, rig.at(1)));
    rig.dns.hosts("ls.internal", &ips(&rig.block, &[2]));
    rig.edge
        .wait_nodes("ls at 2", |n| is_at(n, rig.at(2)))
        .await;
    let moved = idle.get("/hello", &[]).await;
    assert_eq!(
        moved.node(),
        "n2",
        "no idle connection to the old address is used"
    );
    socket.say("still here").await;
    assert_eq!(socket.hear().await, "still here");
    one.set_health(Health::Fail);
    socket.ended().await;
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.node(),
        "n2"
    );
    drop(two);
}

/// Aim: SRV records give ports and weights. Records of a larger priority number wait. An IPv6 address is a
/// node. A changed weight keeps the node. Fails if priority or weight is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn srv_records_say_port_weight_and_priority() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let (one, two) = (node(&block, 1).await, node(&block, 2).await);
    let six: SocketAddr = "[::1]:8080".parse().expect("an address");
    for (host, ips) in [
        ("a.internal", ips(&block, &[1])),
        ("b.internal", ips(&block, &[2])),
        ("six.internal", vec![six.ip()]),
        ("spare.internal", ips(&block, &[3])),
    ] {
        dns.hosts(host, &ips);
    }
    let services = |weight: u16| {
        let of = |p, w, host: &str| (p, w, 8080, format!("{host}.internal"));
        let all = [of(0, weight, "a"), of(0, 10, "b"), of(0, 0, "six")];
        let more = [of(0, 10, "absent"), of(5, 10, "spare")];
        Says::Services([&all[..], &more].concat(), 1)
    };
    const SERVICE: &str = "_push._tcp.internal";
    dns.says(SERVICE, services(30));
    let pool = "    balance: round_robin\n";
    let rig = Rig::with(block, dns, &format!("srv: {SERVICE}"), pool, "").await;
    let weights = |nodes: &Value| -> Vec<(String, u64)> {
        let weight = |n: &Value| (n["name"].as_str().map(str::to_owned), n["weight"].as_u64());
        let nodes = nodes.as_array().into_iter().flatten().map(weight);
        nodes.filter_map(|(name, w)| Some((name?, w?))).collect()
    };
    let mut expected = vec![
        (named(one.addr), 30),
        (named(two.addr), 10),
        (named(six), 1),
    ];
    expected.sort();
    let there = |n: &Value| weights(n) == expected;
    rig.edge.wait_nodes("all of priority 0", there).await;
    // That node is Down on a machine without IPv6, or without a listener there.
    rig.wait_state(&named(six), "down").await;
    let mut got = [0, 0];
    for _ in 0..40 {
        got[usize::from(rig.served().await == "n2")] += 1;
    }
    assert_eq!(got, [30, 10]);
    rig.dns.says(SERVICE, services(10));
    let even = |n: &Value| weights(n).iter().filter(|(_, w)| *w == 10).count() == 2;
    let nodes = rig.edge.wait_nodes("even weights", even).await;
    let totals = nodes.as_array().into_iter().flatten();
    let total: u64 = totals.filter_map(|n| n["flows_total"].as_u64()).sum();
    assert_eq!(total, 40, "the nodes are the same");
}

/// Aim: the edge skips a silent DNS server, and both IPv4 and IPv6 addresses can be nodes. Fails if only the
/// first server, or only one family, is asked.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_and_both_families_are_asked() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let _one = node(&block, 1).await;
    let six: SocketAddr = "[::1]:8080".parse().expect("an address");
    dns.hosts(NAME, &[ips(&block, &[1])[0], six.ip()]);
    let silent = tokio::net::UdpSocket::bind((block.ip("10.0.0.54"), 0)).await;
    let silent = silent.and_then(|s| Ok((s.local_addr()?, s)));
    let (address, _silent) = silent.expect("a socket nobody reads");
    let both = "host: push.internal:8080, family: both";
    let text = yaml(&dns, both, "", "");
    let text = text.replace("addresses: [", &format!("addresses: ['{address}', "));
    let edge = Edge::start(&block, &text).await;
    let names = |nodes: &Value| -> Vec<String> {
        let all = states(nodes);
        all.into_iter().map(|(name, _)| name).collect()
    };
    let mut expected = vec![named(block.at("10.0.0.1:8080")), named(six)];
    expected.sort();
    edge.wait_nodes("both", |n| names(n) == expected).await;
}

/// Aim: `localhost` needs no DNS server and may be this machine although `allow` lists nothing. Without
/// settings, the system's own apply. Fails if loopback is refused to a configuration that names `localhost`.
#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_this_machine() {
    let block = Block::claim();
    let node = Node::start("n1", ([127, 0, 0, 1], 0)).await;
    let yaml = format!(
        "nodes: {{ n1: {{ address: 'localhost:{}' }} }}\n\
         listeners: [{{ name: push, bind: [200.0.0.10:80], mode: http, to: n1 }}]\n",
        node.addr.port()
    );
    let _edge = Edge::start(&block, &yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.node(),
        "n1"
    );
}
