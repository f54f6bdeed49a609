//! Certificates replaced under load, again and again, also by bad ones.
//!
//! In: clients that shake hands without pause, reloads by SIGHUP and by the admin endpoint, broken files.
//! Out: no failed handshake, the right certificate after each reload, flat memory. `PUSHGATE_TEST_RELOADS`
//! sets the rounds. Source: FAULTS D36.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openssl::x509::X509;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;
use crate::{deadline, tls_node};

const HOST: &str = "push.mycompany.com";
/// Rounds by default.
const ROUNDS: usize = 24;
/// Clients that shake hands at the same time.
const CLIENTS: usize = 4;
/// More is a leak, whatever the number of rounds: a reload that kept its certificates would take about 28 KiB
/// each time.
const GROWTH_BYTES: u64 = 12 * 1024 * 1024;

/// Handshakes so far, and whether to go on.
#[derive(Default)]
struct Shaken {
    good: AtomicUsize,
    ended: AtomicBool,
}

/// Connects one client after the other, each verified and served; panics at the first failure.
async fn clients(dial: Dial, shaken: Arc<Shaken>) {
    while !shaken.ended.load(Ordering::Relaxed) {
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!(answer.status, 200);
        shaken.good.fetch_add(1, Ordering::Relaxed);
    }
}

/// A leaf with its key in one file, so that both are replaced in one step.
fn whole(certs: &Certs, word: &str) -> (Vec<u8>, Vec<u8>) {
    let leaf = certs.leaf(word, &[HOST], Key::Ecdsa);
    let read = |path: &Path| std::fs::read(path).expect("a file of the test");
    let pem = [read(&leaf.chain), read(&leaf.key)].concat();
    let der = X509::from_pem(&pem).and_then(|leaf| leaf.to_der());
    (pem, der.expect("DER"))
}

fn replace(file: &Path, bytes: &[u8]) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, bytes).expect("write");
    std::fs::rename(&fresh, file).expect("rename");
}

/// Aim: D36. Fails if a reload leaves a moment without a certificate, if a bad file is applied or removes the
/// old certificate, or if replaced certificates stay in memory.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_disturb_nobody() {
    let rounds = std::env::var("PUSHGATE_TEST_RELOADS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let (block, certs) = (Block::claim(), Certs::new());
    let generations = [whole(&certs, "one"), whole(&certs, "two")];
    let file = certs.dir().join("served.pem");
    replace(&file, &generations[1].0);
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n  \
         served: {{ chain: {0}, key: {0} }}\nlisteners:\n  \
         - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [served] }} }}\n",
        file.display()
    );
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &yaml).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    let shaken = Arc::new(Shaken::default());
    let mut live = H1::connect(&dial).await;
    let loops: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(clients(dial.clone(), shaken.clone())))
        .collect();
    let mut settled = 0;
    for round in 0..rounds {
        let (pem, der) = &generations[round % 2];
        if round % 6 == 5 {
            replace(&file, b"half a fi");
            assert_eq!(edge.admin("POST", "/api/reload").await.status, 422);
            let old = &generations[(round + 1) % 2].1;
            assert!(tls_node::shown(&dial).await == *old, "the old one stays");
        }
        replace(&file, pem);
        if round % 2 == 0 {
            edge.signal(libc::SIGHUP);
        } else {
            assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
        }
        deadline("the new certificate", async {
            while tls_node::shown(&dial).await != *der {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        if round == rounds / 3 {
            settled = edge.rss();
        }
    }
    shaken.ended.store(true, Ordering::Relaxed);
    for one in loops {
        one.await.expect("every handshake succeeds");
    }
    assert_eq!(live.get("/hello", &[]).await.status, 200, "live goes on");
    let (good, now) = (shaken.good.load(Ordering::Relaxed), edge.rss());
    println!("{rounds} reloads, {good} handshakes, {settled} then {now} bytes");
    assert!(good > rounds, "{good} handshakes");
    assert!(now < settled + GROWTH_BYTES, "{settled} then {now} bytes");
}
