//! The edge between counting nodes and clients, for tests of the core.
//!
//! In: number of nodes, plugins, keys of the pool. Out: a running edge with a plain and a TLS VIP on the same
//! pool. Checks are so frequent that a dead node is found in tens of milliseconds. A wrong answer or a
//! refusal takes a node Down; a late answer does not, because a busy machine is late and no test's node
//! hangs.

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::edge::Edge;
use crate::node::Node;
use crate::tlcp::Sessions;
use crate::vip::Block;

/// The name in all certificates of this setup.
pub const HOST: &str = "push.mycompany.com";

/// How its nodes are checked.
pub const HEALTH: &str =
    "{ http: { path: /health }, interval: 50ms, timeout: 60s, rise: 1, fall: 1 }";

/// Nodes `n1` …, and the edge in front of them.
pub struct Setup {
    /// Its addresses.
    pub block: Block,
    /// The nodes, `n1` first.
    pub nodes: Vec<Node>,
    /// The program.
    pub edge: Edge,
    /// The authority and the folder of the TLS VIP's certificate.
    pub certs: Certs,
}

impl Setup {
    /// An edge in front of `nodes` nodes, without plugins.
    pub async fn start(nodes: u8) -> Setup {
        Self::with(nodes, "", "").await
    }

    /// As [`Setup::start`]; `plugins` is a YAML list in brackets or nothing, `pool` more keys of the pool.
    pub async fn with(nodes: u8, plugins: &str, pool: &str) -> Setup {
        Self::and(nodes, plugins, pool, "").await
    }

    /// As [`Setup::with`]; `listeners` are more listeners in YAML, indented by two blanks.
    pub async fn and(nodes: u8, plugins: &str, pool: &str, listeners: &str) -> Setup {
        let block = Block::claim();
        let certs = Certs::new();
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let mut running = Vec::new();
        for n in 1..=nodes {
            running.push(node(&block, n).await);
        }
        let yaml = yaml(&certs, nodes, plugins, pool) + listeners;
        let edge = Edge::start(&block, &yaml).await;
        Setup {
            block,
            nodes: running,
            edge,
            certs,
        }
    }

    /// As [`Setup::start`] with one node, which speaks TLS as well.
    pub async fn tls_node() -> Setup {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let tls = certs.leaf("n1", &[HOST], Key::Ecdsa).context();
        let at = block.at("10.0.0.1:8080");
        let node = Node::start_tls("n1", at, Sessions::new("n1"), Some(tls)).await;
        let yaml = yaml(&certs, 1, "", "");
        let secure = "8080, tls: { verify: false } }";
        let edge = Edge::start(&block, &yaml.replacen("8080 }", secure, 1)).await;
        Setup {
            block,
            nodes: vec![node],
            edge,
            certs,
        }
    }

    /// How to dial the plain VIP.
    pub fn plain(&self) -> Dial {
        Dial::plain(self.block.at("200.0.0.10:80")).host(HOST)
    }

    /// How to dial the TLS VIP, without ALPN.
    pub fn tls(&self) -> Dial {
        Dial::tls(self.block.at("200.0.0.10:443"), HOST, self.certs.ca())
    }

    /// Both VIPs by name.
    pub fn both(&self) -> [(&'static str, Dial); 2] {
        [("plain", self.plain()), ("TLS", self.tls())]
    }

    /// Waits until the edge reports node `name` in `state`.
    pub async fn wait_state(&self, name: &str, state: &str) {
        let is = |nodes: &serde_json::Value| {
            let mut nodes = nodes.as_array().into_iter().flatten();
            nodes.any(|n| n["name"] == name && n["state"] == state)
        };
        let what = format!("{name} to be {state}");
        self.edge.wait_nodes(&what, is).await;
    }
}

/// Starts node `n` at its address of the block.
pub async fn node(block: &Block, n: u8) -> Node {
    Node::start(&format!("n{n}"), block.at(&format!("10.0.0.{n}:8080"))).await
}

/// The configuration, with the guide's addresses.
pub fn yaml(certs: &Certs, nodes: u8, plugins: &str, pool: &str) -> String {
    let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
    let addresses: String = (1..=nodes)
        .map(|n| format!("  n{n}: {{ address: 10.0.0.{n}:8080 }}\n"))
        .collect();
    let plugins = match plugins {
        "" => String::new(),
        list => format!("    plugins: {list}\n"),
    };
    let dir = certs.dir().display();
    let names = names.join(", ");
    format!(
        "nodes:\n{addresses}\
         pools:\n  p:\n    nodes: [{names}]\n    \
         health: {HEALTH}\n{pool}\
         certificates:\n  push: {{ chain: {dir}/push.pem, key: {dir}/push.key }}\n\
         listeners:\n  - name: plain\n    bind: [200.0.0.10:80]\n    mode: http\n    to: p\n{plugins}  \
         - name: tls\n    bind: [200.0.0.10:443]\n    mode: http\n    tls: {{ certificates: [push] }}\n    \
         to: p\n{plugins}"
    )
}
