//! `pushgate simulate` against a real run of the same script: shares within 5 %.
//!
//! In: one file, one script: clients arrive, a node is killed and started again, or a pool is rebalanced.
//! Out: each node's share of the live flows, from the simulation and from the running edge. Source:
//! Lightstreamer clustering §5.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

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

fn yaml(plugins: &str) -> String {
    format!(
        "nodes:\n  n1: {{ address: 10.0.0.1:8080 }}\n  n2: {{ address: 10.0.0.2:8080 }}\n  \
         n3: {{ address: 10.0.0.3:8080, weight: 2 }}\n\
         pools:\n  p:\n    nodes: [n1, n2, n3]\n    \
         health: {{ http: {{ path: /health }}, interval: 50ms, timeout: 60s, rise: 1, fall: 1 }}\n\
         listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
         plugins: {plugins}\n"
    )
}

/// The simulation's result for the edge's file and `script`.
fn simulated(edge: &Edge, script: &str) -> Value {
    let line = format!(
        "--clients {CLIENTS} --arrive 1s --rebind 1s --reconnect 0s..500ms --duration 7s --json {script}"
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

/// One client from `begin` on: one stream at a time, reopened after about a second, or after a pause if it
/// was cut.
async fn client(dial: Dial, begin: Instant, late: Arc<AtomicU64>) {
    let mut cookie = String::new();
    sleep_until(begin + Duration::from_millis(fastrand::u64(0..1_000))).await;
    loop {
        let asked = Instant::now();
        let mut stream = H1::connect(&dial).await;
        let cookies = [("Cookie", cookie.as_str())];
        let headers = if cookie.is_empty() { &[] } else { &cookies[..] };
        let sent = stream.send("GET", "/sse?silent=1", headers, b"").await;
        let head = match sent {
            Ok(()) => stream.head().await.ok(),
            Err(_) => None,
        };
        late.fetch_max(asked.elapsed().as_millis() as u64, Ordering::Relaxed);
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
fn shares<'a>(live: impl Iterator<Item = &'a Value>) -> Vec<f64> {
    let live: Vec<f64> = live.map(|n| n.as_f64().expect("flows")).collect();
    let all: f64 = live.iter().sum();
    live.iter().map(|n| n / all).collect()
}

/// Nodes, the edge, and its clients, which arrive in the first second.
struct Run {
    /// First, so that they leave before the edge does.
    _clients: JoinSet<()>,
    block: Block,
    nodes: Vec<Node>,
    edge: Edge,
    begin: Instant,
    /// The longest time that a client waited for an answer, in milliseconds. The simulated client does not
    /// wait.
    late: Arc<AtomicU64>,
}

impl Run {
    async fn start(plugins: &str, before: impl AsyncFnOnce(&Edge)) -> Run {
        let block = Block::claim();
        let mut nodes = Vec::new();
        for n in 1..=3 {
            let at = block.at(&format!("10.0.0.{n}:8080"));
            nodes.push(Node::start(&format!("n{n}"), at).await);
        }
        let edge = Edge::start(&block, &yaml(plugins)).await;
        before(&edge).await;
        // A rebalance begins on a full second, and so does the simulated clock.
        let wall = SystemTime::UNIX_EPOCH
            .elapsed()
            .expect("a clock after 1970");
        let begin =
            Instant::now() + Duration::from_nanos(1_000_000_000 - u64::from(wall.subsec_nanos()));
        let (mut clients, late) = (JoinSet::new(), Arc::<AtomicU64>::default());
        for n in 0..CLIENTS {
            let dial = Dial::plain(block.at("200.0.0.10:80"));
            let from = block.client((n % 200) as u8 + 1);
            let dial = dial.from(from).host("push.mycompany.com");
            clients.spawn(client(dial, begin, late.clone()));
        }
        Run {
            _clients: clients,
            block,
            nodes,
            edge,
            begin,
            late,
        }
    }

    async fn until(&self, millis: u64) {
        sleep_until(self.begin + Duration::from_millis(millis)).await;
    }

    /// Compares the shares at the end of `second` with the simulation's.
    async fn agrees(&self, told: &Value, second: u64) -> Result<(), Off> {
        self.until(second * 1_000).await;
        let nodes = self.edge.nodes().await;
        let nodes = nodes.as_array().expect("a list");
        let real = shares(nodes.iter().map(|n| &n["flows"]));
        let live = &told["seconds"][second as usize - 1]["live"];
        let simulated = shares(live.as_array().expect("a list").iter());
        let what = format!("second {second}: real {real:.3?}, simulated {simulated:.3?}");
        println!("{what}");
        let mut both = real.iter().zip(&simulated);
        match both.all(|(real, simulated)| (real - simulated).abs() < 0.05) {
            true => Ok(()),
            false => Err(Off {
                what,
                late: self.late.load(Ordering::Relaxed),
            }),
        }
    }
}

/// Shares that differ from the simulation's, and how late the machine was in that run.
struct Off {
    what: String,
    late: u64,
}

/// If a client waits this many milliseconds for an answer, the machine does not keep time; on an idle machine
/// the most was 30.
const LATE: u64 = 100;
const RUNS: u32 = 4;

/// Compares `run` with the simulation. If a run differs and the machine was late, the run did not follow the
/// script and is repeated.
async fn agree(run: impl AsyncFn() -> Result<(), Off>) {
    for left in (0..RUNS).rev() {
        match run().await {
            Ok(()) => return,
            Err(off) if off.late >= LATE && left > 0 => {
                println!("an answer took {} ms, again", off.late);
            }
            Err(off) => panic!("{} ({} ms late)", off.what, off.late),
        }
    }
}

async fn a_node_fails(plugins: &str) -> Result<(), Off> {
    let mut run = Run::start(plugins, async |_| {}).await;
    let script = format!("--fail n2@{FAIL}ms --return n2@{BACK}ms");
    let told = simulated(&run.edge, &script);
    run.agrees(&told, 2).await?;
    run.until(FAIL).await;
    run.nodes[1].kill();
    run.agrees(&told, 3).await?;
    run.until(BACK).await;
    run.nodes[1] = Node::start("n2", run.block.at("10.0.0.2:8080")).await;
    run.agrees(&told, 7).await
}

/// Aim: with and without stickiness the simulation predicts the edge's shares. Fails if it decides by other
/// code, or ignores weights, failures or returns.
#[tokio::test(flavor = "multi_thread")]
async fn shares_are_those_of_a_real_run() {
    let each = ["[]", "[{ sticky_cookie: {} }]"]
        .map(|plugins| agree(async || a_node_fails(plugins).await));
    futures_util::future::join_all(each).await;
}

/// Aim: the same for a rebalance, before, during and after it: a node returns from a drain with half of the
/// pool's weight, and clients are moved at a rate. Fails if the simulated course differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_is_that_of_a_real_run() {
    agree(a_rebalance).await;
}

async fn a_rebalance() -> Result<(), Off> {
    let order = async |edge: &Edge, path: &str| {
        let answer = edge.admin("POST", path).await;
        assert!(answer.status < 300, "{path}: {}", answer.text());
    };
    let drained = async |edge: &Edge| order(edge, "/api/nodes/n3/drain").await;
    let run = Run::start("[{ sticky_cookie: {} }]", drained).await;
    let script = "--drain n3@0s --return n3@2300ms --rebalance p@2500ms:to-even,rate=60/s,close";
    let told = simulated(&run.edge, script);
    run.agrees(&told, 2).await?;
    run.until(2_300).await;
    order(&run.edge, "/api/nodes/n3/up").await;
    run.until(2_500).await;
    order(&run.edge, "/api/pools/p/rebalance?to_even&rate=60/s&close").await;
    for second in [4, 5, 7] {
        run.agrees(&told, second).await?;
    }
    let moved = &told["rebalances"][0]["moved"];
    assert!(moved.as_u64().is_some_and(|n| n > 100), "{told}");
    Ok(())
}
