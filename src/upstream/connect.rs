//! Connects one flow to its node.
//!
//! In: node, flow, socket options, preamble. Out: the node's side of the flow, or why the connect failed.
//! Source: Diffusion load balancers, "Reuse TCP connection"; the PROXY protocol goes first on a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::unix::Shown;
use tokio::io::AsyncWriteExt;

use super::shortage::Shortage;
use super::{LiveFlow, Node};
use crate::observe::metrics;
use crate::stream::client_share::UpstreamCharge;
use crate::stream::side::Side;
use crate::stream::socket::{self, Options, Tcp};

/// Appends the plugins' preamble: bytes that the node reads before the client's.
pub type Preamble = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;

/// Everything that one exchange needs to connect to its node.
pub struct Dialer {
    /// The node.
    pub node: Arc<Node>,
    /// The flow.
    pub flow: Arc<LiveFlow>,
    /// Options of a new socket.
    pub options: Options,
    /// Time for which a node that leaves bytes unacknowledged, and retransmissions or probes unanswered, is not yet
    /// dead.
    pub user_timeout: Duration,
    /// Deadline of a connect, with the preamble and the TLS handshake.
    pub timeout: Duration,
    /// Appends the preamble to a buffer.
    pub preamble: Preamble,
    /// What the connection costs its client; `None`: the client holds its share already.
    pub charge: Option<UpstreamCharge>,
}

impl Dialer {
    /// Connects.
    ///
    /// Errors: the deadline passed, the flow was evicted, the client holds its share, this machine is short of
    /// something, or an error of the system or of TLS.
    pub async fn dial(mut self) -> Result<Side, ConnectError> {
        let Some(charge) = self.charge.take() else {
            self.failed(&ConnectError::ClientShare);
            return Err(ConnectError::ClientShare);
        };
        let started = std::time::Instant::now();
        let connected = tokio::select! {
            biased;
            () = self.flow.give_up.wait() => Err(ConnectError::Evicted),
            r = tokio::time::timeout(self.timeout, self.open(charge)) => match r {
                Ok(r) => r.map_err(|e| self.failure(e)),
                Err(_) => Err(ConnectError::Timeout),
            },
        };
        match &connected {
            Ok(_) => metrics::get()
                .connect_seconds
                .with_label_values(&[&self.node.name])
                .observe(started.elapsed().as_secs_f64()),
            Err(failure) => self.failed(failure),
        }
        connected
    }

    async fn open(&self, charge: UpstreamCharge) -> io::Result<Side> {
        let stream = socket::connect(self.node.address, &self.options).await?;
        let mut tcp = Tcp::new(stream);
        tcp.watch_toward(self.user_timeout, &self.node.last_bytes, Some(charge));
        let mut preamble = Vec::new();
        (self.preamble)(&mut preamble);
        if !preamble.is_empty() {
            tcp.write_all(&preamble).await?;
        }
        match &self.node.tls {
            None => Ok(Side::Plain(tcp)),
            Some(tls) => tls.handshake(tcp).await,
        }
    }

    fn failure(&self, e: io::Error) -> ConnectError {
        match Shortage::of(&e, self.node.address) {
            Some(shortage) => ConnectError::Short(shortage),
            None => ConnectError::Io(e),
        }
    }

    fn failed(&self, failure: &ConnectError) {
        metrics::get()
            .connect_failures
            .with_label_values(&[&self.node.name, failure.as_str()])
            .inc();
        match failure {
            ConnectError::Short(shortage) => shortage.tell(&self.node),
            // Given up by an eviction, or never tried: the node is not at fault.
            ConnectError::Evicted | ConnectError::ClientShare => {}
            ConnectError::Timeout => self.node.passive_health.failed(),
            ConnectError::Io(e) => {
                self.node.passive_health.failed();
                if self.node.tls.is_some() {
                    log::warn!(
                        "node {} ({}): cannot connect: {e}",
                        self.node.name,
                        Shown(self.node.address)
                    );
                }
            }
        }
    }
}

/// Why a connect to a node failed.
#[derive(Debug)]
pub enum ConnectError {
    /// The deadline passed.
    Timeout,
    /// The flow was evicted during the connect: the node went Down, or an operator evicted its flows.
    Evicted,
    /// The client holds its share of sockets or ports.
    ClientShare,
    /// This machine is short of descriptors, ports or memory.
    Short(Shortage),
    /// The system call, or the TLS handshake, failed.
    Io(io::Error),
}

impl ConnectError {
    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            ConnectError::Timeout => "timeout",
            ConnectError::Evicted => "evicted",
            ConnectError::ClientShare => "client_share",
            ConnectError::Short(shortage) => shortage.as_str(),
            ConnectError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => "refused",
            ConnectError::Io(e) if e.kind() == io::ErrorKind::InvalidData => "tls",
            ConnectError::Io(_) => "error",
        }
    }
}
