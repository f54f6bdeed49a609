//! What edges of a site agree on over HTTP/2 and at layer 4, over time, and across changes of the configuration.
//!
//! In: clients at two edges, orders, reloads. Out: the node of each client.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::future::join_all;

use super::claims::{node_of, state};
use super::three::Three;
use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::setup::HOST;

/// Address of client `n`.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 97, 0, n)
}

/// The node of each client at edge `edge`, all at once.
async fn nodes_at(
    site: &Three,
    edge: usize,
    clients: std::ops::RangeInclusive<u8>,
) -> BTreeMap<u8, String> {
    let all = clients.map(|c| async move {
        let dial = site.dial(edge).from(address(c));
        (c, node_of(&dial, "/hello", &[]).await)
    });
    join_all(all).await.into_iter().collect()
}

/// Waits until edges 0 and 1 send each client to the same node; returns the nodes.
async fn agreed(site: &Three, clients: std::ops::RangeInclusive<u8>) -> BTreeMap<u8, String> {
    deadline("two edges to agree", async {
        loop {
            let (a, b) = tokio::join!(
                nodes_at(site, 0, clients.clone()),
                nodes_at(site, 1, clients.clone())
            );
            if a == b {
                return a;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

async fn serves(site: &Three) {
    for n in 0..site.edges.len() {
        state(site, n, "ok").await;
    }
}

/// The node of a client at layer 4: its connection goes to one node, whatever the edge knows of requests.
async fn at_layer4(dial: &Dial) -> String {
    let mut client = H1::connect(dial).await;
    let answer = client.get("/hello", &[]).await;
    answer
        .text()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Aim: first flows at two edges at once agree over HTTP/2 and at layer 4 too. Fails if one of the ways to a node
/// does not ask the other edges.
#[tokio::test(flavor = "multi_thread")]
async fn all_layers_agree() {
    let certs = Certs::new();
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let dir = certs.dir().display().to_string();
    let more = format!(
        "  - {{ name: tls, bind: [200.0.0.10:443], mode: http, tls: {{ certificates: [push] }}, to: p, plugins: [{{ sticky_ip: {{}} }}] }}\n  \
           - {{ name: tcp, bind: [200.0.0.10:81], mode: tcp, to: p, plugins: [{{ sticky_ip: {{}} }}] }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n"
    );
    let site = Three::start_with(2, "{ sticky_ip: {} }", &more).await;
    serves(&site).await;
    let h2 = |edge: usize, c: u8| {
        let to = site.dial_at(edge, 443).to;
        let dial = Dial::tls(to, HOST, certs.ca()).from(address(c));
        async move {
            let answer = H2::connect(&dial).await.get("/hello", &[]).await;
            let text = String::from_utf8(answer.into_body()).expect("text");
            text.split(' ').next().unwrap_or_default().to_owned()
        }
    };
    let tcp = |edge: usize, c: u8| {
        let dial = site.dial_at(edge, 81).from(address(c));
        async move { at_layer4(&dial).await }
    };
    let mut differ = Vec::new();
    for c in 1..=40 {
        let (a, b, x, y) = tokio::join!(h2(0, c), h2(1, c), tcp(0, c), tcp(1, c));
        if a != b || x != y {
            differ.push((c, [a, b, x, y]));
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
}

/// Aim: the age of an assignment counts from its first flow at any edge; when its maximum is over, no edge and not the
/// store bring it back. Fails if an edge that was told counts from then, or if the store keeps what is too old.
#[tokio::test(flavor = "multi_thread")]
async fn a_maximum_age_holds_for_the_site() {
    let site = Three::start(3, 3, "{ sticky_ip: { max_age: 4s } }", "").await;
    serves(&site).await;
    let clients = 1..=30;
    let began = std::time::Instant::now();
    let first = nodes_at(&site, 0, clients.clone()).await;
    tokio::time::sleep_until((began + Duration::from_millis(2_500)).into()).await;
    assert_eq!(first, nodes_at(&site, 1, clients.clone()).await, "told");
    // Live flows let an entry stay, and renewals tell it again.
    let dial = site.dial(1).from(address(1));
    let _stream = ws::connect(&dial, "/ws/silent", &[]).await;
    tokio::time::sleep_until((began + Duration::from_millis(4_600)).into()).await;
    let (a, b) = tokio::join!(
        nodes_at(&site, 0, clients.clone()),
        nodes_at(&site, 1, clients.clone())
    );
    assert_eq!(a, b, "anew");
    let moved = a.iter().filter(|(c, node)| first[c] != **node).count();
    assert!(moved > 0, "all were assigned to the node of before");
    assert_eq!(a, nodes_at(&site, 2, clients).await, "later");
}

/// Aim: clients that one edge forgets while another asks are at one node afterwards, assigned after the order. Fails if
/// the answer under way, or a renewal, brings back what was forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_forget_beats_what_is_under_way() {
    let (site, gate) = Three::start_behind_gate(2, "{ sticky_ip: { expiry: 3s } }", "1s").await;
    serves(&site).await;
    nodes_at(&site, 0, 1..=30).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.hold(true);
    let ordered = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = site.order(0, "/api/pools/p/forget").await;
        gate.hold(false);
        answer
    };
    // The answers of the store are under way when the order comes.
    let began = pushgate::clock::wall();
    tokio::join!(nodes_at(&site, 1, 1..=30), ordered);
    agreed(&site, 1..=30).await;
    // Longer than a renewal needs.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    agreed(&site, 1..=30).await;
    let keys = site.redis.ask(&["--scan", "--pattern", "pushgate:a:*"]);
    assert_eq!(keys.len(), 30);
    let began = began
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    for key in keys {
        let value = site.redis.ask(&["GET", &key]).join("");
        let assigned: u128 = value
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a value");
        assert!(
            assigned >= began.as_millis(),
            "{value}: {} ms old",
            began.as_millis() - assigned
        );
    }
}

/// Aim: an edge that does not have a client's node replaces it once, for all edges, and the log says so once. Fails if
/// two edges go on with different nodes, or a line is written for each flow.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_one_edge_lacks_is_replaced() {
    let site = Three::start(2, 3, "{ sticky_ip: {} }", "").await;
    serves(&site).await;
    let fewer = site
        .yaml(1, "")
        .replace("nodes: [n1, n2, n3]", "nodes: [n1, n2]");
    site.reload_with(1, &fewer).await;
    let first = nodes_at(&site, 0, 1..=30).await;
    assert!(first.values().any(|node| node == "n3"));
    let second = nodes_at(&site, 1, 1..=30).await;
    for (c, node) in &first {
        assert!(
            node == "n3" || second[c] == *node,
            "client {c}: {node}, {}",
            second[c]
        );
    }
    for _ in 0..3 {
        assert_eq!(second, nodes_at(&site, 0, 1..=30).await);
        assert_eq!(second, nodes_at(&site, 1, 1..=30).await);
    }
    let log = site.edges[1].log();
    let lines = log
        .lines()
        .filter(|l| l.contains("another edge has sent clients"));
    assert_eq!(lines.count(), 1, "{log}");
}

/// Aim: reloads that take the plugin away and bring it back, also while the store is gone, leave edges that agree.
/// Fails if an edge goes on with a table that its file no longer has, or does not join with the new one.
#[tokio::test(flavor = "multi_thread")]
async fn edges_agree_across_reloads() {
    let mut site = Three::start(2, 3, "{ sticky_ip: {} }", "").await;
    serves(&site).await;
    let known = nodes_at(&site, 0, 1..=20).await;
    let without = site
        .yaml(0, "")
        .replace("plugins: [{ sticky_ip: {} }]", "plugins: []");
    site.reload_with(0, &without).await;
    nodes_at(&site, 0, 1..=20).await;
    site.reload(0, "").await;
    assert_eq!(known, nodes_at(&site, 0, 1..=20).await, "from the store");
    site.redis.kill();
    state(&site, 0, "away").await;
    site.reload_with(0, &without).await;
    site.reload(0, "").await;
    nodes_at(&site, 0, 21..=40).await;
    site.redis.again().await;
    serves(&site).await;
    agreed(&site, 1..=40).await;
}

/// Aim: where the store's late answer contradicts a live flow, the flow stays, and the client's next flow goes where
/// the first edge sent the client. Fails if the late answer is lost, or closes what lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_moves_the_next_flow() {
    let (site, gate) = Three::start_behind_gate(2, "{ sticky_ip: {} }", "200ms").await;
    serves(&site).await;
    gate.hold(true);
    let first = nodes_at(&site, 0, 1..=20).await;
    let streams = (1..=20).map(|c| {
        let dial = site.dial(1).from(address(c));
        async move { ws::connect(&dial, "/ws/echo", &[]).await }
    });
    let mut streams = join_all(streams).await;
    gate.hold(false);
    serves(&site).await;
    let contradicted = (1..=20).zip(&streams).filter(|(c, s)| first[c] != s.node());
    assert!(contradicted.count() > 0, "both edges chose the same");
    assert_eq!(first, agreed(&site, 1..=20).await);
    for stream in &mut streams {
        stream.say("still here").await;
        assert_eq!(stream.hear().await, "still here");
    }
}
