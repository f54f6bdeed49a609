//! TLS towards clients and nodes: choice of certificate, misdirected requests, client certificates, renewal,
//! TLS to nodes, redirects.
//!
//! In: certificates made for the test. Out: proof by real handshakes with the program. Source: Lightstreamer
//! clustering §3; RFC 9110 §15.5.20; FAULTS D31, D36, D37.

use serde_json::Value;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::edge::Edge;
use crate::node::Node;
use crate::tls_node::Manner;
use crate::vip::Block;
use crate::{deadline, tls_node};

/// A listener with `tls`, two nodes and a route for each host.
fn yaml(certs: &Certs, tls: &str, plugins: &str) -> String {
    let dir = certs.dir().display();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
         pools: {{ p: {{ nodes: [n1] }} }}\n\
         certificates:\n  a: {{ chain: {dir}/a.pem, key: {dir}/a.key }}\n  \
         b: {{ chain: {dir}/b.pem, key: {dir}/b.key }}\n\
         listeners:\n  - name: push\n    bind: [200.0.0.10:443]\n    mode: http\n    to: p\n    \
         tls: {tls}\n    plugins: {plugins}\n"
    )
}

const ROUTES: &str =
    "[{ host_route: { hosts: { push1.a.example: n1, push2.a.example: n2, b.example: n2 } } }]";

/// Aim: over one HTTP/2 connection under a wildcard certificate, each request goes to its own host's node. A
/// host that the certificate does not cover gets 421, as over HTTP/1.1; a host without a route does not.
/// Source: RFC 9110 §15.5.20, RFC 9113 §9.1.1. Fails without `is_misdirected`, or if a connection is routed
/// by its first request.
#[tokio::test(flavor = "multi_thread")]
async fn a_coalesced_request_goes_to_its_own_node_or_is_misdirected() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("a", &["*.a.example"], Key::Ecdsa);
    certs.leaf("b", &["b.example"], Key::Rsa);
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _n2 = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let _edge = Edge::start(&block, &yaml(&certs, "{ certificates: [a, b] }", ROUTES)).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), "push1.a.example", certs.ca());
    let mut h2 = H2::connect(&dial).await;
    for (host, status, node) in [
        ("push1.a.example", 200, "n1"),
        ("push2.a.example", 200, "n2"),
        ("b.example", 421, ""),
        ("nobody.example", 200, "n1"),
        ("push2.a.example", 200, "n2"),
    ] {
        let answer = h2.open_at(host, "/hello", &[]).await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
        let mut body = answer.into_body();
        let piece = crate::client::h2::piece(&mut body).await;
        let text = piece.and_then(Result::ok).unwrap_or_default();
        assert!(
            String::from_utf8_lossy(&text).starts_with(node),
            "{host}: {text:?}"
        );
    }
    let mut h1 = H1::connect(&dial).await;
    let answer = h1.get("/hello", &[("Host", "b.example")]).await;
    assert_eq!(answer.status, 421);
    let own = Dial::tls(block.at("200.0.0.10:443"), "b.example", certs.ca());
    assert_eq!(H1::connect(&own).await.get("/hello", &[]).await.status, 200);
}

/// Aim: the edge serves a certificate renewed on disk without a reload order, and live connections do not
/// notice. After a bad file it serves the old one and reports that by a metric. The admin endpoint shows
/// names and expiry. Source: FAULTS D36. Fails without the watch.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_and_a_bad_one_is_not() {
    let (block, certs) = (Block::claim(), Certs::new());
    let serial = |file: &str| {
        let pem = std::fs::read(certs.dir().join(file)).expect("a file of the test");
        let leaf = openssl::x509::X509::from_pem(&pem).expect("PEM");
        leaf.to_der().expect("DER")
    };
    certs.leaf("a", &["push1.a.example", "push2.a.example"], Key::Ecdsa);
    certs.leaf("b", &["b.example"], Key::Rsa);
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &yaml(&certs, "{ certificates: [a, b] }", ROUTES)).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), "push1.a.example", certs.ca());
    let mut live = H1::connect(&dial).await;
    assert_eq!(live.get("/hello", &[]).await.status, 200);
    let shown = async |what: &str, want: &[u8]| {
        deadline(what, async {
            while tls_node::shown(&dial).await != want {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    let old = serial("a.pem");
    shown("the first certificate", &old).await;
    std::fs::write(certs.dir().join("a.pem"), "half a fi").expect("write");
    deadline("the metric of a bad file", async {
        while edge
            .metric("pushgate_certificates_last_reload_successful")
            .await
            != 0.0
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    shown("the old certificate", &old).await;
    assert!(
        edge.log().contains("expected PEM certificates, found none"),
        "{}",
        edge.log()
    );
    certs.leaf("a", &["push1.a.example", "push2.a.example"], Key::Ecdsa);
    shown("the new certificate", &serial("a.pem")).await;
    assert_ne!(serial("a.pem"), old);
    assert_eq!(
        live.get("/hello", &[]).await.status,
        200,
        "the live connection goes on"
    );
    let told = edge.admin("GET", "/api/certificates").await.text();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told[0]["names"][0], "push1.a.example");
    assert_eq!(told[0]["listeners"][0], "push");
    assert!(
        told[1]["days_left"].as_i64().is_some_and(|d| d == 29),
        "{told}"
    );
    assert!(
        edge.metric("pushgate_certificate_not_after_timestamp_seconds")
            .await
            > 3e9
    );
    // `warn_days` is 30 by default.
    edge.wait_log("certificate a expires in 29 days").await;
}

/// Aim: `required` refuses clients without a certificate of the authority. The node gets the certificate's
/// identity in headers that the client cannot forge. Source: FAULTS D14. Fails without `install_clients`.
#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_required_and_passed_on() {
    let (block, certs, strangers) = (Block::claim(), Certs::new(), Certs::new());
    certs.leaf("a", &["*.a.example"], Key::Ecdsa);
    certs.leaf("b", &["b.example"], Key::Ecdsa);
    certs.leaf("alice", &["alice"], Key::Ecdsa);
    strangers.leaf("alice", &["alice"], Key::Ecdsa);
    let n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let plugins = "[{ client_certificate: {} }]";
    let tls = |how: &str| {
        let ca = certs.ca_file();
        let ca = ca.display();
        format!("{{ certificates: [a, b], client_ca: {ca}, client_certificate: {how} }}")
    };
    let dial = Dial::tls(block.at("200.0.0.10:443"), "push1.a.example", certs.ca());
    for (how, none, foreign) in [
        ("required", None, None),
        ("optional", Some("NONE"), Some("FAILED: ")),
    ] {
        let _edge = Edge::start(&block, &yaml(&certs, &tls(how), plugins)).await;
        for (who, want) in [
            (None, none),
            (Some(&strangers), foreign),
            (Some(&certs), Some("SUCCESS")),
        ] {
            let answered = tls_node::get_as(&dial, who.map(|c| (c, "alice"))).await;
            assert_eq!(answered, want.map(|_| 200), "{how}: {want:?}");
            let Some(want) = want else { continue };
            let seen = n1.seen();
            let requests = seen.connections.iter().flat_map(|c| &c.requests);
            let head = requests
                .last()
                .expect("a request")
                .text()
                .to_ascii_lowercase();
            let line = format!("x-client-cert-verify: {}", want.to_ascii_lowercase());
            assert!(head.contains(&line), "{how}: {head}");
            assert_eq!(
                head.contains("x-client-cert-subject: cn=alice"),
                want == "SUCCESS"
            );
            assert!(!head.contains("forged"), "{head}");
        }
    }
}

/// Aim: a TLS node is trusted only with the right name and authority, also by its check. A node that sends
/// bytes before its handshake gets no request. A node that requests a certificate gets ours. Source: FAULTS
/// D37. Fails without `verify`, or without `client_certificate`.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_must_prove_its_name() {
    let (block, certs, strangers) = (Block::claim(), Certs::new(), Certs::new());
    certs.leaf("a", &["*.a.example"], Key::Ecdsa);
    certs.leaf("b", &["b.example"], Key::Ecdsa);
    certs.leaf("node", &["n1.internal"], Key::Ecdsa);
    certs.expired("old", &["n1.internal"]);
    strangers.leaf("node", &["n1.internal"], Key::Ecdsa);
    let plain = "10.0.0.1:8080";
    let ca = certs.ca_file();
    let ca = ca.display();
    let (good, injects, asks) = (Manner::Good, Manner::Injects, Manner::Asks);
    let ours = "n1.internal, client_certificate: a";
    for (case, files, word, name, manner, status) in [
        ("right", &certs, "node", "n1.internal", good, 200),
        ("absolute name", &certs, "node", "n1.internal.", good, 200),
        ("wrong name", &certs, "node", "n2.internal", good, 502),
        ("expired", &certs, "old", "n1.internal", good, 502),
        (
            "wrong authority",
            &strangers,
            "node",
            "n1.internal",
            good,
            502,
        ),
        ("speaks first", &certs, "node", "n1.internal", injects, 502),
        ("asks in vain", &certs, "node", "n1.internal", asks, 502),
        ("asks for ours", &certs, "node", ours, asks, 200),
        ("asks a stranger", &strangers, "node", ours, asks, 502),
    ] {
        let tls = format!("{{ ca_file: {ca}, server_name: {name} }}");
        let node = format!("n1: {{ address: {plain}, tls: {tls} }}");
        let yaml = yaml(&certs, "{ certificates: [a, b] }", "[]")
            .replace("n1: { address: 10.0.0.1:8080 }", &node)
            // Without retries the failure itself is answered.
            .replace("nodes: [n1]", "nodes: [n1], retries: 0, on_lost: 502");
        let _node = tls_node::start(block.at(plain), files, word, manner).await;
        let edge = Edge::start(&block, &yaml).await;
        let dial = Dial::tls(block.at("200.0.0.10:443"), "push1.a.example", certs.ca());
        let answer = H1::connect(&dial).await.get("/hello", &[]).await;
        assert_eq!(answer.status, status, "{case}: {}", edge.log());
        if status == 200 {
            assert_eq!(answer.text(), "over TLS\n");
        }
    }
}

/// Aim: plain clients are redirected to TLS. Source: RFC 9110 §15.4.9.
#[tokio::test(flavor = "multi_thread")]
async fn plain_clients_are_redirected() {
    let block = Block::claim();
    let yaml = "listeners:\n  - { name: plain, bind: [200.0.0.10:80], mode: http, plugins: [{ redirect_https: {} }] }\n";
    let _edge = Edge::start(&block, yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.a.example");
    let answer = H1::connect(&dial).await.get("/a?b", &[]).await;
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        Some("https://push.a.example/a?b")
    );
}

/// Aim: with `choose: vip` a client is shown the certificate of the address that it reached, whatever name it
/// asks for; `strict_sni` then demands a name of that certificate. Source: Lightstreamer clustering §3.2.2.3.
/// Fails if a name that another certificate covers wins over the address.
#[tokio::test(flavor = "multi_thread")]
async fn a_vip_chooses_whatever_the_name() {
    let (block, certs) = (Block::claim(), Certs::new());
    let der = |word: &str, kind| {
        let leaf = certs.leaf(word, &[&format!("{word}.example")], kind);
        let pem = std::fs::read(&leaf.chain).expect("a chain");
        let leaf = openssl::x509::X509::from_pem(&pem).and_then(|leaf| leaf.to_der());
        leaf.expect("DER")
    };
    let (a, b) = (der("a", Key::Ecdsa), der("b", Key::Rsa));
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let tls = "{ certificates: [a, b], by_vip: { 200.0.0.11:443: b }, choose: vip }";
    let strict = tls.replace("choose", "strict_sni: true, choose");
    let bind = "bind: [200.0.0.10:443, 200.0.0.11:443]";
    let on_both = |tls| yaml(&certs, tls, "[]").replace("bind: [200.0.0.10:443]", bind);
    let edge = Edge::start(&block, &on_both(tls)).await;
    let dial =
        |vip: &str, name| Dial::tls(block.at(&format!("200.0.0.{vip}:443")), name, certs.ca());
    for (vip, name, expected) in [
        ("10", "a.example", &a),
        ("10", "b.example", &a),
        ("10", "other.example", &a),
        ("11", "a.example", &b),
        ("11", "b.example", &b),
        ("11", "200.0.0.11", &b),
    ] {
        let shown = tls_node::shown(&dial(vip, name)).await;
        assert!(shown == *expected, "{name} at {vip}");
    }
    edge.rewrite(&block, &on_both(&strict));
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    for (vip, name, status) in [
        ("10", "a.example", Some(200)),
        ("10", "b.example", None),
        ("11", "a.example", None),
        ("11", "b.example", Some(200)),
        ("11", "200.0.0.11", None),
    ] {
        let got = tls_node::get_as(&dial(vip, name), None).await;
        assert_eq!(got, status, "{name} at {vip}");
    }
}
