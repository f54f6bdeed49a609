//! Bad inputs against the real program, one row each; ids are those of FAULTS.
//!
//! In: bytes that no good client, node, operator or file sends. Out: the answer, and for each row the same
//! oracle ([`Rig::judge`]): the program lives, no node got anything it should not, a good client is served
//! afterwards, a counter with a reason increased, and the access line is present without secrets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::h1::H1;
use crate::client::{Dial, Io};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::vip::Block;

/// D71: the admin endpoint.
mod admin;
/// D58: too many flows of one client.
mod crowd;
/// D43–D45: cookies.
mod cookies;
/// D67: configuration files.
mod files;
/// D14, D15: headers that claim another client's identity.
mod forwarding;
/// D1–D13: HTTP/1 framing.
mod framing;
/// D62–D64: what nodes answer.
mod answers;
/// D59: nodes that cannot be reached, or are silent.
mod reach;
/// D31–D33: TLS.
mod tls;

/// In the query and the cookie of bad requests; must never be logged.
pub const SECRET: &str = "s3cret";

/// A marker that must never reach a node.
pub const SMUGGLED: &str = "smuggled";

/// An edge with the nodes `n1`, `n2`, … at `10.0.0.1:8080`, `10.0.0.2:8080`, …
pub struct Rig {
    pub block: Block,
    pub edge: Edge,
    pub nodes: Vec<Node>,
    /// How good clients dial.
    pub good: Dial,
}

/// The expected outcome of a row.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Status of the single answer; 0: closed without one.
    pub status: u16,
    /// The counter that increases.
    pub counted: Counted,
    /// Whether the edge connects to a node for it.
    pub reaches: bool,
}

/// Metric and reason.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    /// End of a flow, with an access line of the same reason.
    Flow(&'static str),
    /// A connection that ended before it became a flow.
    Refused(&'static str),
}

impl Verdict {
    /// Refused by the edge, without a node.
    pub const fn refused(status: u16) -> Verdict {
        Verdict {
            status,
            counted: Counted::Flow("bad_request"),
            reaches: false,
        }
    }
}

impl Rig {
    /// Starts `count` nodes and the edge; good clients use the listener at `200.0.0.10:80`.
    pub async fn start(count: u8, yaml: &str) -> Rig {
        let block = Block::claim();
        let mut nodes = Vec::new();
        for n in 1..=count {
            let at = block.at(&format!("10.0.0.{n}:8080"));
            nodes.push(Node::start(&format!("n{n}"), at).await);
        }
        let edge = Edge::start(&block, yaml).await;
        let good = Dial::plain(block.at("200.0.0.10:80")).host("push.mycompany.com");
        Rig {
            block,
            edge,
            nodes,
            good,
        }
    }

    /// As [`Rig::start`], where TLS ends at the edge, with a certificate for `push.mycompany.com`.
    pub async fn start_tls(count: u8, yaml: &str, ca: &openssl::x509::X509) -> Rig {
        let mut rig = Rig::start(count, yaml).await;
        rig.good = Dial::tls(rig.good.to, &rig.good.host, ca);
        rig
    }

    /// Upstream connections of all nodes so far.
    pub fn reached(&self) -> usize {
        let each = self.nodes.iter().map(|n| n.seen().connections.len());
        each.sum()
    }

    /// One sample of a metric; 0 if it is absent.
    pub async fn sample(&self, name: &str) -> f64 {
        self.edge.metrics().await.get(name).copied().unwrap_or(0.0)
    }

    /// Waits until a sample is at least `value`.
    pub async fn wait_sample(&self, row: &str, name: &str, value: f64) {
        deadline(&format!("{row}: {name} ≥ {value}"), async {
            while self.sample(name).await < value {}
        })
        .await;
    }

    /// Asserts that a good client on a new connection is served.
    pub async fn serves(&self, row: &str) {
        let answer = H1::connect(&self.good).await.get("/hello", &[]).await;
        assert_eq!(answer.status, 200, "after {row}");
    }

    /// Sends `bytes` on a new connection and checks the outcome against `verdict`. Returns the whole answer.
    pub async fn judge(&self, row: &str, bytes: &[u8], verdict: Verdict) -> String {
        self.judge_at(row, self.good.to, "push", bytes, verdict)
            .await
    }

    /// As [`Rig::judge`], at another listener.
    pub async fn judge_at(
        &self,
        row: &str,
        to: SocketAddr,
        listener: &str,
        bytes: &[u8],
        verdict: Verdict,
    ) -> String {
        let metric = match verdict.counted {
            Counted::Flow(reason) => {
                format!("pushgate_flows_total{{listener=\"{listener}\",reason=\"{reason}\"}}")
            }
            Counted::Refused(reason) => {
                format!(
                    "pushgate_connections_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
                )
            }
        };
        let (reached, counted) = (self.reached(), self.sample(&metric).await);
        let lines = self.edge.access().len();
        let answer = exchange(row, Box::new(Dial::plain(to).tcp().await), bytes).await;
        let told = answer.lines().next().unwrap_or_default();
        let status = told.split(' ').nth(1).and_then(|s| s.parse().ok());
        assert_eq!(status.unwrap_or(0), verdict.status, "{row}: {answer:?}");
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{row}: two answers: {answer:?}"
        );
        self.wait_sample(row, &metric, counted + 1.0).await;
        match verdict.reaches {
            false => assert_eq!(self.reached(), reached, "{row}: a node was connected"),
            true => {
                let grows = async {
                    while self.reached() == reached {
                        tokio::task::yield_now().await;
                    }
                };
                deadline(&format!("{row}: a node's connection"), grows).await;
            }
        }
        if let Counted::Flow(reason) = verdict.counted {
            let told = |l: &serde_json::Value| {
                l["reason"] == reason && l["status"] == verdict.status && l["listener"] == listener
            };
            let what = format!("{row}: an access line {reason} {}", verdict.status);
            self.edge
                .wait_access(&what, |all| all[lines..].iter().any(told))
                .await;
        }
        self.serves(row).await;
        answer
    }

    /// After all rows: no connection is left, nothing panicked, no secret was logged, nothing was smuggled.
    pub async fn rest(&mut self) {
        deadline("the open-connection gauge at its base", async {
            while self.edge.metric("pushgate_connections").await > 0.0 {}
        })
        .await;
        let log = self.edge.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains(SECRET), "{log}");
        for node in &self.nodes {
            for request in node.seen().requests() {
                let text = request.text();
                assert!(!text.contains(SMUGGLED), "{text}");
            }
        }
    }
}

/// Sends `bytes` and reads to the end at the same time: a peer that answers early may not take them all.
pub async fn exchange(row: &str, io: Box<dyn Io>, bytes: &[u8]) -> String {
    let (mut read, mut write) = tokio::io::split(io);
    let sent = async {
        // The write may fail half-way; only the answer counts.
        let _ = write.write_all(bytes).await;
        let _ = write.flush().await;
    };
    let mut answer = Vec::new();
    let end = format!("{row}: the end");
    let heard = deadline(&end, read.read_to_end(&mut answer));
    let (heard, ()) = tokio::join!(heard, sent);
    assert!(
        heard.is_ok() || answer.is_empty(),
        "{row}: reset within {answer:?}"
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with secrets, and with `fields` (each with its CRLF) after `Host`.
pub fn request(method: &str, path: &str, fields: &str) -> Vec<u8> {
    format!(
        "{method} {path}?password={SECRET} HTTP/1.1\r\nHost: push.mycompany.com\r\nCookie: app={SECRET}\r\n{fields}\r\n"
    )
    .into_bytes()
}
