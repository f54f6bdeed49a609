//! What the DNS tests start: a DNS server with scripted answers, nodes, and an edge that asks the server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::server::Dns;
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

pub const NAME: &str = "push.internal";

/// An edge that discovers the nodes of its pool `p`, with its DNS server.
pub struct Rig {
    pub block: Block,
    pub dns: Dns,
    pub edge: Edge,
    pub dial: Dial,
}

/// The configuration; `pool`: more keys of the pool, `top`: more sections.
pub fn yaml(dns: &Dns, discover: &str, pool: &str, top: &str) -> String {
    let plugins = "[{ sticky_cookie: { name: STUCK } }]";
    format!(
        "resolvers: {{ addresses: ['{}'], timeout: 200ms, min_ttl: 50ms, max_ttl: 100ms, \
         allow: [127.0.0.0/8, '::1'] }}\n\
         pools:\n  p:\n    discover: {{ {discover} }}\n    \
         health: {{ http: {{ path: /health }}, interval: 50ms, timeout: 5s, rise: 1, fall: 1 }}\n{pool}\
         listeners:\n  - {{ name: push, bind: [200.0.0.10:80], mode: http, to: p, plugins: {plugins} }}\n{top}",
        dns.addr
    )
}

impl Rig {
    /// Starts the edge and the nodes with these numbers of the guide; DNS lists all of them.
    pub async fn start(hosts: &[u8], linger: &str) -> (Rig, Vec<Node>) {
        let block = Block::claim();
        let dns = Dns::start(&block).await;
        dns.hosts(NAME, &ips(&block, hosts));
        let mut nodes = Vec::new();
        for n in hosts {
            nodes.push(node(&block, *n).await);
        }
        let discover = format!("host: push.internal:8080, linger: {linger}");
        (Self::with(block, dns, &discover, "", "").await, nodes)
    }

    pub async fn with(block: Block, dns: Dns, discover: &str, pool: &str, top: &str) -> Rig {
        let edge = Edge::start(&block, &yaml(&dns, discover, pool, top)).await;
        let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.mycompany.com");
        Rig {
            block,
            dns,
            edge,
            dial,
        }
    }

    pub fn hosts(&self, hosts: &[u8]) {
        self.dns.hosts(NAME, &ips(&self.block, hosts));
    }

    /// Name of the node with the guide's number `n`.
    pub fn name(&self, n: u8) -> String {
        named(self.at(n))
    }

    pub fn at(&self, n: u8) -> SocketAddr {
        self.block.at(&format!("10.0.0.{n}:8080"))
    }

    /// Waits until the pool has exactly these nodes in these states.
    pub async fn wait(&self, what: &str, expected: &[(u8, &str)]) -> Value {
        let mut expected: Vec<(String, String)> = expected
            .iter()
            .map(|(n, state)| (self.name(*n), (*state).to_owned()))
            .collect();
        expected.sort();
        let is = |nodes: &Value| states(nodes) == expected;
        self.edge.wait_nodes(what, is).await
    }

    pub async fn wait_state(&self, name: &str, state: &str) {
        let node = (name.to_owned(), state.to_owned());
        let is = |nodes: &Value| states(nodes).contains(&node);
        self.edge.wait_nodes(name, is).await;
    }

    /// Waits until a lookup ends with `result`.
    pub async fn wait_result(&self, result: &str) {
        let sample = format!(
            "pushgate_dns_lookups_total{{result=\"{result}\",source=\"push.internal:8080\"}}"
        );
        deadline(&sample, async {
            while self
                .edge
                .metrics()
                .await
                .get(&sample)
                .is_none_or(|n| *n < 1.0)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Name of the node that serves a new client.
    pub async fn served(&self) -> String {
        let answer = H1::connect(&self.dial).await.get("/hello", &[]).await;
        assert_eq!(answer.status, 200);
        answer.node().to_owned()
    }
}

pub fn ips(block: &Block, hosts: &[u8]) -> Vec<IpAddr> {
    let ip = |n: &u8| IpAddr::V4(block.ip(&format!("10.0.0.{n}")));
    hosts.iter().map(ip).collect()
}

pub fn named(at: SocketAddr) -> String {
    format!("p-{}-{}", at.ip().to_string().replace(':', "-"), at.port())
}

pub fn states(nodes: &Value) -> Vec<(String, String)> {
    let text = |n: &Value, key: &str| n[key].as_str().unwrap_or_default().to_owned();
    let nodes = nodes.as_array().into_iter().flatten();
    nodes.map(|n| (text(n, "name"), text(n, "state"))).collect()
}

pub async fn node(block: &Block, n: u8) -> Node {
    Node::start(&format!("n{n}"), block.at(&format!("10.0.0.{n}:8080"))).await
}
