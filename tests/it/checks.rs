//! How the edge finds a node dead or well again: by health checks, by passive health, without flapping.
//!
//! In: nodes that hang, flap, answer wrongly, or fail only real clients. Out: their states and their times.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; FAULTS D60, D61.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::{Health, Node};
use crate::setup::{self, HOST, Setup};
use crate::tlcp::Sessions;
use crate::vip::Block;

mod agent;
mod first;
mod node_status;

/// Starts an edge whose pool has this `health`.
async fn checked(nodes: u8, health: &str) -> Setup {
    checked_with(nodes, "", health).await
}

/// As [`checked`], with `plugins` as a YAML list.
async fn checked_with(nodes: u8, plugins: &str, health: &str) -> Setup {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let mut running = Vec::new();
    for n in 1..=nodes {
        running.push(setup::node(&block, n).await);
    }
    let yaml = setup::yaml(&certs, nodes, plugins, "");
    let line = yaml.lines().find(|l| l.contains("health:"));
    let line = line.expect("the pool has a check").to_owned();
    let health = format!("    on_lost: 502\n    health: {health}");
    let edge = Edge::start(&block, &yaml.replace(&line, &health)).await;
    Setup {
        block,
        nodes: running,
        edge,
        certs,
    }
}

/// How often `n1` entered `state`.
async fn changes(setup: &Setup, state: &str) -> f64 {
    let name = format!("pushgate_node_changes_total{{node=\"n1\",state=\"{state}\"}}");
    let metrics = setup.edge.metrics().await;
    metrics.get(&name).copied().unwrap_or(0.0)
}

/// Aim: a node that hangs is Down after interval × fall + timeout, though each of its checks takes the whole
/// timeout. A node that fails beside it is found no later. Fails if checks wait for one another.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_node_is_found_in_time() {
    let check = "{ http: { path: /health }, interval: 100ms, timeout: 1s, rise: 2, fall: 5 }";
    let setup = checked(2, check).await;
    setup.nodes[0].set_health(Health::Hang);
    let hung = Instant::now();
    let other = async {
        setup.nodes[1].set_health(Health::Fail);
        setup.wait_state("n2", "down").await;
        hung.elapsed()
    };
    let other = other.await;
    setup.wait_state("n1", "down").await;
    let took = hung.elapsed();
    println!("hanging: Down after {took:?}; the other, failing: {other:?}");
    assert!(other < took, "{other:?}");
    // 1.5 s by the rule, 5 s if each check waited for the one before. The margin is for a loaded machine.
    assert!(took < Duration::from_secs(4), "{took:?}");
    setup
        .edge
        .wait_log("node n1 is down: check: no result within 1s")
        .await;
}

/// Aim: where a text is expected, a good status alone does not pass the check. Fails if the body is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn the_expected_text_must_be_there() {
    let check = "{ http: { path: /health, expect: OK }, interval: 50ms, rise: 1, fall: 1 }";
    let setup = checked(1, check).await;
    setup.wait_state("n1", "up").await;
    setup.nodes[0].set_health(Health::Odd);
    setup.wait_state("n1", "down").await;
    let cause = "node n1 is down: check: `OK` is not in its answer";
    setup.edge.wait_log(cause).await;
    setup.nodes[0].set_health(Health::Ok);
    setup.wait_state("n1", "up").await;
}

/// Aim: each status of a list or range passes, and no other. Fails if only the first one does.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_a_list_and_a_range_pass() {
    let block = Block::claim();
    let nodes = [setup::node(&block, 1).await, setup::node(&block, 2).await];
    let health = |status: &str| {
        format!(
            "health: {{ http: {{ path: /health, status: {status} }}, interval: 20ms, rise: 1, fall: 1 }}"
        )
    };
    let yaml = format!(
        "nodes:\n  n1: {{ address: 10.0.0.1:8080, {} }}\n  n2: {{ address: 10.0.0.2:8080, {} }}\n\
         pools: {{ p: {{ nodes: [n1, n2] }} }}\n\
         listeners: [{{ name: l, bind: [200.0.0.10:80], mode: http, to: p }}]\n",
        health("[200, 204, 500-502]"),
        health("200-499"),
    );
    let edge = Edge::start(&block, &yaml).await;
    nodes.iter().for_each(|node| node.set_health(Health::Fail));
    let is_down = |n: &Value| n[1]["state"] == "down";
    edge.wait_nodes("n2 down", is_down).await;
    edge.wait_log("check: answered 500, expected 200-499").await;
    let checks = "pushgate_health_checks_total";
    let before = edge.metric(checks).await;
    edge.wait_metric(checks, |count| count > before + 10.0)
        .await;
    assert_eq!(edge.nodes().await[0]["state"], "up");
}

/// Aim: a node whose TLS passes through is checked by a handshake, and by a GET over it if `health` asks for
/// one. A port that does not speak TLS is Down. Fails if a TCP connect is enough.
#[tokio::test(flavor = "multi_thread")]
async fn passed_through_tls_is_checked() {
    let (block, certs) = (Block::claim(), Certs::new());
    let tls = certs.leaf("n1", &[HOST], Key::Ecdsa).context();
    let at = block.at("10.0.0.1:8080");
    let node = Node::start_tls("n1", at, Sessions::new("n1"), Some(tls)).await;
    let _plain = setup::node(&block, 2).await;
    let keys = "interval: 50ms, timeout: 5s, rise: 1, fall: 1";
    let yaml = format!(
        "nodes:\n  n1: {{ address: 10.0.0.1:8080, health: {{ tls: {{ server_name: {HOST} }}, \
         http: {{ path: /health }}, {keys} }} }}\n  \
         n2: {{ address: 10.0.0.2:8080, health: {{ tls: {{}}, {keys} }} }}\n\
         pools: {{ p: {{ nodes: [n1, n2] }} }}\n\
         listeners: [{{ name: l, bind: [200.0.0.10:443], mode: tcp, to: p }}]\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    let state = |n: &Value| [n[0]["state"].clone(), n[1]["state"].clone()];
    edge.wait_nodes("up and down", |n| state(n) == ["up", "down"])
        .await;
    node.set_health(Health::Fail);
    edge.wait_nodes("both down", |n| state(n) == ["down", "down"])
        .await;
}

/// Aim: a failed flow triggers a check at once. Fails if the node stays Up until its next check, an hour
/// later.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flow_asks_for_a_check() {
    let check = "{ tcp: {}, interval: 1h, fast_interval: 20ms, rise: 1, fall: 2 }";
    let mut setup = checked(2, check).await;
    setup.nodes.truncate(1);
    deadline("n2 is down", async {
        // Until a client is sent to the node, nothing shows that it fails.
        while setup.edge.nodes().await[1]["state"] != "down" {
            let answer = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
            assert_eq!((answer.status, answer.node()), (200, "n1"));
        }
    })
    .await;
}

/// Aim (D61): a flapping node is held Down longer each time; an operator's `up` ends the hold. Fails if the
/// node's state follows each of its checks.
#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_node_is_held_down() {
    let check = "{ http: { path: /health }, interval: 20ms, fast_interval: 5ms, timeout: 5s, \
                 rise: 1, fall: 1, hold_down: 1h }";
    let setup = checked(2, check).await;
    let flapping = Instant::now();
    // Flaps for 2.5 s: fails the node as soon as it is back.
    while flapping.elapsed() < Duration::from_millis(2500) {
        setup.nodes[0].set_health(Health::Fail);
        setup.wait_state("n1", "down").await;
        setup.nodes[0].set_health(Health::Ok);
        let back = setup.wait_state("n1", "up");
        let left = Duration::from_millis(2500).saturating_sub(flapping.elapsed());
        if tokio::time::timeout(left, back).await.is_err() {
            break;
        }
    }
    // Without a hold, a cycle takes about 30 ms: more than 60 falls. With holds of 40, 80, 160 … ms: 7.
    let downs = changes(&setup, "down").await;
    assert!((3.0..=9.0).contains(&downs), "{downs} falls");
    setup.nodes[0].set_health(Health::Ok);
    setup.edge.wait_log("in a row, held Down for").await;
    setup.edge.admin("POST", "/api/nodes/n1/up").await;
    setup.wait_state("n1", "up").await;
}

/// Aim: a node that is held Down is checked once each `interval` and comes back when the hold is over. Fails
/// if each good check schedules the next one after `fast_interval`: that would be for a minute, at a server
/// that is ill.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_node_is_checked_in_peace() {
    let check = "{ http: { path: /health }, interval: 1s, fast_interval: 10ms, rise: 1, fall: 1 }";
    let setup = checked(1, check).await;
    for (health, state) in [
        (Health::Fail, "down"),
        (Health::Ok, "up"),
        (Health::Fail, "down"),
    ] {
        setup.nodes[0].set_health(health);
        setup.wait_state("n1", state).await;
    }
    setup.nodes[0].set_health(Health::Ok);
    let (held, before) = (
        Instant::now(),
        setup.edge.metric("pushgate_health_checks_total").await,
    );
    setup.wait_state("n1", "up").await;
    let took = held.elapsed();
    let checks = setup.edge.metric("pushgate_health_checks_total").await - before;
    println!("held for {took:?}, {checks} checks");
    // Two intervals by the rule; 200 checks at `fast_interval`.
    assert!(
        checks <= 6.0 + took.as_secs_f64(),
        "{checks} checks in {took:?}"
    );
}

/// Aim (D61): a node that passes its checks but resets its clients goes Down where `passive` is configured.
/// Other nodes serve its clients meanwhile, and the next good check does not bring it back. Fails if only
/// checks count, or if the node flaps with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_only_its_clients_goes_down() {
    for (passive, path) in [
        ("passive: { failures: 3 }", "/fault/reset"),
        ("passive: { failures: 10000, errors: 50% }", "/fault/error"),
    ] {
        let keys = "interval: 50ms, timeout: 5s, rise: 1, fall: 2";
        let setup = checked(
            1,
            &format!("{{ http: {{ path: /health }}, {keys}, {passive} }}"),
        )
        .await;
        let down = setup.edge.wait_log("node n1 is down: ");
        let clients = async {
            for n in 1..=40 {
                let mut client = H1::connect(&setup.plain().from(setup.block.client(n))).await;
                let answer = client.get(path, &[("Connection", "close")]).await;
                assert!([500, 502, 503].contains(&answer.status), "{answer:?}");
            }
        };
        tokio::join!(down, clients);
        let checks = setup.edge.metric("pushgate_health_checks_total").await;
        // Ten intervals, 500 ms, in which good checks must not bring the node back.
        setup
            .edge
            .wait_metric("pushgate_health_checks_total", |n| n >= checks + 4.0)
            .await;
        assert_eq!(changes(&setup, "up").await, 0.0, "{path}: it swings");
        setup.wait_state("n1", "up").await;
        let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        assert_eq!(hello.status, 200);
    }
}

/// Aim (D61): flows that the edge itself ends do not count against their node, and counts from before a fall
/// do not count after the node's return. Fails if an evicted request counts as a failure of the node: the
/// node would fall because of its clients, be held Down, and evict again.
#[tokio::test(flavor = "multi_thread")]
async fn evicted_flows_do_not_count() {
    let keys = "interval: 20ms, timeout: 5s, rise: 1, fall: 1, passive: { failures: 3 }";
    let setup = checked(1, &format!("{{ http: {{ path: /health }}, {keys} }}")).await;
    let order = async |word| {
        let path = format!("/api/nodes/n1/{word}");
        assert_eq!(setup.edge.admin("POST", &path).await.status, 200, "{word}");
    };
    for (deed, downs) in [("evict", 0.0), ("down", 1.0), ("fail", 2.0)] {
        let mut polls = Vec::new();
        for n in 1..=5 {
            let mut poll = H1::connect(&setup.plain()).await;
            poll.send("GET", "/poll", &[], b"").await.expect("send");
            setup.nodes[0].wait("the poll", |s| s.open_now() == n).await;
            polls.push(poll);
        }
        if deed == "fail" {
            setup.nodes[0].set_health(Health::Fail);
        } else {
            order(deed).await;
        }
        for poll in &mut polls {
            let head = deadline("an answer", poll.head()).await.expect("an answer");
            assert_eq!(head.status, 502, "{deed}");
        }
        setup.nodes[0].set_health(Health::Ok);
        if deed == "down" {
            order("up").await;
        }
        setup.wait_state("n1", "up").await;
        let checks = setup.edge.metric("pushgate_health_checks_total").await;
        // Five more runs of the checker, each of which reads the passive health counters.
        let looked = |n| n >= checks + 5.0;
        setup
            .edge
            .wait_metric("pushgate_health_checks_total", looked)
            .await;
        assert_eq!(changes(&setup, "down").await, downs, "{deed}");
    }
}

/// Starts an edge whose layer-4 pool has one node and this `passive`.
async fn plain(passive: &str) -> (Block, Node, Edge) {
    let block = Block::claim();
    let node = setup::node(&block, 1).await;
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\n\
         pools: {{ p: {{ nodes: [n1], health: {{ tcp: {{}}, interval: 20ms, timeout: 5s, rise: 1, fall: 1, \
         passive: {passive} }} }} }}\n\
         listeners: [{{ name: l, bind: [200.0.0.10:80], mode: tcp, to: p }}]\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    (block, node, edge)
}

/// Connects clients one after the other; the node resets each before it sends a byte.
async fn are_reset(block: &Block, clients: impl Iterator<Item = u8>) {
    for n in clients {
        let dial = Dial::plain(block.at("200.0.0.10:80")).from(block.client(n));
        let mut client = H1::connect(&dial).await;
        client
            .send("GET", "/fault/reset", &[], b"")
            .await
            .expect("send");
        assert!(deadline("a reset", client.head()).await.is_err());
    }
}

/// Waits for five more runs of the checker, each of which reads the passive health counters.
async fn looked(edge: &Edge) {
    let checks = edge.metric("pushgate_health_checks_total").await;
    let more = |n| n >= checks + 5.0;
    edge.wait_metric("pushgate_health_checks_total", more).await;
}

/// Aim (D61), at both layers: one client whose every connection is reset does not take the node Down. Resets
/// of `failures` different clients do, unless another flow got an answer in between, though that flow goes
/// on. Fails if one client counts each time, or if a layer-4 flow counts as answered only when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn one_hostile_client_takes_no_node_down() {
    let (block, _node, edge) = plain("{ failures: 3 }").await;
    let downs = async || edge.metric("pushgate_node_changes_total").await;
    are_reset(&block, [7; 10].into_iter()).await;
    looked(&edge).await;
    assert_eq!(downs().await, 0.0, "one client");
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    let mut streams = Vec::new();
    for (round, resets) in [2, 2, 2, 2, 3].into_iter().enumerate() {
        let mut stream = H1::connect(&dial).await;
        // A first byte is counted when the second one arrives.
        stream.get("/hello", &[]).await;
        let path = "/sse?silent=1";
        stream.send("GET", path, &[], b"").await.expect("send");
        stream.head().await.expect("a head");
        streams.push(stream);
        assert_eq!(downs().await, 0.0, "others hear of it");
        let first = 10 * round as u8 + 10;
        are_reset(&block, first..first + resets).await;
        if resets == 2 {
            looked(&edge).await;
        }
    }
    edge.wait_log("node n1 is down: 3 flows in a row failed")
        .await;
    let keys = "interval: 20ms, timeout: 5s, rise: 1, fall: 1, passive: { failures: 3 }";
    let health = format!("{{ http: {{ path: /health }}, {keys} }}");
    // Behind a trusted proxy, the client that it announces counts, not the proxy.
    for trust in ["192.0.2.0/24", "127.0.0.0/8"] {
        let plugins = format!("[{{ forwarded: {{ trust: [{trust}] }} }}]");
        let setup = checked_with(1, &plugins, &health).await;
        let reset = async |client: u8| {
            let told = format!("203.0.113.{client}");
            let headers = [("X-Forwarded-For", told.as_str())];
            let mut client = H1::connect(&setup.plain()).await;
            client.get("/fault/reset", &headers).await.status
        };
        for _ in 0..10 {
            assert_eq!(reset(1).await, 502);
        }
        looked(&setup.edge).await;
        assert_eq!(changes(&setup, "down").await, 0.0, "one client");
        assert_eq!((reset(2).await, reset(3).await), (502, 502));
        match trust {
            "127.0.0.0/8" => setup.wait_state("n1", "down").await,
            _ => {
                looked(&setup.edge).await;
                assert_eq!(changes(&setup, "down").await, 0.0, "the sender names them");
            }
        }
    }
}
