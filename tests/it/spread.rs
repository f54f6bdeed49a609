//! Clients on the data threads: each thread has its share, whatever the listener, and after clients have
//! left.
//!
//! In: clients that stay connected, one by one and all at once. Out: connections of each thread, from the
//! metric. Source: issue "accept on the data threads"; docs/decisions/0018-accept-on-data-threads.md.

use std::collections::BTreeMap;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::setup::{self, HOST};
use crate::vip::Block;

/// Data threads of the edge.
const THREADS: usize = 4;
/// After a burst, a thread may have this many connections more than another.
const LEAD: u64 = 8;

/// Waits for `total` connections; returns those of each data thread.
async fn split(edge: &Edge, total: u64) -> Vec<u64> {
    deadline("all connections on their threads", async {
        loop {
            let metrics: BTreeMap<String, f64> = edge.metrics().await;
            let of = |n: usize| {
                let name = format!("pushgate_thread_connections{{thread=\"data-{n}\"}}");
                metrics.get(&name).copied().unwrap_or_default() as u64
            };
            let split: Vec<u64> = (0..THREADS).map(of).collect();
            if split.iter().sum::<u64>() == total {
                return split;
            }
        }
    })
    .await
}

fn gap(split: &[u64]) -> u64 {
    let (least, most) = (split.iter().min(), split.iter().max());
    most.zip(least).map_or(0, |(most, least)| most - least)
}

/// Connects a client that is served and keeps its connection.
async fn come(dial: &Dial) -> H1 {
    let mut client = H1::connect(dial).await;
    assert_eq!(client.get("/hello", &[]).await.status, 200);
    client
}

/// Aim: clients that arrive one by one are spread evenly. After a burst no thread has 8 more than another. A
/// thread whose clients left gets the next ones. This holds for plain, layer 4, and TLS, which comes from
/// other threads. Fails if the quickest thread accepts, or if the turn stays on one thread.
#[tokio::test(flavor = "multi_thread")]
async fn each_thread_has_its_share() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let _node = setup::node(&block, 1).await;
    let yaml = setup::yaml(&certs, 1, "", "")
        + &format!(
            "  - {{ name: tcp, bind: [200.0.0.11:80], mode: tcp, to: p }}\nthreads: {THREADS}\n"
        );
    let edge = Edge::start(&block, &yaml).await;
    let plain = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let layer4 = Dial::plain(block.at("200.0.0.11:80")).host(HOST);
    let tls = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    for (name, dial) in [("plain", plain), ("layer 4", layer4), ("TLS", tls)] {
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(come(&dial).await);
        }
        let slow = split(&edge, 40).await;
        assert!(gap(&slow) <= 1, "{name}: {slow:?}");
        let burst: Vec<_> = (0..120)
            .map(|_| {
                let dial = dial.clone();
                tokio::spawn(async move { come(&dial).await })
            })
            .collect();
        for client in burst {
            clients.push(client.await.expect("served"));
        }
        let burst = split(&edge, 160).await;
        println!("{name}: {slow:?}, then {burst:?}");
        assert!(gap(&burst) <= LEAD, "{name}: {burst:?}");
        // Some threads lose more than others.
        let mut n = 0;
        clients.retain(|_| {
            n += 1;
            n % 3 == 0
        });
        let left = split(&edge, clients.len() as u64).await;
        for _ in 0..gap(&left) * THREADS as u64 {
            clients.push(come(&dial).await);
        }
        let again = split(&edge, clients.len() as u64).await;
        assert!(gap(&again) <= 2, "{name}: {left:?}, then {again:?}");
        drop(clients);
        split(&edge, 0).await;
    }
}
