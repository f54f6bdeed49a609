//! Connects a stream of HTTP/2 to its node, on behalf of Pingora's connector.
//!
//! In: an assignment. Out: a `NodeIo` as Pingora's stream, on the client's idle connection or a new one.
//! Source: Diffusion load balancers, "Reuse TCP connection".

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::{Error, ErrorType};
use pushgate_plugins::head::Head;

use super::node_io::NodeIo;
use crate::proxy::assign::{dialer, tap};
use crate::proxy::flow::Exchange;
use crate::route::Assigned;
use crate::stream::side::Tap;
use crate::stream::socket;
use crate::upstream::Affinity;
use crate::upstream::connect::{ConnectError, Dialer};

/// Connects one try of a stream to its node.
pub struct Connector {
    dialer: Dialer,
    affinity: Arc<Affinity>,
    to_head: bool,
    read: usize,
    tap: Mutex<Option<Box<dyn Tap>>>,
    reused: AtomicBool,
}

impl Connector {
    /// A connector to the node of `assigned`.
    pub fn new(ex: &Exchange, head: &Head, assigned: &Assigned) -> Self {
        let max_hidden = ex.conn.listener.max_hidden.load(Ordering::Relaxed);
        Connector {
            dialer: dialer(ex, Some(head), assigned),
            affinity: ex.conn.affinity.clone(),
            to_head: head.method() == "HEAD",
            read: socket::piece(max_hidden),
            tap: Mutex::new(tap(ex, Some(head), assigned)),
            reused: AtomicBool::new(false),
        }
    }

    /// Whether an idle connection was re-used: a failure before the answer is then no fault of the node.
    pub fn reused(&self) -> bool {
        self.reused.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &PingoraAddr) -> pingora::Result<L4Stream> {
        let node = &self.dialer.node;
        let idle = self.affinity.take(node);
        self.reused.store(idle.is_some(), Ordering::Relaxed);
        let side = match idle {
            Some(side) => side,
            None => self.dialer.dial().await.map_err(|failure| {
                let kind = match failure {
                    ConnectError::Timeout => ErrorType::ConnectTimedout,
                    ConnectError::Short(s) if s.spares_others() => ErrorType::BindError,
                    ConnectError::Short(_) => ErrorType::SocketError,
                    // Accepted and reset: the reset may be seen now or at the first read.
                    ConnectError::Io(ref e) if e.kind() == io::ErrorKind::ConnectionReset => {
                        ErrorType::ConnectionClosed
                    }
                    _ => ErrorType::ConnectRefused,
                };
                Error::explain(kind, format!("node {}: {failure:?}", node.name))
            })?,
        };
        let side = match self.tap.lock().take() {
            Some(tap) => side.tapped(tap),
            None => side,
        };
        let flow = self.dialer.flow.clone();
        let affinity = self.affinity.clone();
        let io = NodeIo::new(side, node.clone(), flow, affinity, self.to_head, self.read);
        Ok(VirtualSocketStream::new(Box::new(io)).into())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.dialer.node.name)
    }
}
