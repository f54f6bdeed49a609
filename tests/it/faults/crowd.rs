//! D58: one address with more flows than allowed. Source: issue 6; RFC 6585 §4.

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

/// D58: the fourth flow of an address gets 429 with Retry-After, also as a stream of one HTTP/2 connection;
/// at layer 4 it is closed. Other addresses are served, and so is this one after a flow has ended. Fails if
/// connections are counted instead of flows, or all clients together.
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

/// Behind a trusted proxy, each client that it announces has its own limit, over HTTP/1 and HTTP/2. An
/// untrusted sender counts as itself, whatever it announces. Fails if the proxy counts as the client, if
/// every sender is believed, or if the streams of a proxy's connection are not counted.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_trusted_proxy_are_counted_one_by_one() {
    let certs = Certs::new();
    certs.leaf("push", &["push.mycompany.com"], Key::Ecdsa);
    for (trust, believed) in [("127.0.0.0/8", true), ("192.0.2.0/24", false)] {
        let plugins =
            format!("max_flows_per_client: 3, plugins: [{{ forwarded: {{ trust: [{trust}] }} }}]");
        let limit = "max_flows_per_client: 3";
        let yaml = yaml(&certs).replacen(limit, &plugins, 1);
        let (before, rest) = yaml.split_once("name: tls").expect("the TLS listener");
        let yaml = format!("{before}name: tls{}", rest.replacen(limit, &plugins, 1));
        let mut rig = Rig::start(1, &yaml).await;
        let (a, b) = (
            [("X-Forwarded-For", "203.0.113.1")],
            [("X-Forwarded-For", "203.0.113.2")],
        );
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(ws::connect(&rig.good, "/ws/silent", &a).await);
        }
        let fourth = H1::connect(&rig.good).await.get("/hello", &a).await;
        assert_eq!(fourth.status, 429, "{trust}");
        let other = H1::connect(&rig.good).await.get("/hello", &b).await;
        assert_eq!(other.status == 200, believed, "{trust}: {}", other.status);

        let at = rig.block.at("200.0.0.10:443");
        let tls = Dial::tls(at, "push.mycompany.com", certs.ca());
        let mut client = H2::connect(&tls).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let headers = [("x-forwarded-for", a[0].1)];
            streams.push(
                client
                    .open("/sse?silent=1", &headers)
                    .await
                    .expect("a head"),
            );
        }
        let fourth = client.get("/hello", &[("x-forwarded-for", a[0].1)]).await;
        assert_eq!(fourth.status(), 429, "{trust}, HTTP/2");
        let other = client
            .get("/hello", &[("x-forwarded-for", "203.0.113.2")])
            .await;
        assert_eq!(other.status() == 200, believed, "{trust}, HTTP/2");
        drop((held, streams, client));
        rig.rest().await;
    }
}
