//! Nodes found by DNS: records that come, go, change and fail, between real clients and nodes.
//!
//! In: a DNS server with scripted answers. Out: which nodes the edge has, which node serves, what survives.
//! Source: FAULTS D66; docs/operations.md, "Nodes found by DNS".

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::browser::Browser;
use crate::client::h1::H1;
use crate::client::ws;
use crate::edge::Edge;
use crate::node::Health;
use crate::vip::Block;

mod faults;
mod names;
mod rig;
pub mod server;

use rig::{NAME, Rig, ips, node, yaml};
use server::{Dns, Says};

/// Aim: records become nodes that are checked before their first flow. A node that leaves DNS keeps its flow
/// and its stuck client, and is removed when it has none. A different order of records changes nothing. Fails
/// if a new node is not checked first, if a leaving node is removed at once, or if names follow the answer's
/// order.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_with_their_records() {
    let (rig, _nodes) = Rig::start(&[1, 2], "100ms").await;
    let nodes = rig.wait("two nodes", &[(1, "up"), (2, "up")]).await;
    assert_eq!(nodes[0]["source"], "push.internal:8080");
    let mut client = H1::connect(&rig.dial).await;
    let first = client.get("/hello", &[]).await;
    let cookie = first.cookies()[0].to_owned();
    let (stuck, other) = match first.node() {
        "n1" => (1, 2),
        _ => (2, 1),
    };
    let mut socket = ws::connect(&rig.dial, "/ws/echo", &[("Cookie", &cookie)]).await;
    assert_eq!(socket.node(), format!("n{stuck}"));

    // The same records in another order: the same nodes with the same counters.
    let total = rig.edge.nodes().await[0]["flows_total"].clone();
    rig.hosts(&[2, 1]);
    rig.dns.wait_asked(2).await;
    assert_eq!(rig.edge.nodes().await[0]["flows_total"], total);

    // A third node that fails its checks: the edge lists it and sends it no client.
    let three = node(&rig.block, 3).await;
    three.set_health(Health::Fail);
    rig.hosts(&[1, 2, 3]);
    rig.wait("a third", &[(1, "up"), (2, "up"), (3, "down")])
        .await;
    for _ in 0..4 {
        assert_ne!(rig.served().await, "n3");
    }
    three.set_health(Health::Ok);
    rig.wait("it to be up", &[(1, "up"), (2, "up"), (3, "up")])
        .await;

    // Our client's node leaves DNS.
    rig.hosts(&[other, 3]);
    rig.wait("a drain", &[(stuck, "draining"), (other, "up"), (3, "up")])
        .await;
    for _ in 0..4 {
        assert_ne!(rig.served().await, format!("n{stuck}"));
    }
    // Twice the time in which the edge would notice that the node is empty. It is not.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let again = H1::connect(&rig.dial)
        .await
        .get("/hello", &[("Cookie", &cookie)])
        .await;
    assert_eq!(
        again.node(),
        format!("n{stuck}"),
        "stuck clients still come"
    );
    socket.say("still here").await;
    assert_eq!(socket.hear().await, "still here");
    drop((socket, client));
    rig.wait("its end", &[(other, "up"), (3, "up")]).await;
    let moved = H1::connect(&rig.dial)
        .await
        .get("/hello", &[("Cookie", &cookie)])
        .await;
    assert_ne!(moved.node(), format!("n{stuck}"));
    let kept = rig.edge.metrics().await;
    let gone = format!("node=\"{}\"", rig.name(stuck));
    assert!(!kept.keys().any(|sample| sample.contains(&gone)), "{gone}");
}

/// Aim: a node that left DNS serves new clients as long as all nodes in DNS are Down. Fails if clients are
/// refused while a node could serve them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_dns_serves_while_no_other_can() {
    let (rig, _nodes) = Rig::start(&[1], "1m").await;
    let two = node(&rig.block, 2).await;
    two.set_health(Health::Fail);
    rig.hosts(&[2]);
    rig.wait("an ill newcomer", &[(1, "draining"), (2, "down")])
        .await;
    for _ in 0..3 {
        assert_eq!(rig.served().await, "n1");
    }
    two.set_health(Health::Ok);
    rig.wait("its turn", &[(1, "draining"), (2, "up")]).await;
    for _ in 0..3 {
        assert_eq!(rig.served().await, "n2");
    }
}

/// Aim: a node that joins nodes with flows starts slowly; the nodes of the first answer do not. Fails if a
/// discovered node takes flows at full rate.
#[tokio::test(flavor = "multi_thread")]
async fn newcomers_start_slowly() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let _nodes = (node(&block, 1).await, node(&block, 2).await);
    dns.hosts(NAME, &ips(&block, &[1]));
    let pool = "    slow_start: 1/s\n";
    let rig = Rig::with(block, dns, "host: push.internal:8080", pool, "").await;
    let nodes = rig.wait("the first", &[(1, "up")]).await;
    assert_eq!(nodes[0]["slow_start"], false);
    let _flow = ws::connect(&rig.dial, "/ws/silent", &[]).await;
    rig.hosts(&[1, 2]);
    let nodes = rig.wait("the second", &[(1, "up"), (2, "up")]).await;
    let slow: Vec<&Value> = (0..2).map(|i| &nodes[i]["slow_start"]).collect();
    assert_eq!(slow, [false, true]);
}

/// Aim: the dashboard shows the followed names and the last result of DNS. Fails if it shows only nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_the_names() {
    let (rig, _nodes) = Rig::start(&[1], "1m").await;
    rig.dns.says(NAME, Says::Silence);
    rig.wait_result("timeout").await;
    let browser = Browser::at(&format!("http://{}/", rig.block.admin())).await;
    let script = "const row = document.querySelector('#names tr');
        return row && [...row.cells].map((cell) => cell.textContent);";
    let row = crate::deadline("a row", async {
        loop {
            let look = browser.client.execute(script, Vec::new()).await;
            let look = look.expect("a script's answer");
            if look.is_array() {
                return look;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let row = row.await;
    assert_eq!(row[0], "push.internal:8080");
    assert_eq!(row[1], rig.at(1).to_string());
    assert!(row[4].as_str().is_some_and(|f| f.len() > 1), "{row}");
    browser.client.close().await.expect("the browser ends");
}

/// Aim: 1,000 records do not fit into a datagram. The edge repeats the question over TCP and gets 1,000
/// nodes; it leaves out and reports one more. Fails without the second question.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_records_come_over_tcp() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let [net, a, ..] = block.ip("10.0.0.1").octets();
    let many = |count: u16| -> Vec<IpAddr> {
        let ip = |n: u16| IpAddr::from([net, a, 20 + (n / 250) as u8, (1 + n % 250) as u8]);
        (0..count).map(ip).collect()
    };
    dns.hosts(NAME, &many(1_000));
    // No checks: a configuration with a thousand checks would be refused.
    let text = yaml(&dns, "host: push.internal:8080", "", "");
    let health = text
        .lines()
        .find(|l| l.contains("health:"))
        .expect("a line")
        .to_owned();
    let text = text.replace(&format!("{health}\n"), "");
    let edge = Edge::start(&block, &text).await;
    let count = |nodes: &Value| nodes.as_array().map_or(0, Vec::len);
    edge.wait_nodes("1,000 nodes", |n| count(n) == 1_000).await;
    assert!(dns.asked().tcp > 0);
    dns.hosts(NAME, &many(1_001));
    edge.wait_log("1 records are left out").await;
    assert_eq!(count(&edge.nodes().await), 1_000);
}

/// Aim: the edge asks again when an answer's TTL is over, not before. Fails if TTLs are ignored.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_good_for_its_time() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let _one = node(&block, 1).await;
    dns.says(NAME, Says::Hosts(ips(&block, &[1]), 2));
    let long =
        yaml(&dns, "host: push.internal:8080", "", "").replace("max_ttl: 100ms", "max_ttl: 1h");
    let edge = Edge::start(&block, &long).await;
    dns.wait_asked(2).await;
    let times = dns.times();
    let gaps: Vec<Duration> = times.windows(2).map(|w| w[1] - w[0]).collect();
    // The edge asks up to a tenth later; a busy machine adds to that.
    let good = |gap: &Duration| (2_000..5_000).contains(&gap.as_millis());
    assert!(gaps.iter().all(good), "{gaps:?}");
    drop(edge);
}

/// Aim: constantly changing answers disturb no client: nodes come, drain, go and come back under load. Fails
/// if nodes drain before the tables with their replacements are active (then one run in five met a 503).
#[tokio::test(flavor = "multi_thread")]
async fn changing_answers_disturb_no_client() {
    let (rig, _nodes) = Rig::start(&[1, 2, 3], "0s").await;
    let over = Arc::new(AtomicBool::new(false));
    let clients = (0..4).map(|_| {
        let (dial, over) = (rig.dial.clone(), over.clone());
        tokio::spawn(async move {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = H1::connect(&dial).await;
                for _ in 0..5 {
                    assert_eq!(client.get("/hello", &[]).await.status, 200);
                    served += 1;
                }
            }
            served
        })
    });
    let clients: Vec<_> = clients.collect();
    for round in 0..24 {
        rig.hosts([&[1, 2][..], &[3], &[2, 3, 1], &[2]][round % 4]);
        rig.dns.wait_asked(1).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let served = client.await.expect("every request is answered");
        assert!(served > 0);
    }
    assert!(!rig.edge.log().contains("panicked"));
}

/// Aim: a reload and a successor keep the discovered nodes while DNS is silent: nodes, states and counters
/// after a reload, nodes and stickiness after an upgrade. Fails if a reload waits for new answers, or if
/// answers are not handed over.
#[tokio::test(flavor = "multi_thread")]
async fn discovered_nodes_outlive_reload_and_upgrade() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    dns.hosts(NAME, &ips(&block, &[1, 2]));
    let _nodes = (node(&block, 1).await, node(&block, 2).await);
    let socket = tempfile::tempdir().expect("a folder");
    let top = format!("upgrade_socket: {}/up.sock\n", socket.path().display());
    let mut rig = Rig::with(block, dns, "host: push.internal:8080", "", &top).await;
    rig.wait("two nodes", &[(1, "up"), (2, "up")]).await;
    let first = H1::connect(&rig.dial).await.get("/hello", &[]).await;
    let cookie = first.cookies()[0].to_owned();
    rig.dns.says(NAME, Says::Silence);
    rig.wait_result("timeout").await;
    let order = format!("/api/nodes/{}/drain", rig.name(2));
    assert_eq!(rig.edge.admin("POST", &order).await.status, 200);
    assert_eq!(rig.edge.admin("POST", "/api/reload").await.status, 200);
    let nodes = rig.wait("the same", &[(1, "up"), (2, "draining")]).await;
    let total = |n: &Value| n["flows_total"].as_u64().unwrap_or(0);
    assert_eq!(total(&nodes[0]) + total(&nodes[1]), 1);

    let successor = rig.edge.successor();
    successor.wait_log("listener push on").await;
    rig.edge.ended().await;
    rig.edge = successor;
    rig.wait("the same in another process", &[(1, "up"), (2, "draining")])
        .await;
    let again = H1::connect(&rig.dial)
        .await
        .get("/hello", &[("Cookie", &cookie)])
        .await;
    assert_eq!(again.node(), first.node());
}
