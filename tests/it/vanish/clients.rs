//! Clients that vanish, of every protocol except plain HTTP/1.

use super::*;
use crate::client::{Tls, handshake};

const UPGRADE: &[(&str, &str)] = &[
    ("Host", HOST),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Aim: the edge notices a vanished client whatever it speaks: TLS, HTTP/2, layer 4, silent or busy. The flow
/// ends and its node's connection is closed. Fails if the edge does not watch a protocol's sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_let_go_whatever_it_speaks() {
    if skipped() {
        return;
    }
    let (host, block, certs) = (Host::new(), Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let node = node(&block, 1).await;
    let (here, dir) = (host.here, certs.dir().display());
    let rest = "to: p, tcp: { keepalive: 1s, user_timeout: 1s }";
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\npools: {{ p: {{ nodes: [n1] }} }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\nlisteners:\n\
         - {{ name: tls, bind: [{here}:8443], mode: http, tls: {{ certificates: [push] }}, {rest} }}\n\
         - {{ name: raw, bind: [{here}:8081], mode: tcp, {rest} }}\n"
    );
    let edge = Edge::start(&block, &yaml).await;
    let tls = |alpn| Tls {
        ca: certs.ca().clone(),
        sni: Some(HOST.into()),
        alpn,
    };
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for path in ["/ws/silent", "/ws/tick?every=20"] {
        let secure = handshake(host.connect((here, 8443).into(), None), &tls(b"")).await;
        let raw = host.connect((here, 8081).into(), None);
        for io in [Box::new(secure.expect("TLS")) as Box<dyn Io>, Box::new(raw)] {
            let mut client = H1::over(io);
            client.send("GET", path, UPGRADE, b"").await.expect("send");
            assert_eq!(client.head().await.expect("a head").status, 101);
            sockets.push(client);
        }
    }
    for path in ["/sse?silent=1", "/sse?every=20"] {
        let secure = handshake(host.connect((here, 8443).into(), None), &tls(b"\x02h2")).await;
        let mut h2 = H2::over(secure.expect("TLS"), "https", HOST).await;
        let answer = h2.open(path, &[]).await.expect("a head");
        streams.push((h2, answer));
    }
    edge.wait_nodes("six flows", |n| n[0]["flows"] == 6).await;
    host.swallow();
    let vanished = Instant::now();
    let lines = edge.wait_access("six ends", |l| l.len() == 6).await;
    println!("let go after {:?}", vanished.elapsed());
    let all = lines.iter().all(|l| l["reason"] == "client_failed");
    assert!(all, "{lines:?}");
    node.wait("no connection", |s| s.open_now() == 0).await;
    drop((sockets, streams));
}
