//! Assignments that a table remembers hold at every edge, with the store, without it, and when it is back.
//!
//! In: clients without cookies, whose requests go to the edges in turn. Out: the node of each request.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::three::Three;
use crate::client::Dial;
use crate::client::h1::H1;
use crate::client::ws;
use crate::deadline;

const BY_ADDRESS: &str = "{ sticky_ip: { expiry: 1h } }";

/// Clients of a test; `PUSHGATE_TEST_CLIENTS` sets another number, at most 60,000.
fn clients() -> u16 {
    let count = std::env::var("PUSHGATE_TEST_CLIENTS").ok();
    count.map_or(120, |n| n.parse().expect("a number"))
}

/// The address of a client.
fn address(n: u16) -> Ipv4Addr {
    Ipv4Addr::new(127, 99, (n / 250) as u8, (n % 250) as u8 + 1)
}

/// Sends one request on a connection of its own; returns the node that answered.
pub async fn node_of(dial: &Dial, path: &str, headers: &[(&str, &str)]) -> String {
    let mut client = H1::connect(dial).await;
    let answer = client.get(path, headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
        .text()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The nodes of these clients at edge `n`, all at once.
async fn nodes_at(
    site: &Three,
    n: usize,
    clients: impl Iterator<Item = u16>,
) -> BTreeMap<u16, String> {
    let all = clients.map(|c| async move {
        let dial = site.dial(n).from(address(c));
        (c, node_of(&dial, "/hello", &[]).await)
    });
    join_all(all).await.into_iter().collect()
}

/// Waits until edge `n` says that of its store.
pub async fn state(site: &Three, n: usize, expected: &str) {
    let name = format!("pushgate_store_state{{state=\"{expected}\"}}");
    deadline(&format!("the store to be {expected} at edge {n}"), async {
        while site.edges[n].metrics().await.get(&name) != Some(&1.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Aim: clients that come to two edges in the same moment get one node, and every edge knows it afterwards. Nothing
/// in the store shows an address, and each key ends by itself. Fails if an edge decides without the store.
#[tokio::test(flavor = "multi_thread")]
async fn edges_agree_on_first_flows() {
    let site = Three::start(3, 3, BY_ADDRESS, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    let all = || 1..=clients();
    let (a, b) = tokio::join!(nodes_at(&site, 0, all()), nodes_at(&site, 1, all()));
    assert_eq!(a, b, "at the same moment");
    assert_eq!(a, nodes_at(&site, 2, all()).await, "later");
    let spread = a
        .values()
        .fold(BTreeMap::<_, usize>::new(), |mut all, node| {
            *all.entry(node).or_default() += 1;
            all
        });
    assert_eq!(spread.len(), 3, "{spread:?}");
    let keys = site.redis.ask(&["--scan", "--pattern", "pushgate:a:*"]);
    assert_eq!(keys.len(), usize::from(clients()));
    assert!(
        keys.iter()
            .all(|k| !k.contains("127") || k.len() == "pushgate:a:".len() + 32)
    );
    let left: i64 = site.redis.ask(&["PTTL", &keys[0]])[0]
        .parse()
        .expect("a number");
    assert!((3_500_000..=3_600_000).contains(&left), "{left} ms");
}

/// Aim: with the store stopped, killed and empty again, no flow waits long or is refused, and no client changes its
/// node. Clients that came meanwhile to different edges agree again when the store is back. Fails if a flow waits for
/// a store that is away, or if what was learned meanwhile is not told.
#[tokio::test(flavor = "multi_thread")]
async fn edges_go_on_without_the_store() {
    let mut site = Three::start(2, 3, BY_ADDRESS, "").await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    let old = || 1..=40;
    let known = nodes_at(&site, 0, old()).await;
    assert_eq!(known, nodes_at(&site, 1, old()).await);
    site.redis.pause(true);
    // Three wait for `wait` (1 s); then the edge knows that the store is slow.
    let begun = Instant::now();
    for c in 101..=110 {
        nodes_at(&site, 0, c..=c).await;
    }
    assert!(
        begun.elapsed() < Duration::from_millis(4_500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(known, nodes_at(&site, 1, old()).await, "stopped");
    site.redis.kill();
    state(&site, 0, "away").await;
    state(&site, 1, "away").await;
    let new = || 201..=240;
    let alone = nodes_at(&site, 0, new()).await;
    nodes_at(&site, 1, new()).await;
    assert_eq!(known, nodes_at(&site, 0, old()).await, "away");
    site.redis.again().await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    deadline("the edges to agree again", async {
        loop {
            let (a, b) = tokio::join!(nodes_at(&site, 0, new()), nodes_at(&site, 1, new()));
            if a == b {
                let kept = a.iter().filter(|(c, node)| alone[c] == **node).count();
                println!(
                    "{kept} of {} clients stayed at the node of the first edge",
                    a.len()
                );
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(known, nodes_at(&site, 0, old()).await, "back");
    assert_eq!(known, nodes_at(&site, 1, old()).await, "back");
    let keys = site.redis.ask(&["--scan", "--pattern", "pushgate:a:*"]);
    assert!(
        keys.len() >= 80,
        "{} keys: a store that restarts empty is filled",
        keys.len()
    );
}

/// Aim: the same by a value of the request, and by the id of a session, which an edge learns from the answer of a
/// node. Fails if an edge that has not seen the answer balances the session anew.
#[tokio::test(flavor = "multi_thread")]
async fn edges_agree_on_values_and_sessions() {
    let plugins =
        "{ sticky_session: { preset: diffusion } }, { sticky_param: { from: [{ query: user }] } }";
    let site = Three::start(3, 3, plugins, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    for user in 0..20 {
        let path = format!("/hello?user=u{user}");
        let dials = [
            site.dial(user % 3),
            site.dial((user + 1) % 3),
            site.dial((user + 2) % 3),
        ];
        let nodes = join_all(dials.iter().map(|dial| node_of(dial, &path, &[]))).await;
        assert!(nodes.iter().all(|n| *n == nodes[0]), "{user}: {nodes:?}");
    }
    for session in 0..20 {
        let cookie = format!("session=s{session}-00");
        let path = format!("/hello?cookie={cookie}");
        let began = node_of(&site.dial(session % 3), &path, &[]).await;
        // At another edge with the next request: the answer was on its way for as long.
        let nodes = join_all((0..3).map(|n| {
            let (dial, cookie) = (site.dial(n), cookie.clone());
            async move { node_of(&dial, "/hello", &[("Cookie", &cookie)]).await }
        }))
        .await;
        assert!(nodes.iter().all(|n| *n == nodes[0]), "{session}: {nodes:?}");
        assert_eq!(nodes[0], began);
    }
}

/// Aim: an assignment lives as long as a flow at any edge, and ends `expiry` after the last. Fails if an edge without
/// the flow lets the store forget it, or if the store keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_flow_keeps_its_assignment() {
    let site = Three::start(2, 3, "{ sticky_ip: { expiry: 3s } }", "").await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    let at = |n: usize, c| site.dial(n).from(address(c));
    let stream = ws::connect(&at(0, 1), "/ws/silent", &[]).await;
    nodes_at(&site, 0, 2..=2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let keys = site.redis.ask(&["--scan", "--pattern", "pushgate:a:*"]);
    assert_eq!(keys.len(), 1, "that of the client with a stream: {keys:?}");
    assert_eq!(node_of(&at(1, 1), "/hello", &[]).await, stream.node());
}

/// Aim: an assignment to a node that is Down is replaced, for every edge. Fails if edges go on with the old one, or
/// choose each its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_replaced_once() {
    let mut site = Three::start(3, 3, BY_ADDRESS, "").await;
    for n in 0..3 {
        state(&site, n, "ok").await;
    }
    let all = || 1..=30;
    let before = nodes_at(&site, 0, all()).await;
    assert_eq!(before, nodes_at(&site, 1, all()).await);
    drop(site.nodes.remove(0));
    for n in 0..3 {
        site.wait_node(n, "n1", "state", "down").await;
    }
    let (a, b) = tokio::join!(nodes_at(&site, 1, all()), nodes_at(&site, 2, all()));
    assert_eq!(a, b);
    assert!(a.values().all(|node| node != "n1"), "{a:?}");
    let stayed = before.iter().filter(|(_, node)| *node != "n1");
    assert!(
        stayed.clone().all(|(c, node)| a[c] == *node),
        "{before:?} {a:?}"
    );
}

/// Aim: a client that left a dead node while the store was away is at one node again when the store is back with its old
/// entries. Fails if the old entry, which nobody can use, is prolonged in place of the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_lost_with_the_store_is_replaced_once() {
    let mut site = Three::start(2, 3, BY_ADDRESS, "").await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    let all = || 1..=20;
    let before = nodes_at(&site, 0, all()).await;
    site.redis.pause(true);
    state(&site, 0, "away").await;
    drop(site.nodes.remove(0));
    for n in 0..2 {
        site.wait_node(n, "n1", "state", "down").await;
    }
    let alone = nodes_at(&site, 0, all()).await;
    site.redis.pause(false);
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    // The renewal of the first edge, which begins within a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(alone, nodes_at(&site, 1, all()).await, "{before:?} before");
    assert_eq!(alone, nodes_at(&site, 0, all()).await);
}
