//! Two edges with one key; a sticky table under a flood of addresses.
//!
//! In: clients whose requests alternate between the edges; more addresses than a table has room for. Out: the
//! node each request reached. Source: FAULTS D46, D50; Lightstreamer clustering §2.1.2, §5.1.

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::edge::Edge;
use crate::setup::{HOST, node};
use crate::vip::Block;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

async fn get(dial: &Dial, cookie: Option<&str>) -> (String, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|c| ("Cookie", *c)).collect();
    let answer = H1::connect(dial).await.get("/hello", &headers).await;
    assert_eq!(answer.status, 200);
    let set = answer.cookies();
    let pair = set.first().and_then(|line| line.split(';').next());
    (answer.node().to_owned(), pair.map(str::to_owned))
}

/// Aim: D50. Two edges share a key file and nothing else. A client whose requests alternate between them
/// reaches one node and gets no new cookie. When both edges forget a share of the assignments with the same
/// `before`, they forget the same clients. Fails if ids, ages or hashes depend on the process.
#[tokio::test(flavor = "multi_thread")]
async fn edges_with_one_key_agree() {
    let (block, other) = (Block::claim(), Block::claim());
    let nodes = [
        node(&block, 1).await,
        node(&block, 2).await,
        node(&block, 3).await,
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let keys = dir.path().join("keys");
    std::fs::write(&keys, KEY).expect("write");
    let listed: String = nodes
        .iter()
        .enumerate()
        .map(|(i, n)| format!("  n{}: {{ address: \"{}\" }}\n", i + 1, n.addr))
        .collect();
    let yaml = format!(
        "nodes:\n{listed}pools: {{ p: {{ nodes: [n1, n2, n3], balance: random }} }}\n\
         listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
         plugins: [{{ sticky_cookie: {{ key_file: {} }} }}]\n",
        keys.display()
    );
    let edges = [
        Edge::start(&block, &yaml).await,
        Edge::start(&other, &yaml).await,
    ];
    let vips = [&block, &other].map(|b| Dial::plain(b.at("200.0.0.10:80")).host(HOST));
    let mut clients = Vec::new();
    for n in 0..120 {
        let (home, cookie) = get(&vips[n % 2], None).await;
        let cookie = cookie.expect("a new client gets one");
        for turn in 1..=4 {
            let (reached, new) = get(&vips[(n + turn) % 2], Some(&cookie)).await;
            assert_eq!(
                (reached, new),
                (home.clone(), None),
                "client {n}, turn {turn}"
            );
        }
        clients.push((home, cookie));
    }
    #[expect(clippy::disallowed_methods, reason = "it does not step in a test")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let before = now.expect("after 1970").as_secs() + 1;
    for edge in &edges {
        let order =
            format!("/api/pools/p/rebalance?from=n1&share=50%25&before={before}&rate=10000/s");
        assert_eq!(edge.admin("POST", &order).await.status, 202);
        crate::deadline("its end", async {
            let state = || edge.admin("GET", "/api/pools/p/rebalance");
            while !state().await.text().contains("\"done\"") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let mut forgotten = 0;
    for (home, cookie) in &clients {
        let mut verdicts = Vec::new();
        for vip in &vips {
            verdicts.push(get(vip, Some(cookie)).await.1.is_some());
        }
        assert_eq!(verdicts[0], verdicts[1], "{home} {cookie}");
        assert!(!verdicts[0] || home == "n1");
        forgotten += usize::from(verdicts[0]);
    }
    let of = clients.iter().filter(|(home, _)| home == "n1").count();
    assert!(
        forgotten > of / 5 && forgotten < of - of / 5,
        "{forgotten} of {of}"
    );
}

/// Aim: a rotation by `pushgate keys` loses no client while only one of two edges has it. A new client of the
/// edge with the new key is known to the edge without, and an old client to both. Fails if the new key was not
/// in the file before, or if the old one is gone. Source: D43, D50; issue 16 §7.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_needs_no_common_moment() {
    let blocks = [Block::claim(), Block::claim()];
    let nodes = [node(&blocks[0], 1).await, node(&blocks[0], 2).await];
    let dir = tempfile::tempdir().expect("a folder");
    let file = |n: usize| dir.path().join(format!("{n}.keys"));
    let keys = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pushgate"));
        let done = command.arg("keys").args(words).arg(file(0)).output();
        let done = done.expect("the built program starts");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{words:?}: {said}");
    };
    let copy = || std::fs::copy(file(0), file(1)).expect("a copy");
    keys(&["make", "cookie"]);
    copy();
    let yaml = |n: usize| {
        format!(
            "nodes: {{ n1: {{ address: \"{}\" }}, n2: {{ address: \"{}\" }} }}\n\
             pools: {{ p: {{ nodes: [n1, n2], balance: random }} }}\n\
             listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
             plugins: [{{ sticky_cookie: {{ key_file: {} }} }}]\n",
            nodes[0].addr,
            nodes[1].addr,
            file(n).display()
        )
    };
    let edges = [
        Edge::start(&blocks[0], &yaml(0)).await,
        Edge::start(&blocks[1], &yaml(1)).await,
    ];
    let vips = [0, 1].map(|n: usize| Dial::plain(blocks[n].at("200.0.0.10:80")).host(HOST));
    let mut clients = Vec::new();
    for turn in 0..3 {
        keys(&["rotate"]);
        let answer = edges[0].admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for n in 0..8 {
            let (home, cookie) = get(&vips[n % 2], None).await;
            clients.push((home, cookie.expect("a new client gets one")));
        }
        for (home, cookie) in &clients {
            for vip in &vips {
                let (reached, new) = get(vip, Some(cookie)).await;
                assert_eq!((&reached, new), (home, None), "turn {turn}");
            }
        }
        copy();
        let answer = edges[1].admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Aim: D46. 6,000 addresses flood a table with room for 2,000. Fifty addresses with live flows keep their
/// node, whatever the balancer would choose, also after a reload leaves room for twenty. Fails if the oldest
/// entry is dropped first although it has a live flow, or if a live client must find room again.
#[tokio::test(flavor = "multi_thread")]
async fn live_addresses_outlast_a_flood() {
    let block = Block::claim();
    let _nodes = [node(&block, 1).await, node(&block, 2).await];
    let yaml = "nodes:\n  n1: { address: 10.0.0.1:8080 }\n  n2: { address: 10.0.0.2:8080 }\n\
        pools: { p: { nodes: [n1, n2], balance: round_robin } }\n\
        listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
        plugins: [{ sticky_ip: { from: x_forwarded_for, trust: [127.0.0.0/8], capacity: 2000 } }]\n";
    let edge = Edge::start(&block, yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let mut live = Vec::new();
    for n in 0..50 {
        let address = format!("192.0.2.{n}");
        let socket = ws::connect(&dial, "/ws/silent", &[("X-Forwarded-For", &address)]).await;
        live.push((address, socket));
    }
    let mut flood = Vec::new();
    for part in 0..8 {
        let dial = dial.clone();
        flood.push(tokio::spawn(async move {
            let mut client = H1::connect(&dial).await;
            for n in 0..750 {
                let address = format!("2001:db8:{part}:{n}::1");
                let answer = client.get("/hello", &[("X-Forwarded-For", &address)]).await;
                assert_eq!(answer.status, 200);
            }
        }));
    }
    for part in flood {
        part.await.expect("a part of the flood");
    }
    for capacity in ["2000", "20"] {
        edge.rewrite(&block, &yaml.replace("2000", capacity));
        assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
        for (address, socket) in &live {
            for _ in 0..3 {
                let headers = [("X-Forwarded-For", address.as_str())];
                let answer = H1::connect(&dial).await.get("/hello", &headers).await;
                assert_eq!(
                    answer.node(),
                    socket.node(),
                    "{address}, room for {capacity}"
                );
            }
        }
    }
}
