//! Lookups that fail, are forged, or get no answer (FAULTS D66): the edge keeps the nodes it has.

use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::rig::{NAME, Rig, ips, node, yaml};
use super::server::{Dns, Says};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::vip::Block;

/// Aim: D66. No such name, no records, a failing server, silence, impossible addresses: each is counted and
/// logged once, the last good answer stays, and the edge goes on serving. Fails if a failed lookup empties
/// the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_lookup_changes_nothing() {
    let (rig, _nodes) = Rig::start(&[1], "0s").await;
    rig.wait("one node", &[(1, "up")]).await;
    let faults = [
        (
            "no_name",
            Says::Code(ResponseCode::NXDomain),
            "no such name",
        ),
        ("empty", Says::Hosts(Vec::new(), 1), "no such records"),
        (
            "server",
            Says::Code(ResponseCode::ServFail),
            "the DNS server answered",
        ),
        ("timeout", Says::Silence, "no answer in time"),
        (
            "unusable",
            Says::Hosts(vec![[0, 0, 0, 0].into(), [224, 0, 0, 1].into()], 1),
            "2 records",
        ),
    ];
    for (result, says, words) in faults {
        rig.dns.says(NAME, says);
        rig.wait_result(result).await;
        rig.edge.wait_log(words).await;
        rig.dns.wait_asked(2).await;
        rig.wait(result, &[(1, "up")]).await;
        assert_eq!(rig.served().await, "n1", "{result}");
        let said = format!("push.internal:8080: {words}");
        let shown = rig.edge.admin("GET", "/api/discovery").await.text();
        assert!(shown.contains(words), "{result}: {shown}");
        let lines = rig.edge.log().lines().filter(|l| l.contains(words)).count();
        assert_eq!(lines, 1, "{said}");
        rig.hosts(&[1]);
        rig.edge.wait_log("answered again").await;
    }
    assert!(!rig.edge.log().contains("panicked"));
}

/// Aim: D66, "spoofed". An answer with another id is ignored, and loopback addresses are left out unless
/// allowed. Fails if ids are not compared, or if `allow` is ignored.
#[tokio::test(flavor = "multi_thread")]
async fn forged_answers_are_not_believed() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    let all = ips(&block, &[9, 1]);
    dns.says(NAME, Says::Forged(all[0], all[1]));
    let _one = node(&block, 1).await;
    let rig = Rig::with(block, dns, "host: push.internal:8080", "", "").await;
    rig.wait("the true node", &[(1, "up")]).await;
    rig.dns.wait_asked(3).await;
    rig.wait("the true node alone", &[(1, "up")]).await;
    let strict =
        yaml(&rig.dns, "host: push.internal:8080", "", "").replace("127.0.0.0/8", "192.0.2.0/24");
    rig.edge.rewrite(&rig.block, &strict);
    assert_eq!(rig.edge.admin("POST", "/api/reload").await.status, 200);
    rig.wait_result("unusable").await;
    rig.wait("the last good answer", &[(1, "up")]).await;
}

/// Aim: without DNS the edge starts, answers 503 with Retry-After, is not ready, and gets its nodes when DNS
/// answers. The same holds for a node's host name. Fails if the start needs DNS.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_starts_without_dns() {
    let block = Block::claim();
    let dns = Dns::start(&block).await;
    dns.says(NAME, Says::Silence);
    let top =
        "nodes: { named: { address: push.internal:8080 }, fixed: { address: 10.0.0.1:8080 } }\n";
    let other = "  - { name: other, bind: [200.0.0.20:80], mode: http, to: named }\n";
    let text = yaml(
        &dns,
        "host: push.internal:8080",
        "",
        &format!("{other}{top}"),
    );
    let edge = Edge::start_unready(&block, &text).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.mycompany.com");
    let named = Dial::plain(block.at("200.0.0.20:80")).host("push.mycompany.com");
    for dial in [&dial, &named] {
        let answer = H1::connect(dial).await.get("/hello", &[]).await;
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(edge.admin("GET", "/readyz").await.status, 503);
    let _one = node(&block, 1).await;
    dns.hosts(NAME, &ips(&block, &[1]));
    edge.wait_nodes("nodes", |nodes| nodes.as_array().map(Vec::len) == Some(3))
        .await;
    for dial in [&dial, &named] {
        let served = async {
            while H1::connect(dial).await.get("/hello", &[]).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        deadline("a node that serves", served).await;
    }
    assert_eq!(edge.admin("GET", "/readyz").await.status, 200);
}
