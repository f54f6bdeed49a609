//! Holds the state of one client connection that all its exchanges share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pushgate_plugins::api::{Flow, NodeId};
use pushgate_plugins::head::Head;

use super::open::Open;
use crate::tls::HandshakeInfo;
use crate::upstream::{IdleUpstreams, Node};

/// One client connection.
pub struct Conn {
    /// Number of the connection, unique in this process.
    pub id: u64,
    /// The listener that accepted it. The connection counts there until its last part is dropped.
    pub listener: Open,
    /// When it was accepted.
    pub accepted: Instant,
    /// The client.
    pub client: SocketAddr,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The address the client reached.
    pub vip: SocketAddr,
    /// Facts of its TLS handshake, which ended here, ended in front of us, or passed through.
    pub tls: Option<Box<HandshakeInfo>>,
    /// Its idle upstreams.
    pub idle_upstreams: Arc<IdleUpstreams>,
    /// The node of its last answer.
    pub last: Mutex<Option<NodeId>>,
    known_to: Mutex<Vec<Arc<Node>>>,
}

impl Conn {
    /// Makes the state of a connection that was just admitted.
    pub fn new(
        listener: Open,
        accepted: Instant,
        client: SocketAddr,
        peer: SocketAddr,
        vip: SocketAddr,
        tls: Option<HandshakeInfo>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Conn {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener,
            accepted,
            client,
            peer,
            vip,
            tls: tls.map(Box::new),
            idle_upstreams: Arc::default(),
            last: Mutex::default(),
            known_to: Mutex::default(),
        }
    }

    /// Returns the plugins' view of a flow that began at the date `wall`.
    pub fn facts<'a>(
        &'a self,
        wall: SystemTime,
        host: &'a str,
        request: Option<&'a Head>,
        random: u64,
    ) -> Flow<'a> {
        Flow {
            listener: &self.listener.name,
            client: self.client,
            peer: self.peer,
            source: self.client.ip(),
            vip: self.vip,
            tls: self.tls.as_ref().map(|tls| tls.facts()),
            host,
            request,
            body: b"",
            wall,
            now: Instant::now(),
            random,
            last: *self.last.lock(),
        }
    }

    /// Registers this connection at `node`. A node that goes Down closes the idle upstreams of its registered
    /// connections.
    pub fn known_to(&self, node: &Arc<Node>) {
        let mut known = self.known_to.lock();
        if known.iter().any(|n| Arc::ptr_eq(n, node)) {
            return;
        }
        // Nodes that a reload removed are forgotten here, so a long connection does not keep them.
        let gone = known.extract_if(.., |n| n.is_gone());
        gone.for_each(|n| n.idle.forget(self.id));
        known.push(node.clone());
        node.idle.add(self.id, &self.idle_upstreams);
    }

    /// Closes the idle upstreams, because no request will follow the present one.
    pub fn keeps_no_idle(&self) {
        self.forget_idle();
        self.idle_upstreams.close_all();
    }

    fn forget_idle(&self) {
        let known = std::mem::take(&mut *self.known_to.lock());
        known.iter().for_each(|node| node.idle.forget(self.id));
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.forget_idle();
    }
}
