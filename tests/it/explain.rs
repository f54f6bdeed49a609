//! `pushgate explain` against the running edge: it predicts what a flow gets.
//!
//! In: files of `conf/` with names, VIPs and certificates. Out: node and certificate, as explained and as
//! observed. Source: Lightstreamer clustering §2.2.1, §3.2.2.3.

use std::process::Command;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::tls_node::shown;
use crate::vip::{Block, port};

/// Output of `explain` with `args`, on the file that the edge runs on.
fn explained(edge: &Edge, args: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["explain", "-c"])
        .arg(edge.path())
        .args(args)
        .output()
        .expect("the built program starts");
    let told = [run.stdout, run.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(run.status.success(), "{args:?}: {told}");
    told
}

/// The value of a row.
fn row<'a>(told: &'a str, what: &str) -> &'a str {
    let line = told.lines().find_map(|l| l.strip_prefix(what));
    line.unwrap_or_else(|| panic!("no {what} in\n{told}"))
        .trim()
}

/// Aim: `explain` names the node that each host reaches. It recalls a cookie of the running edge if the keys
/// are in a file. Fails if `explain` decides by other code than the edge.
#[tokio::test(flavor = "multi_thread")]
async fn explained_routes_and_cookies_match_the_edge() {
    let block = Block::claim();
    let _n1 = Node::start("ls1", block.at("10.0.0.1:80")).await;
    let _n2 = Node::start("ls2", block.at("10.0.0.2:80")).await;
    let keys = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(keys.path(), "00112233445566778899aabbccddeeff\n").expect("keys");
    let cookie = format!(
        "plugins:\n      - sticky_cookie: {{ key_file: {} }}",
        keys.path().display()
    );
    let edge = Edge::file(&block, "option-1.B.1.yaml", &[("plugins:", &cookie)]).await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    let url = |host: &str| format!("http://{host}:{}/hello", port(80));
    for (host, node) in [
        ("push1.mycompany.com", "ls1"),
        ("push2.mycompany.com", "ls2"),
    ] {
        let told = explained(&edge, &["--to", &url(host)]);
        assert!(
            row(&told, "node").starts_with(&format!("{node} at")),
            "{told}"
        );
        let place = format!("host_route.hosts[\"{host}\"]");
        assert!(told.contains(&place), "{told}");
        let answer = H1::connect(&dial.clone().host(host))
            .await
            .get("/hello", &[])
            .await;
        assert_eq!(answer.node(), node);
    }
    let push = dial.host("push.mycompany.com");
    for _ in 0..4 {
        let answer = H1::connect(&push).await.get("/hello", &[]).await;
        let cookie = answer.header("set-cookie").expect("a cookie");
        let pair = cookie.split(';').next().unwrap_or_default();
        let told = explained(
            &edge,
            &["--to", &url("push.mycompany.com"), "--cookie", pair],
        );
        let want = format!("{} at", answer.node());
        assert!(row(&told, "node").starts_with(&want), "{told}");
        assert!(
            row(&told, "node").contains("recalled by sticky_cookie"),
            "{told}"
        );
    }
}

/// Aim: `explain` names the certificate that a handshake shows: by name, by VIP without a name, and by name
/// on another's VIP. Fails if `explain` chooses by other rules than the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn explained_certificates_match_the_handshake() {
    let (block, certs) = (Block::claim(), Certs::new());
    let mut changes = Vec::new();
    let mut der = Vec::new();
    for word in ["push", "push1", "push2"] {
        let leaf = certs.leaf(word, &[&format!("{word}.mycompany.com")], Key::Ecdsa);
        let pem = std::fs::read(&leaf.chain).expect("a chain");
        let leaf_der = openssl::x509::X509::from_pem(&pem).and_then(|l| l.to_der());
        der.push((word, leaf_der.expect("DER")));
        changes.push((format!("{word}.pem"), leaf.chain.display().to_string()));
        changes.push((format!("{word}.key"), leaf.key.display().to_string()));
    }
    let _n1 = Node::start("ls1", block.at("10.0.0.1:80")).await;
    let _n2 = Node::start("ls2", block.at("10.0.0.2:80")).await;
    let changes: Vec<_> = changes.iter().map(|(a, b)| (&**a, &**b)).collect();
    let edge = Edge::file(&block, "option-2.B.2.3.yaml", &changes).await;
    for (vip, sni) in [
        ("200.0.0.10", "push.mycompany.com"),
        ("200.0.0.10", "push2.mycompany.com"),
        ("200.0.0.1", "other.mycompany.com"),
        ("200.0.0.2", "push1.mycompany.com"),
    ] {
        let dial = Dial::tls(block.at(&format!("{vip}:443")), sni, certs.ca());
        let met = shown(&dial).await;
        let met = der.iter().find(|(_, d)| *d == met).map(|(word, _)| *word);
        let vip = block.ip(vip).to_string();
        let url = format!("https://push.mycompany.com:{}/", port(443));
        let told = explained(&edge, &["--to", &url, "--vip", &vip, "--sni", sni]);
        let word = row(&told, "certificate").split(',').next();
        assert_eq!(word, met, "{vip} {sni}\n{told}");
    }
}
