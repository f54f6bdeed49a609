//! Certificates that the edge gets itself, from a real authority of the tests.
//!
//! In: names, a DNS server, Debian's `pebble`. Out: what clients are shown before and after, and what an operator is
//! told. Source: issue 15 §4; RFC 8555; RFC 8737.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use instant_acme::{Account, NewAccount};
use openssl::x509::X509;

use crate::certs::Certs;
use crate::client::h1::H1;
use crate::client::{Dial, handshake};
use crate::deadline;
use crate::dns::server::Dns;
use crate::edge::Edge;
use crate::node::Node;
use crate::tls_node::shown;
use crate::vip::Block;

mod pebble;

use pebble::Pebble;

/// The VIPs of an edge, both of one address, as in [`Block`].
const VIPS: &str = "
  - { name: plain, bind: [200.0.0.10:80], mode: http, to: n1 }
  - { name: tls, bind: [200.0.0.10:443], mode: http, to: n1, tls: { certificates: [";

/// A configuration with these certificates, each with its keys of `acme`. What all share is put in.
fn yaml(certs: &Certs, state: &Path, all: &[(&str, &str)]) -> String {
    let (ca, state) = (certs.ca_file(), state.display());
    let shared = format!("ca_file: {}, state: {state}", ca.display());
    let one =
        |(name, keys): &(&str, &str)| format!("  {name}: {{ acme: {{ {keys}, {shared} }} }}\n");
    let blocks: String = all.iter().map(one).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\ncertificates:\n{blocks}listeners:{VIPS}{}] }} }}\n",
        names.join(", ")
    )
}

/// Puts a certificate of the test's own authority into the state folder, as if the one at `url` had issued it. It is
/// valid from `from` to `until`, in seconds from now.
fn put(
    certs: &Certs,
    state: &Path,
    (name, url): (&str, &str),
    (from, until): (i64, i64),
) -> Vec<u8> {
    let leaf = certs.leaf_within(name, &[name], from, until);
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file of the test");
    let whole = format!(
        "# authority: {url}\n{}{}",
        read(&leaf.key),
        read(&leaf.chain)
    );
    // The certificate has the first label as its name.
    let word = name.split('.').next().unwrap_or_default();
    std::fs::write(state.join(format!("{word}.pem")), whole).expect("write");
    certs.der(&format!("{name}.pem"))
}

/// Waits until a client that trusts `root` is shown a certificate for `name` at `dial`.
async fn trusted(dial: &Dial, root: &X509) {
    let dial = Dial::tls(dial.to, &dial.host, root);
    let tls = dial.tls.as_ref().expect("TLS");
    deadline(&dial.host, async {
        while handshake(dial.tcp().await, tls).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Registers an account at `url`, deactivates it, and leaves it in the state folder.
async fn revoked_account(certs: &Certs, state: &Path, url: &str) {
    let ca = certs.ca_file();
    let client = || Box::new(pushgate::acme::Client::new(Some(&ca)).expect("a client"));
    let new = NewAccount {
        contact: &[],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = Account::builder_with_http(client()).create(&new, url.to_owned(), None);
    let (account, credentials) = made.await.expect("an account");
    let folder = pushgate::acme::Folder::at(state.to_owned());
    let text = serde_json::to_string(&credentials).expect("JSON");
    folder.keep_account(url, &text).expect("written");
    account.deactivate().await.expect("deactivated");
}

/// An edge whose certificates are all in some trouble.
struct Stage {
    block: Block,
    certs: Certs,
    state: tempfile::TempDir,
    pebble: Pebble,
    edge: Edge,
    _node: Node,
}

impl Stage {
    /// Starts an edge with four certificates, none of which is good: `first` has never been issued; `again` nears its
    /// end, and so does `away`, whose authority does not answer; `wrong` leads elsewhere. The account was revoked.
    /// Returns the old certificates of `again` and `away` too.
    async fn start() -> (Stage, Vec<u8>, Vec<u8>) {
        let (block, certs) = (Block::claim(), Certs::new());
        let state = tempfile::tempdir().expect("a folder");
        let dns = Dns::start(&block).await;
        for name in ["first", "again", "away"] {
            let here = IpAddr::from(block.ip("200.0.0.10"));
            dns.hosts(&format!("{name}.mycompany.com"), &[here]);
        }
        // Nothing listens there.
        dns.hosts("wrong.mycompany.com", &[block.ip("200.0.0.99").into()]);
        let pebble = Pebble::start(&block, &certs, &dns, None).await;
        let (url, away) = (pebble.url(), pebble.url().replace("14000", "14001"));
        revoked_account(&certs, state.path(), &url).await;
        let old = |name, url: &str| put(&certs, state.path(), (name, url), (-100, 40));
        let olds = (
            old("again.mycompany.com", &url),
            old("away.mycompany.com", &away),
        );
        let keys = |name, url| format!("domains: [{name}.mycompany.com], directory: '{url}'");
        let all = [
            ("first", &*keys("first", &url)),
            ("again", &*keys("again", &url)),
            ("away", &*keys("away", &away)),
            ("wrong", &*keys("wrong", &url)),
        ];
        let yaml = yaml(&certs, state.path(), &all);
        let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
        let edge = Edge::start(&block, &yaml).await;
        let stage = Stage {
            block,
            certs,
            state,
            pebble,
            edge,
            _node,
        };
        (stage, olds.0, olds.1)
    }

    fn dial(&self, name: &str) -> Dial {
        let host = format!("{name}.mycompany.com");
        Dial::tls(self.block.at("200.0.0.10:443"), &host, self.certs.ca())
    }

    /// Whether clients of `name` are shown a placeholder.
    async fn is_placeholder(&self, name: &str) -> bool {
        let leaf = X509::from_der(&shown(&self.dial(name)).await).expect("DER");
        format!("{:?}", leaf.subject_name()).contains("placeholder")
    }

    /// Asserts that the log has one line for the failure of `name`, with these words.
    fn told(&self, name: &str, words: &[&str]) {
        let log = self.edge.log();
        let start = format!("certificate {name}: https");
        let lines: Vec<_> = log.lines().filter(|l| l.contains(&start)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        for word in words {
            assert!(lines[0].contains(word), "{}", lines[0]);
        }
    }
}

/// Aim: the edge starts without a certificate, gets one, renews one that nears its end, and registers anew where its
/// account was revoked. A name that leads elsewhere and an authority that is away harm no other certificate, and the
/// log says so once. Source: issue 15 §4. Fails if the start waits for an authority, if a request for an unknown
/// challenge is not routed, or if a failure replaces the old certificate.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_and_are_renewed() {
    let (stage, again, away) = Stage::start().await;
    let edge = &stage.edge;
    assert!(
        stage.is_placeholder("first").await,
        "before the first order"
    );
    assert_eq!(shown(&stage.dial("again")).await, again, "the old one");
    let mut plain = H1::connect(&Dial::plain(stage.block.at("200.0.0.10:80"))).await;
    let unknown = plain.get("/.well-known/acme-challenge/unknown", &[]).await;
    assert_eq!(unknown.node(), "n1", "the node's own challenge");

    let root = stage.pebble.root().await;
    trusted(&stage.dial("first"), &root).await;
    trusted(&stage.dial("again"), &root).await;
    edge.wait_metric("pushgate_acme_orders_total", |n| n == 4.0)
        .await;
    edge.wait_metric("pushgate_acme_failures", |n| n == 2.0)
        .await;
    for name in ["wrong", "away"] {
        edge.wait_log(&format!("certificate {name}: https")).await;
    }
    let log = edge.log();
    assert!(log.contains("registering another one"), "{log}");
    let placeholder = "a placeholder that clients refuse stands in";
    stage.told("wrong", &["wrong.mycompany.com: ", placeholder]);
    stage.told("away", &["Connection refused", "the old one serves on"]);
    assert_eq!(shown(&stage.dial("away")).await, away);
    assert!(stage.is_placeholder("wrong").await);
    let metrics = edge.metrics().await;
    for (name, result) in [
        ("first", "ok"),
        ("again", "ok"),
        ("away", "failed"),
        ("wrong", "failed"),
    ] {
        let labels = format!("{{certificate=\"{name}\",result=\"{result}\"}}");
        let orders = metrics.get(&format!("pushgate_acme_orders_total{labels}"));
        assert_eq!(orders, Some(&1.0), "{name}");
    }
    let series = "pushgate_certificate_warning{certificate=\"wrong\",warning=\"placeholder\"}";
    assert_eq!(metrics.get(series), Some(&1.0));
    let left = std::fs::read_dir(stage.state.path().join("challenges")).expect("a folder");
    assert_eq!(left.count(), 0, "challenges are removed");
}

/// Aim: an edge answers the challenge of another one that shares its folder, by TLS, and serves what that one got
/// without an order of its own. The authority registers only customers. Source: issue 15 §4; RFC 8555 §7.3.4. Fails if
/// challenges are known only to the edge that orders, or if the connection of an authority goes on after its handshake.
#[tokio::test(flavor = "multi_thread")]
async fn edges_share_a_folder() {
    let (one, two, certs) = (Block::claim(), Block::claim(), Certs::new());
    let state = tempfile::tempdir().expect("a folder");
    let dns = Dns::start(&one).await;
    let (id, key) = ("kid-1", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY");
    let pebble = Pebble::start(&one, &certs, &dns, Some((id, key))).await;
    let key_file = certs.dir().join("acme.key");
    std::fs::write(&key_file, key).expect("write");
    let account = format!("{{ id: {id}, key_file: {} }}", key_file.display());
    let url = pebble.url();
    // The name leads to the second edge only.
    dns.hosts("push.mycompany.com", &[two.ip("200.0.0.10").into()]);
    let fresh = (-100, 86_400);
    put(&certs, state.path(), ("other.mycompany.com", &url), fresh);
    let keys = |name: &str| {
        format!(
            "domains: [{name}.mycompany.com], directory: '{url}', challenge: tls-alpn-01, \
             external_account: {account}"
        )
    };
    let file = |name: &str| yaml(&certs, state.path(), &[(name, &keys(name))]);
    let second = Edge::start_unready(&two, &file("other")).await;
    let first = Edge::start_unready(&one, &file("push")).await;
    let at =
        |block: &Block| Dial::tls(block.at("200.0.0.10:443"), "push.mycompany.com", certs.ca());
    let root = pebble.root().await;
    trusted(&at(&one), &root).await;
    let reason = "pushgate_connections_refused_total{listener=\"tls\",reason=\"acme_challenge\"}";
    deadline("the end of the authority's connection", async {
        while !second.metrics().await.contains_key(reason) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(first.metrics().await.get(reason), None);

    second.rewrite(&two, &file("push"));
    assert_eq!(second.admin("POST", "/api/reload").await.status, 200);
    assert_eq!(shown(&at(&two)).await, shown(&at(&one)).await);
    let metrics = second.metrics().await;
    let mut orders = metrics
        .keys()
        .filter(|k| k.starts_with("pushgate_acme_orders_total"));
    assert_eq!(orders.next(), None, "the second edge orders nothing");
}

/// A configuration with the certificate `push`, and the URL of its authority, at which nothing listens.
fn without_authority(block: &Block, certs: &Certs, state: &Path) -> (String, String) {
    let url = format!("https://{}:14000/dir", block.ip("10.0.0.40"));
    let keys = format!("domains: [push.mycompany.com], directory: '{url}'");
    let yaml = yaml(certs, state, &[("push", &keys)]);
    (format!("{yaml}upgrade_socket: up.sock\n"), url)
}

/// Waits for two looks, at which an order would begin.
async fn looks() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// Begins the log line of a failure of the certificate `push`.
const FAILED: &str = "certificate push: https";

/// Aim: edges that share a folder fail as one: a failure pauses the others too, and outlives a start; the first reload
/// tries again at once, the next one does not; a success from elsewhere ends the failures of all. Source: issue 15 §4.
/// Fails if each edge begins its own row of failures, or if an alert goes on for months after another edge's success.
#[tokio::test(flavor = "multi_thread")]
async fn edges_fail_as_one() {
    let (one, two, certs) = (Block::claim(), Block::claim(), Certs::new());
    let state = tempfile::tempdir().expect("a folder");
    let (yaml, url) = without_authority(&one, &certs, state.path());
    let (failures, orders) = ("pushgate_acme_failures", "pushgate_acme_orders_total");
    let first = Edge::start_unready(&one, &yaml).await;
    first.wait_metric(failures, |n| n == 1.0).await;
    let second = Edge::start_unready(&two, &yaml).await;
    second.wait_metric(failures, |n| n == 1.0).await;
    let own = second.metric(orders).await;
    assert_eq!(own, 0.0, "it waits with the first");
    second.wait_log(FAILED).await;
    assert!(second.log().contains("Connection refused"));
    for _ in 0..2 {
        assert_eq!(second.admin("POST", "/api/reload").await.status, 200);
        second.wait_metric(failures, |n| n == 2.0).await;
        looks().await;
        assert_eq!(second.metric(orders).await, 1.0);
    }
    let name = ("push.mycompany.com", &*url);
    put(&certs, state.path(), name, (-100, 86_400));
    for edge in [&first, &second] {
        edge.wait_metric(failures, |n| n == 0.0).await;
    }
}

/// Aim: a process that drains orders nothing, while its successor does. Source: issue 15 §4. Fails if a predecessor
/// with live flows orders by its old configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_orders_nothing() {
    let (block, certs) = (Block::claim(), Certs::new());
    let state = tempfile::tempdir().expect("a folder");
    let (yaml, url) = without_authority(&block, &certs, state.path());
    let name = ("push.mycompany.com", &*url);
    put(&certs, state.path(), name, (-100, 86_400));
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let edge = Edge::start(&block, &yaml).await;
    let _live = H1::stream(&Dial::plain(block.at("200.0.0.10:80"))).await;
    let next = edge.successor();
    edge.wait_log("another process has taken over").await;
    std::fs::remove_file(state.path().join("push.pem")).expect("there");
    next.wait_log(FAILED).await;
    looks().await;
    let log = edge.log();
    assert!(!log.contains(FAILED), "{log}");
}
