//! The first check of a node comes before its first flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Aim: no flow reaches a node before its first check has ended, at the start and after a reload, while
/// clients connect all the time. Fails if an unchecked node counts as Up.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_check_comes_before_the_first_flow() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let [hangs, well, late] = [1, 2, 3].map(|n| setup::node(&block, n));
    let (hangs, well, late) = tokio::join!(hangs, well, late);
    // If unchecked nodes were Up, this one would be Up as long as its check hangs, and an hour after that.
    hangs.set_health(Health::Hang);
    late.set_health(Health::Hang);
    let check = "{ http: { path: /health }, interval: 1h, timeout: 500ms, rise: 1, fall: 1 }";
    let yaml = |nodes| setup::yaml(&certs, nodes, "", "").replace(setup::HEALTH, check);
    let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    let knocking = tokio::spawn(async move {
        loop {
            match dial.try_tcp().await {
                Ok(stream) => {
                    let answer = H1::over(Box::new(stream))
                        .get("/hello", &[("Host", HOST)])
                        .await;
                    assert_eq!((answer.status, answer.node()), (200, "n2"));
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    let more = async || {
        let before = served.load(Ordering::Relaxed);
        deadline("flows", async {
            while served.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    let edge = Edge::start(&block, &yaml(2)).await;
    more().await;
    edge.rewrite(&block, &yaml(3));
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    let state = |n: &Value| n[2]["state"] == "down";
    edge.wait_nodes("n3 is down", state).await;
    more().await;
    assert!(!knocking.is_finished(), "{:?}", knocking.await);
    knocking.abort();
    for node in [&hangs, &late] {
        let seen = node.seen();
        assert!(seen.requests().is_empty() && !seen.connections.is_empty());
    }
    drop(well);
}
