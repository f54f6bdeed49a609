//! `pushgate simulate` against a real run of the same script: shares within 5 %.
//!
//! In: one file, one script: clients come, a node is killed, it is started again. Out: each node's share of
//! the live flows, told by the simulation and by the running edge. Source: Lightstreamer clustering §5.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::Dial;
use crate::client::h1::H1;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

const CLIENTS: u64 = 300;
/// When the node is killed and started again, in milliseconds.
const FAIL: u64 = 2_300;
const BACK: u64 = 3_600;
/// When shares are compared, in seconds: all there, one dead, one back.
const LOOKS: [u64; 3] = [2, 3, 7];

fn yaml(plugins: &str) -> String {
    format!(
        "nodes:\n  n1: {{ address: 10.0.0.1:8080 }}\n  n2: {{ address: 10.0.0.2:8080 }}\n  \
         n3: {{ address: 10.0.0.3:8080, weight: 2 }}\n\
         pools:\n  p:\n    nodes: [n1, n2, n3]\n    \
         health: {{ http: {{ path: /health }}, interval: 50ms, timeout: 5s, rise: 1, fall: 1 }}\n\
         listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
         plugins: {plugins}\n"
    )
}

/// What the simulation says of the file the edge runs on.
fn simulated(edge: &Edge) -> Value {
    let line = format!(
        "--clients {CLIENTS} --arrive 1s --rebind 1s --reconnect 0s..500ms --duration 7s \
         --fail n2@{FAIL}ms --return n2@{BACK}ms --json"
    );
    let run = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["simulate", "-c"])
        .arg(edge.path())
        .args(line.split_whitespace())
        .output()
        .expect("the built program starts");
    let told = String::from_utf8_lossy(&run.stdout).into_owned();
    serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}{:?}", run.stderr))
}

/// One client from `begin` on: a stream at a time, opened again after about a second, or after a pause
/// when it was cut.
async fn client(dial: Dial, begin: Instant) {
    let mut cookie = String::new();
    sleep_until(begin + Duration::from_millis(fastrand::u64(0..1_000))).await;
    loop {
        let mut stream = H1::connect(&dial).await;
        let cookies = [("Cookie", cookie.as_str())];
        let headers = if cookie.is_empty() { &[] } else { &cookies[..] };
        let sent = stream.send("GET", "/sse?silent=1", headers, b"").await;
        let head = match sent {
            Ok(()) => stream.head().await.ok(),
            Err(_) => None,
        };
        if let Some(set) = head.as_ref().and_then(|h| h.cookies().first().copied()) {
            cookie = set.to_owned();
        }
        let rebind = Duration::from_millis(fastrand::u64(500..1_500));
        let cut = tokio::time::timeout(rebind, stream.ended()).await.is_ok();
        if cut {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..500))).await;
        }
    }
}

/// Each node's share of the live flows.
fn shares(live: &[f64]) -> Vec<f64> {
    let all: f64 = live.iter().sum();
    live.iter().map(|n| n / all).collect()
}

async fn compare(plugins: &str) {
    let block = Block::claim();
    let at = |n: u8| block.at(&format!("10.0.0.{n}:8080"));
    let _n1 = Node::start("n1", at(1)).await;
    let n2 = Node::start("n2", at(2)).await;
    let _n3 = Node::start("n3", at(3)).await;
    let edge = Edge::start(&block, &yaml(plugins)).await;
    let told = simulated(&edge);
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let from = block.client((n % 200) as u8 + 1);
        let dial = Dial::plain(block.at("200.0.0.10:80"))
            .from(from)
            .host("push.mycompany.com");
        clients.spawn(client(dial, begin));
    }
    let mut back = None;
    for second in LOOKS {
        if second == LOOKS[1] {
            sleep_until(begin + Duration::from_millis(FAIL)).await;
            n2.kill();
        }
        if second == LOOKS[2] {
            sleep_until(begin + Duration::from_millis(BACK)).await;
            back = Some(Node::start("n2", at(2)).await);
        }
        sleep_until(begin + Duration::from_secs(second)).await;
        let nodes = edge.nodes().await;
        let nodes = nodes.as_array().expect("a list").iter();
        let real = shares(
            &nodes
                .map(|n| n["flows"].as_f64().expect("flows"))
                .collect::<Vec<_>>(),
        );
        let live = &told["seconds"][second as usize - 1]["live"];
        let live = live.as_array().expect("a list").iter();
        let simulated = shares(&live.map(|n| n.as_f64().expect("flows")).collect::<Vec<_>>());
        println!("{plugins} second {second}: real {real:.3?}, simulated {simulated:.3?}");
        for (real, simulated) in real.iter().zip(&simulated) {
            assert!(
                (real - simulated).abs() < 0.05,
                "{plugins} second {second}: {real} {simulated}"
            );
        }
    }
    drop(back);
    clients.shutdown().await;
}

/// Aim: with and without stickiness the simulation tells the shares the edge has. Fails if it decides by
/// other code, or takes no notice of weights, failures or returns.
#[tokio::test(flavor = "multi_thread")]
async fn shares_are_those_of_a_real_run() {
    tokio::join!(compare("[]"), compare("[{ sticky_cookie: {} }]"));
}
