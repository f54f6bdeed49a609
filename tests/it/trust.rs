//! Whom the edge trusts: certificates that are revoked or of an issuing authority alone, headers that clients
//! write, checks that must not do without TLS.
//!
//! In: authorities, revocation lists and heads of the test. Out: answers, and what nodes saw. Source: RFC 5280
//! §5; FAULTS D14, D15, D36, D37.

use std::process::{Command, Stdio};
use std::sync::Arc;

use openssl::ssl::{Ssl, SslContext};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::tls_node::{self, Manner};
use crate::vip::Block;

const HOST: &str = "push.mycompany.com";
const DAY: i64 = 86_400;

/// A TLS listener with the certificate `a` of `certs`, further keys of its `tls`, and a plain node.
fn listener(certs: &Certs, tls: &str) -> String {
    let dir = certs.dir().display();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\n\
         certificates: {{ a: {{ chain: {dir}/a.pem, key: {dir}/a.key }} }}\nlisteners:\n  \
         - {{ name: push, bind: [200.0.0.10:443], mode: http, to: n1, tls: {{ certificates: [a], {tls} }} }}\n"
    )
}

/// Waits until a client with the certificate `word` gets `status`; `None`: it is refused.
async fn gets(what: &str, dial: &Dial, certs: &Certs, word: &str, status: Option<u16>) {
    deadline(what, async {
        while tls_node::get_as(dial, Some((certs, word))).await != status {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Aim: a client whose certificate is revoked is refused, from the moment its list is on disk; others are not,
/// also after their list is over. An issuing authority alone is trusted. Fails without `Crls::install`, or if
/// lists are read at the start only, or if a list that is over shuts everyone out.
#[tokio::test(flavor = "multi_thread")]
async fn revoked_clients_are_refused() {
    let (block, root) = (Block::claim(), Certs::new());
    let certs = root.intermediate();
    certs.leaf("a", &[HOST], Key::Ecdsa);
    certs.leaf("alice", &["alice"], Key::Ecdsa);
    certs.leaf("bob", &["bob"], Key::Ecdsa);
    let lists = certs.crl("clients.crl", &["bob.pem"], DAY);
    let keys = format!(
        "client_ca: {}, client_crl: {}",
        certs.ca_file().display(),
        lists.display()
    );
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &listener(&certs, &keys)).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    gets("alice", &dial, &certs, "alice", Some(200)).await;
    assert_eq!(tls_node::get_as(&dial, Some((&certs, "bob"))).await, None);
    certs.crl("clients.crl", &["alice.pem", "bob.pem"], DAY);
    gets("alice's revocation", &dial, &certs, "alice", None).await;
    certs.crl("clients.crl", &["bob.pem"], -DAY);
    gets("a list that is over", &dial, &certs, "alice", Some(200)).await;
    assert_eq!(tls_node::get_as(&dial, Some((&certs, "bob"))).await, None);
    edge.wait_log("a revocation list is over").await;
    assert!(
        edge.metric("pushgate_crl_next_update_timestamp_seconds")
            .await
            > 1e9
    );
    // The authority's clock is ahead.
    certs.crl_within("clients.crl", &["alice.pem"], 3600, DAY);
    gets(
        "a list whose time begins soon",
        &dial,
        &certs,
        "bob",
        Some(200),
    )
    .await;
    assert_eq!(tls_node::get_as(&dial, Some((&certs, "alice"))).await, None);
    certs.crl("clients.crl", &["bob.pem"], DAY);
    gets("the list of now", &dial, &certs, "alice", Some(200)).await;
    // Garbage leaves the old lists in use, and the mended file is taken.
    std::fs::write(&lists, "no list").expect("write");
    edge.wait_log("expected revocation lists (PEM or DER), found none")
        .await;
    assert_eq!(tls_node::get_as(&dial, Some((&certs, "bob"))).await, None);
    certs.crl("clients.crl", &["alice.pem"], DAY);
    gets("the mended list", &dial, &certs, "bob", Some(200)).await;
}

/// Aim: where client certificates are optional, the node is told of each that fails. Fails if an error that is forgiven
/// (the issuer of an issuer has no list) wipes an earlier one: a revoked certificate, and one that a stranger forged
/// with an issuer of its own, were passed on as good.
#[tokio::test(flavor = "multi_thread")]
async fn an_optional_certificate_that_fails_is_not_passed_on_as_good() {
    let (block, root) = (Block::claim(), Certs::new());
    let (certs, strangers) = (root.intermediate(), Certs::new().intermediate());
    certs.leaf("a", &[HOST], Key::Ecdsa);
    for word in ["alice", "bob"] {
        certs.leaf(word, &[word], Key::Ecdsa);
        strangers.leaf(word, &[word], Key::Ecdsa);
        let pem = strangers.dir().join(format!("{word}.pem"));
        let chain = [&pem, &strangers.ca_file()].map(|file| std::fs::read(file).expect("PEM"));
        std::fs::write(pem, chain.concat()).expect("write");
    }
    let lists = certs.crl("clients.crl", &["bob.pem"], DAY);
    let keys = format!(
        "client_ca: {}, client_crl: {}, client_certificate: optional",
        certs.ca_file().display(),
        lists.display()
    );
    let n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let yaml =
        listener(&certs, &keys).replace("to: n1", "to: n1, plugins: [{ client_certificate: {} }]");
    let _edge = Edge::start(&block, &yaml).await;
    let dial = Dial::tls(block.at("200.0.0.10:443"), HOST, certs.ca());
    for (whose, word, want) in [
        (&certs, "alice", "success"),
        (&certs, "bob", "failed: certificate revoked"),
        (&strangers, "alice", "failed: "),
    ] {
        assert_eq!(
            tls_node::get_as(&dial, Some((whose, word))).await,
            Some(200)
        );
        let seen = n1.seen();
        let mut requests = seen.connections.iter().flat_map(|c| &c.requests);
        let head = requests.next_back().expect("a request").text();
        let head = head.to_ascii_lowercase();
        assert!(
            head.contains(&format!("x-client-cert-verify: {want}")),
            "{head}"
        );
    }
}

/// Aim: a node whose certificate is revoked gets no request; a new list holds for the next connection. Source:
/// FAULTS D37. Fails without `crl_file`, or if the running node does not take over its files.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_gets_no_request() {
    let (block, root) = (Block::claim(), Certs::new());
    let certs = root.intermediate();
    certs.leaf("node", &["n1.internal"], Key::Ecdsa);
    let lists = certs.crl("nodes.crl", &["node.pem"], DAY);
    let yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080, tls: {{ ca_file: {}, crl_file: {}, server_name: n1.internal }} }} }}\n\
         pools: {{ p: {{ nodes: [n1], retries: 0, on_lost: 502 }} }}\n\
         listeners:\n  - {{ name: push, bind: [200.0.0.10:80], mode: http, to: p }}\n",
        certs.ca_file().display(),
        lists.display()
    );
    let _node = tls_node::start(block.at("10.0.0.1:8080"), &certs, "node", Manner::Good).await;
    let _edge = Edge::start(&block, &yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let status = async || H1::connect(&dial).await.get("/hello", &[]).await.status;
    assert_eq!(status().await, 502);
    certs.crl("nodes.crl", &[], DAY);
    deadline("the node that is no longer revoked", async {
        while status().await != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Aim: what a client writes into forwarding headers reaches no node, in any spelling, where no plugin sets
/// them; `pass_forwarded` passes it on, and `headers` may set them. Source: FAULTS D15. Fails without
/// `hides_forwarding`.
#[tokio::test(flavor = "multi_thread")]
async fn clients_forge_no_forwarding_header() {
    let block = Block::claim();
    let yaml = "nodes: { n1: { address: 10.0.0.1:8080 } }\nlisteners:\n  \
        - { name: a, bind: [200.0.0.10:80], mode: http, to: n1 }\n  \
        - { name: b, bind: [200.0.0.11:80], mode: http, to: n1, pass_forwarded: true }\n  \
        - name: c\n    bind: [200.0.0.12:80]\n    mode: http\n    to: n1\n    \
        plugins: [{ headers: { request: { set: { X-Forwarded-Proto: https } } } }]\n";
    let n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _edge = Edge::start(&block, yaml).await;
    let forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("x_forwarded_proto", "6.6.6.6"),
        ("X.Forwarded.Host", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Forward", "kept"),
    ];
    for (at, forgeries, https) in [("10", 0, 0), ("11", 5, 0), ("12", 0, 1)] {
        let dial = Dial::plain(block.at(&format!("200.0.0.{at}:80"))).host(HOST);
        let answer = H1::connect(&dial).await.get("/hello", &forged).await;
        assert_eq!(answer.status, 200);
        let seen = n1.seen();
        let last = seen.connections.iter().flat_map(|c| &c.requests).last();
        let text = last.expect("a request").text().to_ascii_lowercase();
        assert_eq!(text.matches("6.6.6.6").count(), forgeries, "{at}: {text}");
        assert_eq!(
            text.matches("x-forwarded-proto: https").count(),
            https,
            "{at}: {text}"
        );
        assert!(text.contains("x-forward: kept"), "{text}");
    }
}

/// Aim: a TLS check ends with close_notify, so that the node logs no error each second. Source: RFC 8446 §6.1.
/// Fails if a check drops its connection, or an answer that it has not read to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_tls_check_ends_in_order() {
    let (block, certs) = (Block::claim(), Certs::new());
    let leaf = certs.leaf("node", &["n1.internal"], Key::Ecdsa);
    let ends: Arc<Mutex<Vec<std::io::Result<usize>>>> = Arc::default();
    let listener = TcpListener::bind(block.at("10.0.0.1:8080"))
        .await
        .expect("bind");
    let node = tokio::spawn(ends_of(listener, leaf.context(), ends.clone()));
    for check in [
        "",
        "http: { path: / }, ",
        "http: { path: /, status: 500 }, ",
    ] {
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.1:8080, health: {{ tls: {{}}, {check}interval: 100ms }} }} }}\n\
             listeners:\n  - {{ name: push, bind: [200.0.0.10:443], mode: tcp, to: n1 }}\n"
        );
        let _edge = Edge::start(&block, &yaml).await;
        deadline("five checks", async {
            while ends.lock().len() < 5 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let ends = std::mem::take(&mut *ends.lock());
        let in_order = ends.iter().all(|end| matches!(end, Ok(0)));
        assert!(in_order, "{check}: {ends:?}");
    }
    node.abort();
}

/// Answers requests with more than a check reads, and notes how each connection ends: `Ok(0)` is a close_notify.
async fn ends_of(
    listener: TcpListener,
    context: SslContext,
    ends: Arc<Mutex<Vec<std::io::Result<usize>>>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (context, ends) = (context.clone(), ends.clone());
        tokio::spawn(async move {
            let ssl = Ssl::new(&context).expect("TLS");
            let mut stream = SslStream::new(ssl, tcp).expect("TLS");
            let shaken = std::pin::Pin::new(&mut stream).accept().await;
            let mut end = shaken.map(|()| 1).map_err(std::io::Error::other);
            let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n".to_vec();
            answer.resize(answer.len() + 200_000, b'x');
            while let Ok(1..) = end {
                end = stream.read(&mut [0; 4096]).await;
                if let Ok(1..) = end {
                    // The check need not take all of it.
                    let _ = stream.write_all(&answer).await;
                }
            }
            ends.lock().push(end);
        });
    }
}

/// Aim: an edge whose checks cannot use TLS does not start. Fails if such a check connects plainly: it would
/// find every node healthy.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_never_does_without_its_tls() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("pushgate.yaml");
    let yaml = "nodes: { n1: { address: 127.0.0.1:9, health: { tls: {} } } }\nlisteners:\n  \
        - { name: push, bind: [127.0.0.1:0], mode: tcp, to: n1 }\n";
    std::fs::write(&file, yaml).expect("write");
    std::fs::write(dir.path().join("roots.pem"), "no certificate").expect("write");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushgate"));
    command.args(["run", "-c"]).arg(&file).stdout(Stdio::null());
    command.env("SSL_CERT_FILE", dir.path().join("roots.pem"));
    // An edge that starts would run for ever.
    let run = deadline("its refusal", command.kill_on_drop(true).output()).await;
    let run = run.expect("the built program");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success(), "{told}");
    assert!(
        told.contains("node n1: health.tls: cannot set up TLS"),
        "{told}"
    );
}

/// Aim: a setting that harms beside another is told by `check`, which still succeeds, and by a running edge,
/// also after a reload. Fails if warnings of the configuration are dropped on the way.
#[tokio::test(flavor = "multi_thread")]
async fn traps_are_told() {
    let block = Block::claim();
    let yaml = |secure: bool, vip: &str| {
        format!(
            "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\nlisteners:\n  \
             - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: n1\n    plugins:\n      \
             - sticky_cookie: {{ secure: {secure} }}\n      - vip_route: {{ vips: {{ 200.0.0.{vip}: n1 }} }}\n"
        )
    };
    let edge = Edge::start(&block, &yaml(true, "10")).await;
    let dropped =
        "listeners[0].plugins[0].sticky_cookie.secure: warning: browsers drop this cookie";
    edge.wait_log(dropped).await;
    let check = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["check", "-c"])
        .arg(edge.path())
        .output();
    let check = check.expect("the built program");
    let told = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && told.contains(dropped), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    edge.rewrite(&block, &yaml(false, "11"));
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    edge.wait_log("is not bound by this listener, so that no flow takes this route")
        .await;
}
