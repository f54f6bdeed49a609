//! Shared by the layer-4 options: nodes that end TLS themselves, on one port or several.
//!
//! In: for each node its sockets and the names of each one's certificate. Out: a [`Cluster`] whose clients
//! verify those names: a connection that reaches the wrong socket fails its handshake. Source: Lightstreamer
//! clustering §3 (the `<https_server>` elements of each option), §3.2.1 (one certificate for all names),
//! §3.2.2 (one for each).

use crate::certs::{Certs, Key};
use crate::edge::Edge;
use crate::node::Node;
use crate::tlcp::{Sessions, Settings};
use crate::vip::{Block, port};

use super::Cluster;

/// A server socket of a node: its address in the guide and the names of its certificate.
pub type Socket<'a> = (&'a str, &'a [&'a str]);

/// Host names that nodes give clients for CR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// No name: clients go on with the one they used.
    None,
    /// `<control_link_address>`: `pushN.mycompany.com`.
    Address,
    /// `<control_link_machine_name>`: `pushN` below the domain the client used.
    Machine,
}

/// A cluster and the authority of its certificates.
pub struct Passthrough {
    /// Nodes, edge and clients.
    pub cluster: Cluster,
    /// Keeps the folder of the certificates.
    _certs: Certs,
}

impl Passthrough {
    /// Starts both nodes on all their sockets and the edge from `conf`.
    pub async fn start(conf: &str, sockets: [&[Socket<'_>]; 2], links: Links) -> Passthrough {
        let certs = Certs::new();
        let block = Block::claim();
        let nodes = [
            node(&certs, &block, 1, sockets[0], links).await,
            node(&certs, &block, 2, sockets[1], links).await,
        ];
        let edge = Edge::file(&block, conf, &[]).await;
        let cluster = Cluster {
            block,
            nodes,
            edge,
            server: server("mycompany.com"),
            ca: Some(certs.ca_file()),
            cookies: false,
            own_vips: true,
            // At layer 4 a node learns the client's address only by PROXY protocol.
            addresses: false,
        };
        Passthrough {
            cluster,
            _certs: certs,
        }
    }

    /// The same for clients that start at `push` of another domain.
    pub fn of(mut self, domain: &str) -> Passthrough {
        self.cluster.server = server(domain);
        self
    }

    /// Asserts that S reached `push` of `domain`, and CR over HTTP its `push1` or `push2`.
    pub fn hosts_are(&self, domain: &str) {
        let (s, cr) = self.cluster.hosts();
        let push = format!("push.{domain}");
        assert!(s.iter().all(|host| host.starts_with(&push)), "{s:?}");
        let pins = [1, 2].map(|n| format!("push{n}.{domain}"));
        let pinned = |host: &String| pins.iter().any(|pin| host.starts_with(pin));
        assert!(cr.iter().any(pinned), "{cr:?}");
    }
}

fn server(domain: &str) -> String {
    format!("https://push.{domain}:{}", port(443))
}

async fn node(certs: &Certs, block: &Block, n: u8, sockets: &[Socket<'_>], links: Links) -> Node {
    let settings = Settings {
        control_link: match links {
            Links::None => None,
            Links::Address => Some(format!("push{n}.mycompany.com")),
            Links::Machine => Some(format!("push{n}.*")),
        },
        ..Settings::default()
    };
    let name = format!("ls{n}");
    let mut contexts = sockets.iter().map(|(at, names)| {
        let leaf = certs.leaf(&format!("{name}-{at}"), names, Key::Ecdsa);
        (block.at(at), Some(leaf.context()))
    });
    let (first, tls) = contexts.next().expect("a node has a socket");
    let node = Node::start_tls(&name, first, Sessions::with(&name, settings), tls).await;
    for (at, tls) in contexts {
        node.also(at, tls);
    }
    node
}
