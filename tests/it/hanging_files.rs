//! Files that do not answer, as on a network file system without its server: nothing waits for them.
//!
//! In: a FIFO in place of a file, whose opening hangs. Out: clients, checks, orders and signals
//! are served meanwhile. Source: FAULTS D67; issue "In bad weather", 3.

use std::ffi::CString;
use std::fs::{OpenOptions, copy, rename};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;
use crate::{deadline, tls_node};

const YAML: &str = "
threads: 1
nodes: { n1: { address: 10.0.0.1:8080, health: { tcp: {}, interval: 50ms, rise: 1, fall: 1 } } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1 }
";

/// Puts a FIFO in place of a file.
fn hang(file: &Path) {
    std::fs::remove_file(file).expect("remove");
    let path = CString::new(file.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: mkfifo(3) reads the one string given.
    let rc = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

/// Puts the file `good` in place of a FIFO, and ends the reads that wait for the FIFO.
fn answer(file: &Path, good: &Path) {
    let aside = file.with_extension("fifo");
    rename(file, &aside).expect("rename");
    copy(good, file).expect("copy");
    let mut writer = OpenOptions::new();
    let writer = writer.write(true).custom_flags(libc::O_NONBLOCK);
    drop(writer.open(&aside).expect("a reader waits"));
}

/// Aim: reloads that hang in a read delay no client, check, order or signal, and the process can end. Fails if
/// the file is read on the thread that serves the admin endpoint, or on one that the end waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_hangs_stops_nothing() {
    let block = Block::claim();
    let node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let mut edge = Edge::start(&block, YAML).await;
    hang(&edge.path());
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

/// Aim: a key and an authority that cannot be read, because their file system does not answer, hold up neither a
/// renewal for another listener nor, later, their own. Fails if one thread reads all files and nobody gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_hangs_holds_up_no_other_renewal() {
    let (block, certs) = (Block::claim(), Certs::new());
    let file = |name: &str| -> PathBuf { certs.dir().join(name) };
    for name in ["a", "b"] {
        certs.leaf(name, &["push.example"], Key::Ecdsa);
    }
    copy(certs.ca_file(), file("clients.pem")).expect("copy");
    let dir = certs.dir().display();
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\n\
         certificates:\n  a: {{ chain: {dir}/a.pem, key: {dir}/a.key }}\n  b: {{ chain: {dir}/b.pem, key: {dir}/b.key }}\n\
         listeners:\n  - {{ name: a, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [a] }} }}\n  \
         - {{ name: b, bind: [200.0.0.20:443], mode: http, to: n1, tls: {{ certificates: [b], \
         client_ca: {dir}/clients.pem, client_certificate: optional }} }}\n"
    );
    let edge = Edge::start_unready(&block, &yaml).await;
    let dial = |vip| Dial::tls(block.at(vip), "push.example", certs.ca());
    let (a, b) = (dial("200.0.0.10:443"), dial("200.0.0.20:443"));
    let old = tls_node::shown(&b).await;
    hang(&file("b.key"));
    hang(&file("clients.pem"));
    certs.leaf("a", &["push.example"], Key::Ecdsa);
    let renewed = certs.der("a.pem");
    // One after the other, each after 2 to 4 s.
    for name in ["b.key", "clients.pem", "certificate b"] {
        let told = format!("{name}: its file system does not answer");
        edge.wait_log(&told).await;
    }
    deadline("the renewal of the other listener", async {
        while tls_node::shown(&a).await != renewed {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(tls_node::shown(&b).await, old);
    let metric = "pushgate_certificates_last_reload_successful";
    edge.wait_metric(metric, |good| good == 0.0).await;
    certs.leaf("b2", &["push.example"], Key::Ecdsa);
    let renewed = certs.der("b2.pem");
    copy(file("b2.pem"), file("b.pem")).expect("copy");
    answer(&file("b.key"), &file("b2.key"));
    answer(&file("clients.pem"), &certs.ca_file());
    deadline("its own renewal", async {
        while tls_node::shown(&b).await != renewed || edge.metric(metric).await != 1.0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
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
