//! The guide's deployment options, one module each: a `conf/` file, two nodes, real Lightstreamer clients.
//!
//! In: a file of `conf/` with the guide's addresses, mapped to loopback. Out, for every transport: the
//! session stays on its node, no request reaches the wrong node, streaming is never degraded, and both nodes
//! get sessions and see the clients' own addresses. Source: Lightstreamer clustering §2 (§2.1, §2.2), §3
//! (§3.1, §3.2).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::edge::Edge;
use crate::js::Js;
use crate::node::Node;
use crate::tlcp::{Counts, Sessions, Settings, Transport};
use crate::vip::{Block, port};

/// The web client in Chromium.
mod browsers;
/// Direct access to each single node.
mod direct;
/// Assignments that expire.
mod expiry;
/// One VIP, stickiness by the client's address.
mod option_1_a_1;
/// One VIP, stickiness by cookie.
mod option_1_a_2;
/// A host name, or a VIP, for each node.
mod option_1_b_1;
/// CR goes straight to the nodes.
mod option_1_b_2;
/// TLS passes through, stickiness by the client's address.
mod option_2_a_1;
/// Stickiness by cookie where TLS ends at the edge.
mod option_2_a_2;
/// TLS passes through, a VIP for each node.
mod option_2_b_1_1;
/// TLS passes through, CR goes straight to the nodes.
mod option_2_b_1_2;
/// TLS passes through, a VIP and a certificate for each name.
mod option_2_b_2_1;
/// TLS passes through, a certificate for each name, CR goes straight to the nodes.
mod option_2_b_2_2;
/// Shared by the options whose TLS ends at the edge, with a name for each node.
mod offload;
/// TLS ends at the edge, a name for each node, one certificate or several.
mod option_2_b_offload;
/// Shared by the options whose nodes end TLS themselves.
mod passthrough;
/// Sessions move to a server that has returned.
mod rebalance;

/// Two nodes and the edge of one option.
struct Cluster {
    block: Block,
    nodes: [Node; 2],
    edge: Edge,
    /// The URL for clients.
    server: String,
    ca: Option<PathBuf>,
    cookies: bool,
    /// Whether each name has its own address.
    own_vips: bool,
    /// Whether nodes learn their clients' addresses.
    addresses: bool,
}

impl Cluster {
    /// Starts nodes at two of the guide's addresses, and the edge from `conf`. With `links` the nodes send CR
    /// to `push1` and `push2`.
    async fn start(conf: &str, at: [&str; 2], links: bool, changes: &[(&str, &str)]) -> Cluster {
        let domain = links.then_some("mycompany.com");
        Self::start_below(conf, at, domain, changes).await
    }

    /// As [`Cluster::start`], with CR sent to `push1` and `push2` below `domain`; `*` is the domain that the
    /// client used.
    async fn start_below(
        conf: &str,
        at: [&str; 2],
        domain: Option<&str>,
        changes: &[(&str, &str)],
    ) -> Cluster {
        let block = Block::claim();
        let nodes = [
            node(&block, 1, at[0], domain).await,
            node(&block, 2, at[1], domain).await,
        ];
        let edge = Edge::file(&block, conf, changes).await;
        let server = format!("http://push.mycompany.com:{}", port(80));
        Cluster {
            block,
            nodes,
            edge,
            server,
            ca: None,
            cookies: false,
            own_vips: false,
            addresses: true,
        }
    }

    /// Options of client number `n`, which has its own source address.
    fn options(&self, n: u8, transport: Option<&str>) -> Value {
        let at = |guide: &str| self.block.ip(guide).to_string();
        let cr = |guide: &str| {
            if self.own_vips {
                at(guide)
            } else {
                at("200.0.0.10")
            }
        };
        json!({
            "server": self.server,
            "transport": transport,
            "cookies": self.cookies,
            "localAddress": self.block.client(n),
            "resolve": {
                "push.mycompany.com": at("200.0.0.10"),
                "push1.mycompany.com": cr("200.0.0.1"),
                "push2.mycompany.com": cr("200.0.0.2"),
                "push.ourcompany.com": cr("200.0.0.20"),
                "push1.ourcompany.com": cr("200.0.0.11"),
                "push2.ourcompany.com": cr("200.0.0.12"),
            },
        })
    }

    async fn client(&self, n: u8, transport: Option<&str>) -> Js {
        Js::start(self.options(n, transport), self.ca.clone()).await
    }

    /// Counts of both nodes.
    fn counts(&self) -> [Counts; 2] {
        [0, 1].map(|i| self.nodes[i].sessions().counts())
    }

    /// Aim: four clients for each transport, each on its own address. Every session is created once, stays on
    /// its node and is not degraded.
    async fn sessions_stay(&self) {
        let kinds = [
            Some("WS-STREAMING"),
            Some("HTTP-STREAMING"),
            Some("HTTP-POLLING"),
            None,
        ];
        let mut clients = Vec::new();
        for n in 0..8 {
            clients.push(self.client(n + 1, kinds[n as usize % kinds.len()]).await);
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let kind = kinds[n % kinds.len()].unwrap_or("WS-STREAMING");
            client.status(&format!("CONNECTED:{kind}")).await;
            client.updates(30).await;
            client.message(&format!("from {n}")).await;
            assert_eq!(
                client.of("lost").len() + client.of("error").len(),
                0,
                "{:?}",
                client.events()
            );
        }
        self.nothing_went_wrong(8);
        for counts in self.counts() {
            assert!(counts.created > 0, "both nodes get sessions: {counts:?}");
        }
        let seen: Vec<String> = self.counts().into_iter().flat_map(|c| c.clients).collect();
        for n in (1..=8).filter(|_| self.addresses) {
            let address = self.block.client(n).to_string();
            assert!(
                seen.contains(&address),
                "client {address} is seen by its address: {seen:?}"
            );
        }
        for client in clients {
            client.end().await;
        }
        assert_eq!(self.edge.admin("GET", "/readyz").await.status, 200);
    }

    /// Aim: a client that moves from transport to transport keeps its session, hence its node. Each move is a
    /// CR connection that must reach the node of S.
    async fn moves_keep_the_session(&self) {
        let mut client = self.client(20, Some("WS-STREAMING")).await;
        client.status("CONNECTED:WS-STREAMING").await;
        client.updates(10).await;
        for kind in [
            "HTTP-STREAMING",
            "HTTP-POLLING",
            "WS-STREAMING",
            "HTTP-POLLING",
        ] {
            client.transport(kind).await;
            client.status(&format!("CONNECTED:{kind}")).await;
            client.updates(20).await;
            client.message(kind).await;
        }
        let statuses = client.of("status");
        let sessions: std::collections::BTreeSet<_> = statuses
            .iter()
            .filter(|s| {
                s["status"]
                    .as_str()
                    .is_some_and(|s| s.starts_with("CONNECTED:"))
            })
            .map(|s| s["session"].to_string())
            .collect();
        assert_eq!(sessions.len(), 1, "{statuses:?}");
        self.nothing_went_wrong(1);
        client.end().await;
    }

    /// Aim: at layer 4, a client over HTTP passes the edge once, for S, whatever CR connections it makes.
    async fn one_connection_passes(&self) {
        let mut client = self.client(1, Some("HTTP-STREAMING")).await;
        client.updates(30).await;
        client.message("straight").await;
        let through = self.edge.metric("pushgate_connections_total").await;
        let (s, cr) = self.hosts();
        assert_eq!((s.len(), through), (1, 1.0), "{s:?} {cr:?}");
        assert!(cr.len() >= 2, "{cr:?}");
        self.nothing_went_wrong(1);
        client.end().await;
    }

    fn nothing_went_wrong(&self, sessions: usize) {
        let counts = self.counts();
        let created: usize = counts.iter().map(|c| c.created).sum();
        assert_eq!(created, sessions, "sessions made: {counts:?}");
        for counts in counts {
            assert_eq!((counts.wrong_node, counts.unknown), (0, 0), "{counts:?}");
            assert_eq!(counts.failures(), [] as [&str; 0], "{counts:?}");
        }
    }

    /// Hosts of all S requests, and of all others.
    fn hosts(&self) -> (Vec<String>, Vec<String>) {
        let [a, b] = self.counts();
        (
            [a.create_hosts, b.create_hosts].concat(),
            [a.control_hosts, b.control_hosts].concat(),
        )
    }
}

async fn node(block: &Block, n: u8, at: &str, domain: Option<&str>) -> Node {
    let at: SocketAddr = block.at(at);
    let settings = Settings {
        control_link: domain.map(|domain| format!("push{n}.{domain}")),
        ..Settings::default()
    };
    let name = format!("ls{n}");
    Node::start_with(&name, at, Sessions::with(&name, settings)).await
}

/// Clients that were set to stream but polled, over all nodes.
fn polls(counts: &[Counts; 2]) -> usize {
    let all = counts.iter().flat_map(|c| &c.transports);
    all.filter(|t| **t == Transport::HttpPolling).count()
}
