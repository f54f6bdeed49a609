//! D58: one address with more flows than it may have. Source: issue 6; RFC 6585 §4.

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::client::{Dial, ws};
use crate::deadline;

use super::Rig;

fn yaml(certs: &Certs) -> String {
    let dir = certs.dir().display();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\npools: {{ p: {{ nodes: [n1] }} }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\nlisteners:\n  \
         - {{ name: push, bind: [200.0.0.10:80], mode: http, to: p, max_flows_per_client: 3 }}\n  \
         - {{ name: tls, bind: [200.0.0.10:443], mode: http, to: p, max_flows_per_client: 3, \
         tls: {{ certificates: [push] }} }}\n  \
         - {{ name: tcp, bind: [200.0.0.11:80], mode: tcp, to: p, max_flows_per_client: 3 }}\n"
    )
}

/// D58: the fourth flow of an address is answered 429 with Retry-After, also as a stream of one HTTP/2
/// connection, or closed at layer 4; other addresses are served, and so is this one when a flow has ended.
/// Fails if connections are counted, or all clients together.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_no_more_flows_than_it_may() {
    let certs = Certs::new();
    certs.leaf("push", &["push.mycompany.com"], Key::Ecdsa);
    let mut rig = Rig::start(1, &yaml(&certs)).await;
    let plain = rig.good.clone().from(rig.block.client(1));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(ws::connect(&plain, "/ws/silent", &[]).await);
    }
    let fourth = H1::connect(&plain).await.get("/hello", &[]).await;
    assert_eq!(fourth.status, 429);
    let after = fourth.header("retry-after").and_then(|v| v.parse().ok());
    assert!(after.is_some_and(|s: u32| (1..=60).contains(&s)));
    let told = |lines: &[serde_json::Value]| lines.iter().any(|l| l["reason"] == "client_limit");
    rig.edge.wait_access("client_limit", told).await;
    let other = rig.good.clone().from(rig.block.client(2));
    let served = H1::connect(&other).await.get("/hello", &[]).await;
    assert_eq!(served.status, 200);
    held.pop();
    let freed = async { while H1::connect(&plain).await.get("/hello", &[]).await.status != 200 {} };
    deadline("the seat", freed).await;

    let tls = Dial::tls(
        rig.block.at("200.0.0.10:443"),
        "push.mycompany.com",
        certs.ca(),
    );
    let mut client = H2::connect(&tls).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.open("/sse?silent=1", &[]).await.expect("a head"));
    }
    assert_eq!(client.get("/hello", &[]).await.status().as_u16(), 429);

    let layer4 = Dial::plain(rig.block.at("200.0.0.11:80"));
    let mut flows = Vec::new();
    for _ in 0..3 {
        flows.push(ws::connect(&layer4, "/ws/silent", &[]).await);
    }
    assert!(H1::connect(&layer4).await.ended().await, "closed");
    drop((held, streams, client, flows));
    rig.rest().await;
}
