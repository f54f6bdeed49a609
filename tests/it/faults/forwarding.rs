//! D14, D15: headers in which a client claims an identity, or removes ours.
//!
//! Source: Lightstreamer clustering §1 ("X-Forwarded headers"); RFC 9110 §7.6.1; RFC 7239.

use crate::client::h1::H1;

use super::{Rig, Verdict, request};

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 }, n2: { address: 10.0.0.2:8080 } }
pools: { p: { nodes: [n1, n2], balance: round_robin } }
listeners:
  - name: push
    bind: [200.0.0.10:80]
    mode: http
    to: p
    plugins:
      - sticky_ip: {}
      - forwarded: { x_real_ip: true, forwarded: true }
  - name: trusting
    bind: [200.0.0.11:80]
    mode: http
    to: p
    plugins:
      - sticky_ip: { from: x_forwarded_for, trust: [CLIENT/32] }
      - forwarded: { x_real_ip: true, forwarded: true, trust: [CLIENT/32] }
";

/// Values of `field` in the last request that any node saw for `path`.
fn seen(rig: &Rig, path: &str, field: &str) -> Vec<String> {
    let all: Vec<_> = rig.nodes.iter().map(|n| n.seen()).collect();
    let mut requests = all.iter().flat_map(|s| s.requests());
    let found = requests.rfind(|r| r.target == path);
    found
        .unwrap_or_else(|| panic!("no node saw {path}"))
        .header(field)
}

async fn rig() -> (Rig, std::net::Ipv4Addr) {
    // The block's client addresses are not known yet; all are within 127.0.0.0/8.
    let yaml = YAML.replace("CLIENT/32", "127.0.0.0/8");
    let rig = Rig::start(2, &yaml).await;
    let client = rig.block.client(1);
    (rig, client)
}

/// D14: `Connection` cannot remove a header that the edge sets or routes by. Fails if the node gets such a
/// request without the header, or if the next hop is asked to remove it.
#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_name_our_headers() {
    let (mut rig, client) = rig().await;
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "Host"] {
        let bytes = request("GET", "/hello", &format!("Connection: {name}, close\r\n"));
        rig.judge(&format!("D14 {name}"), &bytes, Verdict::refused(400))
            .await;
    }
    let dial = rig.good.clone().from(client);
    for (n, lists) in [
        "Cookie",
        "x-real-ip",
        "PUSHGATE, X-Custom",
        "keep-alive, TE",
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/hello?n={n}");
        let headers = [("Connection", *lists), ("X-Forwarded-For", "6.6.6.6")];
        let answer = H1::connect(&dial).await.get(&path, &headers).await;
        assert_eq!(answer.status, 200, "{lists}");
        let own = client.to_string();
        assert_eq!(seen(&rig, &path, "x-forwarded-for"), [own.as_str()]);
        assert_eq!(seen(&rig, &path, "x-real-ip"), [own.as_str()]);
        let told = seen(&rig, &path, "connection").join(",").to_lowercase();
        assert!(!told.contains("cookie") && !told.contains("x-"), "{told}");
    }
    rig.rest().await;
}

/// D15: no identity that an untrusted client claims reaches a node. Fails if one spelling does.
#[tokio::test(flavor = "multi_thread")]
async fn untrusted_clients_cannot_speak_for_others() {
    let (mut rig, client) = rig().await;
    let dial = rig.good.clone().from(client);
    let thousand = vec!["6.6.6.6"; 1000].join(", ");
    let rows: &[(&str, &str)] = &[
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-For", &thousand),
        ("x_forwarded_for", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Forwarded-Host", "6.6.6.6"),
        ("X-Forwarded-Proto", "6.6.6.6"),
        ("X-Forwarded-Port", "6.6.6.6"),
        ("X-Forwarded-Server", "6.6.6.6"),
    ];
    for (n, (name, value)) in rows.iter().enumerate() {
        let path = format!("/hello?n={n}");
        let answer = H1::connect(&dial).await.get(&path, &[(name, value)]).await;
        assert_eq!(answer.status, 200, "{name}");
        let all: Vec<_> = rig.nodes.iter().map(|n| n.seen()).collect();
        let mut requests = all.iter().flat_map(|s| s.requests());
        let request = requests.rfind(|r| r.target == path);
        let text = request.expect("a node saw it").text();
        assert!(!text.contains("6.6.6.6"), "{name}: {text}");
        assert_eq!(seen(&rig, &path, "x-forwarded-for"), [client.to_string()]);
    }
    rig.rest().await;
}

/// D15: stickiness ignores headers of an untrusted client and follows those of a trusted sender. Fails if one
/// client reaches both nodes by changing a header.
#[tokio::test(flavor = "multi_thread")]
async fn stickiness_follows_only_the_trusted() {
    let (mut rig, client) = rig().await;
    let dial = rig.good.clone().from(client);
    let mut nodes = std::collections::BTreeSet::new();
    for n in 0..8 {
        let told = format!("6.6.6.{n}");
        let headers = [
            ("X-Forwarded-For", told.as_str()),
            ("Forwarded", "for=7.7.7.7"),
        ];
        let answer = H1::connect(&dial).await.get("/hello", &headers).await;
        nodes.insert(answer.node().to_owned());
    }
    assert_eq!(nodes.len(), 1, "untrusted: {nodes:?}");
    let mut dial = rig.good.clone().from(client);
    dial.to = rig.block.at("200.0.0.11:80");
    let mut by_client = Vec::new();
    for n in 0..4 {
        let told = format!("6.6.6.{n}");
        let mut nodes = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let path = format!("/hello?t={n}");
            let headers = [("X-Forwarded-For", told.as_str())];
            let answer = H1::connect(&dial).await.get(&path, &headers).await;
            nodes.insert(answer.node().to_owned());
            let both = [format!("{told}, {client}")];
            assert_eq!(seen(&rig, &path, "x-forwarded-for"), both);
        }
        assert_eq!(nodes.len(), 1, "{told}: {nodes:?}");
        by_client.extend(nodes);
    }
    by_client.sort();
    assert_eq!(
        by_client,
        ["n1", "n1", "n2", "n2"],
        "balanced by the told address"
    );
    for odd in ["", ",", "unknown", "-1", "6.6.6.6:80", "[::1]", ", , ,"] {
        let headers = [("X-Forwarded-For", odd)];
        let answer = H1::connect(&dial).await.get("/hello", &headers).await;
        assert_eq!(answer.status, 200, "{odd:?}");
    }
    rig.rest().await;
}
