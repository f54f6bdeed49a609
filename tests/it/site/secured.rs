//! A store as an operator secures it: TLS, a user with the rights that the docs name, replicas, Sentinel.
//!
//! In: real servers of redis. Out: what one edge says of its store, and whether claims pass.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::redis::Redis;
use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::{HOST, node};
use crate::vip::Block;

/// An edge with one node, and a store as `redis` says.
async fn edge(block: &Block, node: &Node, redis: &str) -> Edge {
    let yaml = format!(
        "state: {{ name: a, redis: {{ wait: 1s, {redis} }} }}\nnodes: {{ n1: {{ address: \"{}\" }} }}\n\
         pools: {{ p: {{ nodes: [n1] }} }}\nlisteners:\n  - {{ name: push, bind: [200.0.0.10:80], mode: http, \
         to: p, plugins: [{{ sticky_ip: {{}} }}] }}\n",
        node.addr
    );
    Edge::start(block, &yaml).await
}

async fn is_ok(edge: &Edge) {
    let ok = "pushgate_store_state{state=\"ok\"}";
    deadline("the store to be ok", async {
        while edge.metrics().await.get(ok) != Some(&1.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Sends a request of client `n`; its claim must be won.
async fn claims(edge: &Edge, block: &Block, n: u8) {
    let won = "pushgate_store_claims_total{result=\"won\"}";
    let before = edge.metrics().await.get(won).copied().unwrap_or_default();
    let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let mut client = H1::connect(&dial.from(block.client(n))).await;
    assert_eq!(client.get("/hello", &[]).await.status, 200);
    assert_eq!(edge.metrics().await.get(won), Some(&(before + 1.0)));
}

/// The rights that docs/scale.md gives to the edges' user.
fn rights() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scale.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let line = text
        .lines()
        .find(|line| line.starts_with("user pushgate on "));
    line.expect("the user in docs/scale.md").to_owned()
}

/// A redis-server with TLS at port 6379, and in clear at 6380 for the test. Its user has the documented rights.
async fn secured(block: &Block, certs: &Certs) -> Redis {
    let at = SocketAddr::new(block.ip("200.0.0.2").into(), 6380);
    let leaf = certs.leaf("redis", &[&at.ip().to_string()], Key::Ecdsa);
    let write = |file: &str, text: &str| {
        let path = certs.dir().join(file);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let user = rights().replace(">PASSWORD", ">secret");
    let users = write(
        "users",
        &format!("user default on nopass ~* &* +@all\n{user}\n"),
    );
    write("password", "secret\n");
    write("wrong", "guessed\n");
    let (cert, key) = (
        leaf.chain.display().to_string(),
        leaf.key.display().to_string(),
    );
    let tls = [
        "--tls-port",
        "6379",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
    ];
    let rest = ["--tls-auth-clients", "no", "--aclfile", &users];
    Redis::start_with(at, &[&tls[..], &rest].concat()).await
}

/// The URL of that server.
fn url(block: &Block) -> String {
    let ip = block.ip("200.0.0.2");
    format!("url: \"rediss://pushgate@{ip}:6379\"")
}

/// Aim: over TLS, with a password and no more rights than documented, claims, counts and orders pass. Fails if a
/// command needs a right that the page lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_secured_store_serves() {
    let (block, certs) = (Block::claim(), Certs::new());
    let redis = secured(&block, &certs).await;
    let first = node(&block, 1).await;
    let (url, dir) = (url(&block), certs.dir().display());
    let files = format!("password_file: {dir}/password, ca_file: {dir}/ca.pem");
    let edge = edge(&block, &first, &format!("{url}, {files}")).await;
    is_ok(&edge).await;
    claims(&edge, &block, 1).await;
    for order in ["drain", "up"] {
        let answer = edge.admin("POST", &format!("/api/nodes/n1/{order}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    deadline("counts and orders in the store", async {
        while redis.ask(&["--scan", "--pattern", "pushgate:*"]).len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let metrics = edge.metrics().await;
    let failed = metrics.get("pushgate_store_questions_total{result=\"failed\"}");
    assert_eq!(failed.copied().unwrap_or_default(), 0.0);
    let denied = redis.ask(&["ACL", "LOG"]);
    assert!(denied.iter().all(|line| line.is_empty()), "{denied:?}");
}

/// Aim: an authority or a password that is wrong is told, and the edge serves. Fails if only a later failure is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_told() {
    let (block, certs, other) = (Block::claim(), Certs::new(), Certs::new());
    let _redis = secured(&block, &certs).await;
    let first = node(&block, 1).await;
    let (url, dir, stranger) = (url(&block), certs.dir().display(), other.dir().display());
    for (files, said) in [
        (
            format!("password_file: {dir}/password, ca_file: {stranger}/ca.pem"),
            "TLS: ",
        ),
        (
            format!("password_file: {dir}/wrong, ca_file: {dir}/ca.pem"),
            "WRONGPASS",
        ),
    ] {
        let edge = edge(&block, &first, &format!("{url}, {files}")).await;
        edge.wait_log(said).await;
        let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
        let mut client = H1::connect(&dial).await;
        assert_eq!(client.get("/hello", &[]).await.status, 200);
    }
}

/// Aim: of several addresses the master is used, and the next one after a failover; the same where Sentinel knows the
/// master. Fails if the edge writes to a replica.
#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_found() {
    let block = Block::claim();
    let at = |port| SocketAddr::new(block.ip("200.0.0.2").into(), port);
    let mut master = Redis::start(at(6379)).await;
    let (ip, port) = (at(0).ip().to_string(), "6379");
    let replica = Redis::start_with(
        at(6380),
        &[
            "--replicaof",
            &format!("{ip} {port}"),
            "--replica-announce-ip",
            &ip,
        ],
    )
    .await;
    let dir = tempfile::tempdir().expect("a folder");
    let conf = dir.path().join("sentinel.conf");
    let text = format!(
        "bind {ip}\nport 6381\nsentinel monitor push {ip} 6379 1\nsentinel down-after-milliseconds push 500\n\
         sentinel failover-timeout push 5000\n"
    );
    std::fs::write(&conf, text).expect("write");
    let _sentinel = Redis::sentinel(at(6381), &conf).await;
    let first = node(&block, 1).await;
    let listed = edge(
        &block,
        &first,
        &format!("url: [\"{}\", \"{}\"]", replica.url(), master.url()),
    )
    .await;
    is_ok(&listed).await;
    claims(&listed, &block, 1).await;
    drop(listed);
    let block_b = Block::claim();
    let url = format!("url: \"redis://{}\", sentinel: push", at(6381));
    let asked = edge(&block_b, &first, &url).await;
    is_ok(&asked).await;
    claims(&asked, &block_b, 2).await;
    deadline("the replica to be ready, and known to Sentinel", async {
        let ready = || {
            let lines = replica.ask(&["INFO", "replication"]);
            lines
                .iter()
                .any(|line| line.trim() == "master_link_status:up")
        };
        while !ready() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // Sentinel asks a master for its replicas every ten seconds, and at its own start.
    tokio::time::sleep(Duration::from_secs(11)).await;
    master.kill();
    asked
        .wait_log(&format!("store: ok: {}", replica.url()))
        .await;
    claims(&asked, &block_b, 3).await;
}
