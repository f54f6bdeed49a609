//! Files that do not answer, as on a network file system without its server: nothing waits for them.
//!
//! In: a FIFO in place of a configuration file, whose opening hangs. Out: clients, checks, orders and signals
//! are served meanwhile. Source: FAULTS D67; issue "In bad weather", 3.

use std::ffi::CString;
use std::time::Duration;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

const YAML: &str = "
threads: 1
nodes: { n1: { address: 10.0.0.1:8080, health: { tcp: {}, interval: 50ms, rise: 1, fall: 1 } } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1 }
";

/// Puts a FIFO in place of the configuration file.
fn hang(edge: &Edge) {
    std::fs::remove_file(edge.path()).expect("remove");
    let path = CString::new(edge.path().into_os_string().into_encoded_bytes()).expect("a path");
    // SAFETY: mkfifo(3) reads the one string given.
    let rc = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

/// Aim: reloads that hang in a read delay no client, check, order or signal, and the process can end. Fails if
/// the file is read on the thread that serves the admin endpoint, or on one that the end waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_hangs_stops_nothing() {
    let block = Block::claim();
    let node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let mut edge = Edge::start(&block, YAML).await;
    hang(&edge);
    edge.signal(libc::SIGHUP);
    let mut operator = H1::connect(&Dial::plain(block.admin())).await;
    let sent = operator.send("POST", "/api/reload", &[], b"").await;
    sent.expect("send");
    // Bounded wait: the reloads do not answer in 200 ms.
    let waited = tokio::time::timeout(Duration::from_millis(200), operator.head()).await;
    assert!(waited.is_err(), "the reload hangs");
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    assert_eq!(
        H1::connect(&dial).await.get("/hello", &[]).await.status,
        200
    );
    node.kill();
    let down = |nodes: &serde_json::Value| nodes[0]["state"] == "down";
    edge.wait_nodes("n1 Down", down).await;
    edge.signal(libc::SIGTERM);
    assert_eq!(edge.ended().await.code(), Some(0));
}

/// Aim: a refused reload leaves no series of what it named. Fails if the plan's nodes and listeners keep theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_leaves_no_series() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, YAML).await;
    let taken = std::net::TcpListener::bind(block.at("200.0.0.30:80")).expect("bind");
    let more = "  - { name: fresh, bind: [200.0.0.20:80], mode: http, to: n2 }\n  \
                - { name: taken, bind: [200.0.0.30:80], mode: http, to: n2 }\n";
    let yaml = YAML.replace("{ n1: ", "{ n2: { address: 10.0.0.2:8080 }, n1: ") + more;
    let named = |text: &str| {
        let all = text.lines().filter(|line| !line.starts_with('#'));
        let all = all.filter(|line| ["fresh", "taken", "n2"].iter().any(|n| line.contains(n)));
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    edge.rewrite(&block, &yaml);
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 422);
    let text = edge.admin("GET", "/metrics").await.text();
    assert_eq!(named(&text), [""; 0]);
    drop(taken);
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    let text = edge.admin("GET", "/metrics").await.text();
    assert!(named(&text).len() > 2, "{text}");
}
