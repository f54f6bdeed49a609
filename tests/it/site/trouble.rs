//! A store that answers late, takes nothing more, or is asked while a client is forgotten.
//!
//! In: clients whose flows begin at once. Out: the node of each, and what the edge says of its store.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::claims::{node_of, state};
use super::three::Three;
use crate::client::ws;
use crate::deadline;

const BY_ADDRESS: &str = "{ sticky_ip: { expiry: 1h } }";

/// Address of client `n`.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 98, 0, n)
}

/// The nodes that client `client` reaches with `flows` flows at once, by turns at edges 0 to `edges` - 1.
async fn together(site: &Three, client: u8, flows: usize, edges: usize) -> BTreeSet<String> {
    let all = (0..flows).map(|n| async move {
        let dial = site.dial(n % edges).from(address(client));
        node_of(&dial, "/hello", &[]).await
    });
    join_all(all).await.into_iter().collect()
}

/// Value of a counter of edge `n`; 0 if it has none.
async fn counter(site: &Three, n: usize, name: &str) -> f64 {
    let all = site.edges[n].metrics().await;
    all.get(name).copied().unwrap_or_default()
}

/// Waits until the store was asked for `command`, since its counters were reset.
async fn asked(site: &Three, command: &str) {
    let line = format!("cmdstat_{command}:");
    deadline(&line, async {
        let stats = || site.redis.ask(&["INFO", "commandstats"]);
        while !stats().iter().any(|l| l.starts_with(&line)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Aim: flows of a client that begin at once stay together although the store does not answer in time, and no later
/// flow leaves them. Edges that chose differently agree once the answers are there. Fails if a flow that has waited in
/// vain puts its own choice in the place of what the first one got.
#[tokio::test(flavor = "multi_thread")]
async fn flows_stay_together_when_answers_are_late() {
    let (site, gate) = Three::start_behind_gate(2, BY_ADDRESS, "200ms").await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    gate.hold(true);
    let begun = Instant::now();
    let clients = 1..=20;
    let nodes = join_all(clients.clone().map(|c| together(&site, c, 6, 1))).await;
    let took = begun.elapsed();
    let apart = nodes.iter().filter(|nodes| nodes.len() > 1).count();
    assert_eq!(apart, 0, "{nodes:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    // The other edge chooses alone too.
    join_all(clients.clone().map(|c| together(&site, c, 1, 2))).await;
    gate.hold(false);
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    deadline("the edges to agree", async {
        loop {
            let nodes = join_all(clients.clone().map(|c| together(&site, c, 4, 2))).await;
            if nodes.iter().all(|nodes| nodes.len() == 1) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Aim: ids that no edge knows do not make the store slow, with the `wait` of a site in production. Fails if the time
/// that an edge gives another to tell an id counts as the store's.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_sessions_do_not_make_the_store_slow() {
    let plugins = "{ sticky_session: { preset: diffusion } }, { sticky_ip: {} }";
    let (site, _gate) = Three::start_behind_gate(1, plugins, "5ms").await;
    state(&site, 0, "ok").await;
    for n in 0..100 {
        let cookie = format!("session=unknown{n}-00");
        let dial = site.dial(0).from(address(n + 1));
        node_of(&dial, "/hello", &[("Cookie", &cookie)]).await;
    }
    let late = counter(&site, 0, "pushgate_store_claims_total{result=\"late\"}").await;
    let unknown = counter(&site, 0, "pushgate_store_claims_total{result=\"unknown\"}").await;
    println!("{late} late, {unknown} unknown of 100");
    // A busy machine delays some by itself.
    assert!(late < 20.0, "{late} late");
    assert!(unknown > 80.0, "{unknown} unknown");
}

/// Aim: a store that has no memory for more still tells what it holds, nobody waits or is refused, and what it did not
/// take is told when it has room. Fails if a full store counts as away, or if a client that came meanwhile stays
/// unknown to the other edge.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_still_tells() {
    let (site, _gate) = Three::start_behind_gate(2, BY_ADDRESS, "200ms").await;
    state(&site, 0, "ok").await;
    state(&site, 1, "ok").await;
    let at = |n: usize, c| site.dial(n).from(address(c));
    let mut known = Vec::new();
    for c in 1..=20 {
        known.push(node_of(&at(0, c), "/hello", &[]).await);
    }
    site.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    state(&site, 0, "full").await;
    state(&site, 1, "full").await;
    let begun = Instant::now();
    for (c, node) in (1..=20).zip(&known) {
        assert_eq!(*node, node_of(&at(1, c), "/hello", &[]).await, "client {c}");
    }
    let mut new = Vec::new();
    for c in 101..=120 {
        new.push(node_of(&at(0, c), "/hello", &[]).await);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    site.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    state(&site, 0, "ok").await;
    deadline("the store to hold all", async {
        while site
            .redis
            .ask(&["--scan", "--pattern", "pushgate:a:*"])
            .len()
            < 40
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    state(&site, 1, "ok").await;
    for (c, node) in (101..=120).zip(&new) {
        assert_eq!(*node, node_of(&at(1, c), "/hello", &[]).await, "client {c}");
    }
}

/// Aim: a client that leaves while its edge asks leaves nothing behind: no flow, at no node. Fails if its place at the
/// chosen node stays taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_leaves_nothing() {
    let (site, gate) = Three::start_behind_gate(1, BY_ADDRESS, "1s").await;
    state(&site, 0, "ok").await;
    gate.hold(true);
    let leavers = (1..=10).map(|c| {
        let dial = site.dial(0).from(address(c));
        tokio::time::timeout(Duration::from_millis(200), async move {
            node_of(&dial, "/hello", &[]).await
        })
    });
    let all = join_all(leavers).await;
    assert!(all.iter().all(Result::is_err), "all waited: {all:?}");
    deadline("no flow", async {
        loop {
            let nodes = site.get(0, "/api/nodes").await;
            let mut flows = nodes.as_array().expect("nodes").iter();
            if flows.all(|n| n["flows"] == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    gate.hold(false);
}

/// Aim: a client that is forgotten while the edge fills an empty store stays forgotten. Fails if the edge writes what it
/// had remembered when it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_brings_nothing_back() {
    let (site, gate) = Three::start_behind_gate(1, "{ sticky_ip: { expiry: 3s } }", "1s").await;
    state(&site, 0, "ok").await;
    let dial = site.dial(0).from(address(1));
    let stream = ws::connect(&dial, "/ws/silent", &[]).await;
    let keys = || site.redis.ask(&["--scan", "--pattern", "pushgate:a:*"]);
    deadline("the claim", async {
        while keys().len() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // The question of a renewal finds nothing, and its answer is under way when the client is forgotten.
    gate.hold(true);
    site.redis.ask(&["FLUSHALL"]);
    site.redis.ask(&["CONFIG", "RESETSTAT"]);
    asked(&site, "getex").await;
    let node = stream.node();
    let order = format!("/api/pools/p/rebalance?from={node}&share=100%25&close&here");
    site.order(0, &order).await;
    asked(&site, "eval").await;
    gate.hold(false);
    // Longer than the rest of the renewal needs, shorter than `expiry`.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let values: Vec<_> = keys()
        .iter()
        .flat_map(|key| site.redis.ask(&["GET", key]))
        .collect();
    assert!(
        values.iter().all(|v| !v.starts_with(&format!("{node} "))),
        "{node}: {values:?}"
    );
}
