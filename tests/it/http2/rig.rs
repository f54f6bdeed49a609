//! An edge with HTTP/2 in front of one node that the test scripts byte by byte.
//!
//! In: keys of the listener and the file. Out: clients, and the node's connections one by one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::raw_h2::RawH2;
use crate::deadline;
use crate::edge::Edge;
use crate::vip::Block;

/// Name of the certificate.
pub const HOST: &str = "push.mycompany.com";

/// The edge, and the node's socket.
pub struct Rig {
    /// Its addresses.
    pub block: Block,
    certs: Certs,
    /// The program.
    pub edge: Edge,
    node: Option<TcpListener>,
    second: TcpListener,
}

/// One connection of the edge to the node.
pub struct NodeConn {
    /// The socket.
    pub io: TcpStream,
    unread: Vec<u8>,
}

impl Rig {
    /// Starts the edge.
    pub async fn start() -> Rig {
        Self::with("", "", "").await
    }

    /// As [`Rig::start`]; `top`, `pool` and `listener` are more lines for these sections.
    pub async fn with(top: &str, pool: &str, listener: &str) -> Rig {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let dir = certs.dir().display();
        let nodes = if pool.contains("nodes:") {
            ""
        } else {
            "    nodes: [n1]\n"
        };
        let yaml = format!(
            "{top}nodes: {{ n1: {{ address: 10.0.0.9:8080 }}, n2: {{ address: 10.0.0.9:8081 }} }}\n\
             pools:\n  p:\n{nodes}{pool}\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
             listeners:\n  - name: tls\n    bind: [200.0.0.10:443]\n    mode: http\n    to: p\n    \
             tls: {{ certificates: [push] }}\n{listener}  \
             - {{ name: plain, bind: [200.0.0.10:80], mode: http, to: p }}\n"
        );
        let node = TcpListener::bind(block.at("10.0.0.9:8080")).await;
        let second = TcpListener::bind(block.at("10.0.0.9:8081")).await;
        let edge = Edge::start(&block, &yaml).await;
        Rig {
            block,
            certs,
            edge,
            node: Some(node.expect("the node's address")),
            second: second.expect("the node's address"),
        }
    }

    /// Stops listening at the node's address.
    pub fn deafen(&mut self) {
        self.node = None;
    }

    /// Listens at the node's address again.
    pub async fn listen(&mut self) {
        let node = TcpListener::bind(self.block.at("10.0.0.9:8080")).await;
        self.node = Some(node.expect("the node's address"));
    }

    /// The node's listening socket.
    pub fn listener(&self) -> &TcpListener {
        self.node.as_ref().expect("the node listens")
    }

    /// How HTTP/2 clients dial the edge.
    pub fn tls(&self) -> Dial {
        Dial::tls(self.block.at("200.0.0.10:443"), HOST, self.certs.ca())
    }

    /// How HTTP/1 clients dial the edge.
    pub fn plain(&self) -> Dial {
        Dial::plain(self.block.at("200.0.0.10:80")).host(HOST)
    }

    /// Connects an HTTP/2 client.
    pub async fn client(&self) -> RawH2 {
        RawH2::connect(&self.tls()).await
    }

    /// The edge's next connection to the node, or to the second node if the pool has one.
    pub async fn accept(&self) -> NodeConn {
        let either = async {
            tokio::select! {
                first = self.listener().accept() => first,
                second = self.second.accept() => second,
            }
        };
        let accepted = deadline("a connection to the node", either).await;
        NodeConn {
            io: accepted.expect("the edge connects").0,
            unread: Vec::new(),
        }
    }

    /// The next connection that carries a request, and its head. It skips connections without one: the edge
    /// tries a failed node by a connect.
    pub async fn asked(&self) -> (NodeConn, String) {
        loop {
            let mut node = self.accept().await;
            let mut first = [0];
            let peeked = deadline("a byte or the end", node.io.peek(&mut first)).await;
            if peeked.is_ok_and(|n| n > 0) {
                let head = node.head().await;
                return (node, head);
            }
        }
    }

    /// Waits for `n` access lines.
    pub async fn lines(&self, n: usize) -> Vec<serde_json::Value> {
        let what = format!("{n} access lines");
        self.edge.wait_access(&what, |all| all.len() >= n).await
    }
}

impl NodeConn {
    /// Reads a head.
    pub async fn head(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    /// Reads up to and including `end`; panics if the connection ends before.
    pub async fn until(&mut self, end: &[u8]) -> String {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.unread, end) {
                break at + end.len();
            }
            let read = self.io.read_buf(&mut self.unread);
            let n = deadline("bytes at the node", read).await;
            let got = String::from_utf8_lossy(&self.unread);
            assert!(n.is_ok_and(|n| n > 0), "the end behind {got:?}");
        };
        let got: Vec<u8> = self.unread.drain(..end).collect();
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Bytes that arrived beyond those the test has read.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Sends exactly `bytes`.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let said = self.io.write_all(bytes.as_ref()).await;
        said.expect("the edge reads");
    }

    /// Reads until the connection ends; false: it was reset.
    pub async fn ended(&mut self) -> bool {
        let end = deadline("the end at the node", self.io.read_to_end(&mut self.unread));
        end.await.is_ok()
    }
}
