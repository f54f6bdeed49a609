//! Connects one exchange to its node: the client's own idle connection, or a new one.
//!
//! In: node, flow, preamble. Out: a [`NodeIo`] in Pingora's clothes, or who failed and how.
//! Source: Diffusion load balancers, "Reuse TCP connection"; PROXY protocol goes first on a new one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::{Error, ErrorType};
use tokio::io::AsyncWriteExt;

use super::asked::Asked;
use super::node_io::NodeIo;
use super::shortage::Shortage;
use super::{Affinity, LiveFlow, Node};
use crate::observe::metrics;
use crate::stream::side::{Side, Tap};
use crate::stream::socket::{self, Options, Tcp};

/// Appends what the plugins put in front of the client's first byte.
pub type Preamble = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;

/// Everything one exchange needs to reach its node.
pub struct Dialer {
    /// The node.
    pub node: Arc<Node>,
    /// The flow.
    pub flow: Arc<LiveFlow>,
    /// Where the client's idle upstreams are.
    pub affinity: Arc<Affinity>,
    /// What it will be asked.
    pub asked: Asked,
    /// Options of a new socket.
    pub options: Options,
    /// Longest time the node may leave bytes unacknowledged.
    pub user_timeout: Duration,
    /// Deadline of a connect.
    pub timeout: Duration,
    /// Appends the bytes a new connection begins with; asked when one is opened, not for one re-used.
    pub preamble: Preamble,
    /// Most bytes read from the node at once.
    pub read: usize,
    /// Looks on as the node answers.
    pub tap: Mutex<Option<Box<dyn Tap>>>,
    /// Set when an idle connection was re-used: a failure before the answer is then no fault of the node.
    pub reused: AtomicBool,
}

impl Dialer {
    /// Connects without Pingora, for layer 4.
    pub async fn dial(&self) -> Result<Side, Failure> {
        let started = std::time::Instant::now();
        let connected = tokio::select! {
            biased;
            () = self.flow.give_up.wait() => Err(Failure::Evicted),
            r = tokio::time::timeout(self.timeout, self.open()) => match r {
                Ok(r) => r.map_err(|e| self.failure(e)),
                Err(_) => Err(Failure::Timeout),
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

    async fn open(&self) -> io::Result<Side> {
        let stream = socket::connect(self.node.address, &self.options).await?;
        let mut tcp = Tcp::new(stream);
        tcp.watch_toward(self.user_timeout, &self.node.last_bytes);
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

    fn failure(&self, e: io::Error) -> Failure {
        match Shortage::of(&e, self.node.address) {
            Some(shortage) => Failure::Short(shortage),
            None => Failure::Io(e),
        }
    }

    fn failed(&self, failure: &Failure) {
        metrics::get()
            .connect_failures
            .with_label_values(&[&self.node.name, failure.word()])
            .inc();
        match failure {
            Failure::Short(shortage) => shortage.tell(&self.node),
            // Given up by us.
            Failure::Evicted => {}
            Failure::Timeout => self.node.failed(),
            Failure::Io(e) => {
                self.node.failed();
                if self.node.tls.is_some() {
                    log::warn!("node {} ({}): {e}", self.node.name, self.node.address);
                }
            }
        }
    }
}

/// Why a node could not be connected.
#[derive(Debug)]
pub enum Failure {
    /// The deadline passed.
    Timeout,
    /// The node went Down meanwhile.
    Evicted,
    /// This machine has not what it takes.
    Short(Shortage),
    /// The system said so.
    Io(io::Error),
}

impl Failure {
    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Timeout => "timeout",
            Failure::Evicted => "evicted",
            Failure::Short(shortage) => shortage.word(),
            Failure::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => "refused",
            Failure::Io(e) if e.kind() == io::ErrorKind::InvalidData => "tls",
            Failure::Io(_) => "error",
        }
    }
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, _: &PingoraAddr) -> pingora::Result<L4Stream> {
        let side = match self.affinity.take(&self.node) {
            Some(side) => {
                self.reused.store(true, Ordering::Relaxed);
                side
            }
            None => {
                self.reused.store(false, Ordering::Relaxed);
                self.dial().await.map_err(|failure| {
                    let kind = match failure {
                        Failure::Timeout => ErrorType::ConnectTimedout,
                        Failure::Short(s) if s.spares_others() => ErrorType::BindError,
                        Failure::Short(_) => ErrorType::SocketError,
                        // Accepted and reset: the reset may be seen now or at the first read.
                        Failure::Io(ref e) if e.kind() == io::ErrorKind::ConnectionReset => {
                            ErrorType::ConnectionClosed
                        }
                        _ => ErrorType::ConnectRefused,
                    };
                    Error::explain(kind, format!("node {}: {failure:?}", self.node.name))
                })?
            }
        };
        let tap = self.tap.lock().take();
        let io = NodeIo::new(
            match tap {
                Some(tap) => side.tapped(tap),
                None => side,
            },
            self.node.clone(),
            self.flow.clone(),
            self.affinity.clone(),
            self.asked.clone(),
            self.read,
        );
        Ok(VirtualSocketStream::new(Box::new(io)).into())
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer({})", self.node.name)
    }
}
