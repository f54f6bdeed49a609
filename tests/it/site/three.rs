//! Three edges, `a`, `b` and `c`, in front of the same nodes, with one store.

use std::net::SocketAddr;

use serde_json::Value;

use super::gate::Gate;
use super::redis::Redis;
use crate::client::Dial;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::{HOST, node};
use crate::vip::Block;

/// The names of the edges.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

/// The edges of a site.
pub struct Three {
    /// Their store.
    pub redis: Redis,
    /// Their nodes, `n1` first.
    pub nodes: Vec<Node>,
    /// The edges that run.
    pub edges: Vec<Edge>,
    blocks: Vec<Block>,
    _dir: tempfile::TempDir,
    pool: String,
    plugins: String,
    wait: String,
    /// Where the edges find the store.
    store: String,
    /// More listeners.
    listeners: String,
}

impl Three {
    /// Starts `edges` edges in front of `nodes` nodes. `KEYS` in `plugins` stands for a file of cookie keys that the
    /// edges share.
    pub async fn start(edges: usize, nodes: u8, plugins: &str, pool: &str) -> Three {
        let mut three = Three::without_edges(nodes, plugins, pool).await;
        for _ in 0..edges {
            three.start_next().await;
        }
        three
    }

    /// As [`Three::start`], with flows that wait for the store for at most `wait`, and reach it through a [`Gate`].
    pub async fn start_behind_gate(edges: usize, plugins: &str, wait: &str) -> (Three, Gate) {
        let mut three = Three::without_edges(3, plugins, "").await;
        let gate = Gate::start(three.redis.at()).await;
        three.wait = wait.to_owned();
        three.store = format!("redis://{}", gate.at);
        for _ in 0..edges {
            three.start_next().await;
        }
        (three, gate)
    }

    /// As [`Three::start`], with three nodes and more listeners.
    pub async fn start_with(edges: usize, plugins: &str, listeners: &str) -> Three {
        let mut three = Three::without_edges(3, plugins, "").await;
        three.listeners = listeners.to_owned();
        for _ in 0..edges {
            three.start_next().await;
        }
        three
    }

    /// Starts the store and the nodes.
    async fn without_edges(nodes: u8, plugins: &str, pool: &str) -> Three {
        let blocks: Vec<Block> = (0..3).map(|_| Block::claim()).collect();
        let dir = tempfile::tempdir().expect("a folder");
        let keys = dir.path().join("keys");
        std::fs::write(&keys, KEY).expect("write");
        let at = SocketAddr::new(blocks[0].ip("200.0.0.2").into(), 6379);
        let redis = Redis::start(at).await;
        let mut running = Vec::new();
        for n in 1..=nodes {
            running.push(node(&blocks[0], n).await);
        }
        Three {
            store: redis.url(),
            wait: "1s".to_owned(),
            listeners: String::new(),
            redis,
            nodes: running,
            edges: Vec::new(),
            blocks,
            plugins: plugins.replace("KEYS", &keys.display().to_string()),
            pool: pool.to_owned(),
            _dir: dir,
        }
    }

    /// Starts the next edge.
    pub async fn start_next(&mut self) {
        self.start_as(NAMES[self.edges.len()]).await;
    }

    /// Starts the next edge with another name.
    pub async fn start_as(&mut self, name: &str) {
        let n = self.edges.len();
        let yaml = self.yaml(n, "");
        let own = format!("name: {},", NAMES[n]);
        let yaml = yaml.replacen(&own, &format!("name: {name},"), 1);
        let edge = Edge::start(&self.blocks[n], &yaml).await;
        self.edges.push(edge);
    }

    /// Ends all edges.
    pub fn stop(&mut self) {
        self.edges.clear();
    }

    /// The file of edge `n`, with `more` keys of its pool.
    pub fn yaml(&self, n: usize, more: &str) -> String {
        let listed: String = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, node)| format!("  n{}: {{ address: \"{}\" }}\n", i + 1, node.addr))
            .collect();
        let names: Vec<String> = (1..=self.nodes.len()).map(|n| format!("n{n}")).collect();
        let health = "{ http: { path: /health }, interval: 50ms, timeout: 60s, rise: 1, fall: 1 }";
        let (name, url, wait) = (NAMES[n], &self.store, &self.wait);
        format!(
            "state: {{ name: {name}, redis: {{ url: \"{url}\", wait: {wait} }} }}\nupgrade_socket: up.sock\nnodes:\n{listed}pools:\n  p:\n    nodes: [{}]\n    health: {health}\n{}{more}\
             listeners:\n  - name: push\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n    \
             plugins: [{}]\n{}",
            names.join(", "),
            self.pool,
            self.plugins,
            self.listeners
        )
    }

    /// Changes the file of edge `n`, and reloads it.
    pub async fn reload(&self, n: usize, more: &str) {
        self.reload_with(n, &self.yaml(n, more)).await;
    }

    /// Reloads edge `n` with this file.
    pub async fn reload_with(&self, n: usize, yaml: &str) {
        self.edges[n].rewrite(&self.blocks[n], yaml);
        let answer = self.edges[n].admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// How to dial edge `n`.
    pub fn dial(&self, n: usize) -> Dial {
        Dial::plain(self.blocks[n].at("200.0.0.10:80")).host(HOST)
    }

    /// How to dial port `port` of edge `n`.
    pub fn dial_at(&self, n: usize, port: u16) -> Dial {
        Dial::plain(self.blocks[n].at(&format!("200.0.0.10:{port}"))).host(HOST)
    }

    /// Address of client `n`, from 1, the same towards all edges.
    pub fn client(&self, n: u8) -> std::net::Ipv4Addr {
        self.blocks[0].client(n)
    }

    /// Gives edge `n` an order; returns its answer.
    pub async fn order(&self, n: usize, path: &str) -> Value {
        let answer = self.edges[n].admin("POST", path).await;
        let text = answer.text();
        assert!(answer.status < 300, "{path}: {} {text}", answer.status);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// What edge `n` answers; null if it refuses.
    pub async fn get(&self, n: usize, path: &str) -> Value {
        let text = self.edges[n].admin("GET", path).await.text();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Waits until edge `n` answers something good.
    pub async fn wait(&self, n: usize, path: &str, what: &str, good: impl Fn(&Value) -> bool) {
        deadline(what, async {
            while !good(&self.get(n, path).await) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until edge `n` says `expected` in a field of node `name`.
    pub async fn wait_node(&self, n: usize, name: &str, field: &str, expected: impl Into<Value>) {
        let expected = expected.into();
        let what = format!("{field} {expected} of {name} at {}", NAMES[n]);
        let is = |all: &Value| find(all, name)[field] == expected;
        self.wait(n, "/api/nodes", &what, is).await;
    }

    /// What edge `n` says of node `name`.
    pub async fn node(&self, n: usize, name: &str) -> Value {
        find(&self.get(n, "/api/nodes").await, name)
    }
}

fn find(all: &Value, name: &str) -> Value {
    let mut nodes = all.as_array().into_iter().flatten();
    nodes
        .find(|n| n["name"] == name)
        .cloned()
        .unwrap_or(Value::Null)
}
