//! Certificates whose time begins or ends while the edge runs, and files that can be read only later.
//!
//! In: certificates that are valid for seconds. Out: what clients are shown, and what an operator is told.
//! Source: FAULTS D36.

use std::time::Duration;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::edge::Edge;
use crate::vip::Block;
use crate::{deadline, tls_node};

const HOST: &str = "push.mycompany.com";

/// A listener with the certificates `names`, each from its files.
fn yaml(certs: &Certs, names: &[&str]) -> String {
    let dir = certs.dir().display();
    let one =
        |name: &&str| format!("  {name}: {{ chain: {dir}/{name}.pem, key: {dir}/{name}.key }}\n");
    let all: String = names.iter().map(one).collect();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n{all}listeners:\n  \
         - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [{}] }} }}\n",
        names.join(", ")
    )
}

/// Waits until clients are shown `want`.
async fn shown(what: &str, dial: &Dial, want: &[u8]) {
    deadline(what, async {
        while tls_node::shown(dial).await != want {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Aim: a renewed certificate is served as soon as it can be, without a further change of its files: if its
/// time begins 6 s later, or if its key can be read 2 s later. Source: elasticsearch#63870, vault#1035. Fails
/// if the edge looks at files only when they change, or does not notice a change of owner or mode.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_failed_is_tried_again() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("a", &[HOST], Key::Ecdsa);
    let old = certs.der("a.pem");
    let edge = Edge::start_unready(&block, &yaml(&certs, &["a"])).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    shown("the first certificate", &dial, &old).await;
    certs.leaf_within("a", &[HOST], 6, 86_400);
    edge.wait_log("is not valid before").await;
    let metric = "pushgate_certificates_last_reload_successful";
    assert_eq!(edge.metric(metric).await, 0.0);
    assert_eq!(tls_node::shown(&dial).await, old, "not before its time");
    shown(
        "the certificate whose time has begun",
        &dial,
        &certs.der("a.pem"),
    )
    .await;
    edge.wait_metric(metric, |good| good == 1.0).await;
    let told = edge.log().matches("is not valid before").count();
    assert_eq!(told, 1, "a failure that lasts is told once");

    // A reload takes no certificate before its time either.
    let valid = certs.der("a.pem");
    certs.leaf("b", &[HOST], Key::Ecdsa);
    let (key, aside) = (certs.dir().join("a.key"), certs.dir().join("aside"));
    std::fs::copy(certs.dir().join("b.key"), &aside).expect("copy");
    std::fs::remove_file(&key).expect("remove");
    std::fs::copy(certs.dir().join("b.pem"), certs.dir().join("a.pem")).expect("copy");
    edge.wait_log("a.key: cannot be read").await;
    assert_eq!(tls_node::shown(&dial).await, valid);
    std::fs::rename(&aside, &key).expect("rename");
    shown("the certificate with its key", &dial, &certs.der("b.pem")).await;
}

/// Aim: a certificate that ends stops neither a reload nor a start, and another one that covers its name takes
/// over at that moment; a metric tells. Source: haproxy#1433. Fails if an expired certificate is an error, or
/// if the choice is made at load only.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_harms_no_other() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf_within("soon", &[HOST, "soon.example"], -60, 5);
    certs.leaf("good", &[HOST], Key::Ecdsa);
    let yaml = yaml(&certs, &["soon", "good"]);
    let edge = Edge::start_unready(&block, &yaml).await;
    let dial = |host| Dial::tls(block.at("200.0.0.10:443"), host, certs.ca());
    let (soon, good) = (certs.der("soon.pem"), certs.der("good.pem"));
    assert_eq!(
        tls_node::shown(&dial(HOST)).await,
        soon,
        "the first of the list"
    );
    shown("the valid certificate", &dial(HOST), &good).await;
    let series = "pushgate_certificate_warning{certificate=\"soon\",warning=\"expired\"} 1";
    let metrics = edge.admin("GET", "/metrics").await.text();
    assert!(metrics.contains(series), "{metrics}");
    assert_eq!(
        edge.admin("POST", "/api/reload").await.status,
        200,
        "{}",
        edge.log()
    );
    drop(edge);
    let edge = Edge::start_unready(&block, &yaml).await;
    assert_eq!(tls_node::shown(&dial(HOST)).await, good);
    assert_eq!(
        tls_node::shown(&dial("soon.example")).await,
        soon,
        "no other has this name"
    );
    edge.wait_log("certificate soon: it expired on").await;
}
