//! Asks a node's agent how the node does: a TCP port that says one line of words.
//!
//! In: the node, the block `agent` of its check. Out: [`Node::agent_said`] or [`Node::agent_missed`], and a count of
//! both. Questions follow one another, so a slow agent is asked less often.
//! Source: HAProxy configuration manual, "agent-check", "agent-inter", "agent-send".

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::probe::ProbeError;
use crate::config::Agent;
use crate::observe::metrics;
use crate::stream::source;
use crate::upstream::Node;
use crate::upstream::agent_answer::{AgentAnswer, MAX_LINE};
use crate::upstream::node_status::{CheckResult, LastCheck};
use crate::upstream::shortage::Shortage;

/// The questions to the agent of one node.
pub struct AgentCheck {
    node: Arc<Node>,
    address: SocketAddr,
    conf: Agent,
}

impl AgentCheck {
    /// Prepares the questions to the agent of `node`.
    pub fn new(node: Arc<Node>, conf: &Agent) -> Self {
        // A zone of the node's address stays.
        let mut address = node.address;
        if let Some(other) = conf.address {
            address = SocketAddr::new(other.0, conf.port);
        }
        address.set_port(conf.port);
        AgentCheck {
            node,
            address,
            conf: conf.clone(),
        }
    }

    /// Asks until the task is dropped.
    pub async fn run(&self) {
        loop {
            // Jitter, as that of checks: many nodes may share one agent.
            let pause = self.conf.interval.0.mul_f64(0.9 + 0.2 * fastrand::f64());
            tokio::time::sleep(pause).await;
            self.once().await;
        }
    }

    /// Asks once, and puts the answer in force.
    pub async fn once(&self) {
        let started = Instant::now();
        let asked = tokio::time::timeout(self.conf.timeout.0, self.ask()).await;
        let late = |_| Err(format!("no answer within {}", self.conf.timeout).into());
        let outcome = asked.unwrap_or_else(late);
        let result = match &outcome {
            Ok(_) => CheckResult::Pass,
            Err(ProbeError::Node(_)) => CheckResult::Fail,
            Err(ProbeError::Short(shortage)) => {
                shortage.tell(&self.node);
                CheckResult::Error
            }
        };
        metrics::get()
            .agent_checks
            .with_label_values(&[self.node.name.as_str(), result.as_str()])
            .inc();
        let last = |said: String| LastCheck {
            result,
            said,
            at: Instant::now().into_std(),
            took: started.elapsed(),
        };
        match outcome {
            Ok(answer) => self.node.agent_said(&answer, last(answer.line.clone())),
            Err(why) => self.node.agent_missed(last(why.to_string())),
        }
    }

    async fn ask(&self) -> Result<AgentAnswer, ProbeError> {
        let failed = |e: io::Error| match Shortage::of(&e, self.address) {
            Some(shortage) => ProbeError::Short(shortage),
            None => ProbeError::Node(e.to_string()),
        };
        let said = self.exchange().await.map_err(failed)?;
        Ok(AgentAnswer::read(&said)?)
    }

    /// Returns what the agent sends up to its first line end, or to the end of the connection.
    async fn exchange(&self) -> io::Result<Vec<u8>> {
        // `source` is for the node: the agent may be elsewhere.
        let source = self.node.source();
        let source = source.filter(|_| self.address.ip() == self.node.address.ip());
        let mut stream = source::open(self.address, source)?
            .connect(self.address)
            .await?;
        if let Some(text) = &self.conf.send {
            stream.write_all(text.as_bytes()).await?;
        }
        let mut said = Vec::new();
        // One byte more than a line may have tells a longer one.
        let mut stream = stream.take(MAX_LINE as u64 + 1);
        while !said.contains(&b'\n') && !said.contains(&b'\r') {
            if stream.read_buf(&mut said).await? == 0 {
                break;
            }
        }
        Ok(said)
    }
}
