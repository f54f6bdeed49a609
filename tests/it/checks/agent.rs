//! The agent of a node: a program beside it that says how it does.
//!
//! In: what an agent says, or that it says nothing. Out: state and weight of the node, and what operators see of it.
//! Source: HAProxy configuration manual, "agent-check"; issue 15 §3.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::setup;
use crate::vip::Block;

/// An agent that says the same to each who asks. Dropping it ends it.
struct Agent {
    says: Arc<Mutex<String>>,
    heard: Arc<Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start(block: &Block, says: &str) -> Agent {
        let at = block.at("10.0.0.1:9777");
        let listener = TcpListener::bind(at).await.expect("the agent's port");
        let says = Arc::new(Mutex::new(says.to_owned()));
        let heard = Arc::new(Mutex::new(String::new()));
        let (words, ears) = (says.clone(), heard.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4];
                if stream.read_exact(&mut asked).await.is_ok() {
                    *ears.lock() = String::from_utf8_lossy(&asked).into_owned();
                    let line = words.lock().clone();
                    let _ = stream.write_all(line.as_bytes()).await;
                }
            }
        });
        Agent { says, heard, task }
    }

    fn say(&self, line: &str) {
        *self.says.lock() = line.to_owned();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Two nodes of weight 10, the first with an agent.
const YAML: &str = "
nodes:
  n1:
    address: 10.0.0.1:8080
    weight: 10
    health: { http: { path: /health }, interval: 20ms, rise: 1, fall: 1, hold_down: 0s,
      agent: { port: 9777, send: \"n1?\\n\", interval: 20ms, timeout: 5s } }
  n2: { address: 10.0.0.2:8080, weight: 10 }
pools: { p: { nodes: [n1, n2], balance: round_robin } }
listeners: [{ name: a, bind: [200.0.0.10:80], mode: http, to: p }]
";

/// Which nodes get the next four new clients.
async fn balanced(block: &Block) -> Vec<String> {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let mut client = H1::connect(&Dial::plain(block.at("200.0.0.10:80"))).await;
        nodes.push(client.get("/hello", &[]).await.node().to_owned());
    }
    nodes
}

/// Waits until n1 has this state, weight and cause.
async fn wait(edge: &Edge, state: &str, weight: u64, why: &str) -> Value {
    let what = format!("n1 {state}, weight {weight}, {why}");
    let is = |all: &Value| {
        let n1 = &all[0];
        let said = n1["why"].as_str().unwrap_or_default();
        n1["state"] == state && n1["weight"] == weight && said.contains(why)
    };
    edge.wait_nodes(&what, is).await
}

/// Waits until the series `name` is `good`.
async fn wait_series(edge: &Edge, name: &str, good: impl Fn(f64) -> bool) {
    deadline(name, async {
        while !edge.metrics().await.get(name).is_some_and(|n| good(*n)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the agent was asked twice and answered.
async fn asked(edge: &Edge) {
    let questions = "pushgate_agent_checks_total{node=\"n1\",result=\"pass\"}";
    let before = edge.metrics().await.get(questions).copied();
    wait_series(edge, questions, |n| n > before.unwrap_or_default() + 2.0).await;
}

/// Aim: an agent decides the share and the state of its node from the first flow on. One that is silent, or says what
/// nobody understands, changes nothing and is told once. Fails if a part of an answer undoes another part, or if
/// silence ends a drain.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_how_its_node_does() {
    let block = Block::claim();
    let _nodes = [setup::node(&block, 1).await, setup::node(&block, 2).await];
    let agent = Agent::start(&block, "drain 50%\n").await;
    let edge = Edge::start(&block, YAML).await;
    assert_eq!(balanced(&block).await, ["n2"; 4], "from the first flow on");
    let told = wait(&edge, "draining", 5, "agent: drain 50%").await;
    assert_eq!(*agent.heard.lock(), "n1?\n");
    assert_eq!(
        (&told[0]["agent"]["verdict"], &told[0]["agent"]["outcome"]),
        (&"drain".into(), &"pass".into())
    );
    assert_eq!(told[1]["agent"], Value::Null);
    wait_series(&edge, "pushgate_node_weight{node=\"n1\"}", |w| w == 5.0).await;

    agent.say("ready 100%");
    wait(&edge, "up", 10, "agent: ready").await;
    assert!(balanced(&block).await.contains(&"n1".to_owned()));
    agent.say("up 0%");
    wait(&edge, "up", 0, "").await;
    assert_eq!(balanced(&block).await, ["n2"; 4], "no share");
    agent.say("DOWN,25% # disk full\r\nnever read");
    wait(&edge, "down", 3, "agent: DOWN,25% # disk full").await;

    agent.say("whatever");
    let fails = "pushgate_agent_checks_total{node=\"n1\",result=\"fail\"}";
    wait_series(&edge, fails, |n| n >= 2.0).await;
    drop(agent);
    wait_series(&edge, fails, |n| n >= 4.0).await;
    let told = edge.nodes().await;
    assert_eq!(
        (&told[0]["state"], &told[0]["weight"]),
        (&"down".into(), &3.into())
    );
    assert_eq!(told[0]["agent"]["outcome"], "fail");
    let missed = "node n1: no answer of its agent: it said `whatever`, expected up";
    assert_eq!(edge.log().matches("no answer of its agent").count(), 1);
    edge.wait_log(missed).await;

    let agent = Agent::start(&block, "maint").await;
    edge.wait_log("node n1: its agent answers again").await;
    agent.say("up");
    asked(&edge).await;
    assert_eq!(edge.nodes().await[0]["state"], "down", "up is not ready");
    agent.say("ready");
    wait(&edge, "up", 3, "agent: ready").await;
    edge.rewrite(&block, &without_agent());
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    let told = wait(&edge, "up", 10, "").await;
    assert_eq!(
        told[0]["agent"],
        Value::Null,
        "the file names none any more"
    );
}

fn without_agent() -> String {
    let agent = YAML.find(",\n      agent:").expect("the agent");
    let end = YAML[agent..].find(" }\n").expect("its end");
    format!("{}{}", &YAML[..agent], &YAML[agent + end..])
}

/// Aim: an operator's order stands above the agent: a weight until 100 % takes it back, `up` until the agent says
/// another word, but never above `down`. Fails if the next answer of the agent undoes an order.
#[tokio::test(flavor = "multi_thread")]
async fn orders_stand_above_an_agent() {
    let block = Block::claim();
    let _nodes = [setup::node(&block, 1).await, setup::node(&block, 2).await];
    let agent = Agent::start(&block, "drain 50%").await;
    let edge = Edge::start(&block, YAML).await;
    let order = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
        let done = command.args(args).args(["--admin", &edge.admin_url()]);
        let done = done.output().expect("the built program starts");
        assert!(done.status.success(), "{args:?}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    wait(&edge, "draining", 5, "agent: drain").await;
    assert_eq!(order(&["weight", "n1", "80%"]), "n1 has weight 8\n");
    assert_eq!(order(&["up", "n1"]), "n1 is up\n");
    asked(&edge).await;
    let told = wait(&edge, "up", 8, "ordered").await;
    assert_eq!(told[0]["agent"]["overruled"], true);
    let table = order(&["nodes"]);
    assert!(table.contains("against its agent: drain 50%"), "{table}");

    assert_eq!(order(&["weight", "n1", "100%"]), "n1 has weight 5\n");
    let table = order(&["nodes"]);
    assert!(table.contains("against its agent"), "{table}");
    order(&["drain", "n1"]);
    agent.say("ready 75%");
    asked(&edge).await;
    wait(&edge, "draining", 8, "ordered").await;
    order(&["up", "n1"]);
    agent.say("fail");
    wait(&edge, "down", 8, "agent: fail").await;
    assert_eq!(order(&["up", "n1"]), "n1 is still down: agent: fail\n");
    agent.say("up drain");
    wait(&edge, "draining", 8, "agent: up drain").await;
    agent.say("ready");
    wait(&edge, "up", 8, "agent: ready").await;
    let table = order(&["nodes"]);
    assert!(table.contains("agent: ready; agent: 75%"), "{table}");
}
