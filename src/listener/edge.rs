//! Turns an accepted socket into a client connection, and picks the threads that shake hands and serve it.
//!
//! Source: Lightstreamer clustering §1 (layers 7 and 4), §3; Diffusion load balancers, all points.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pushgate_plugins::unix::is_unix;
use tokio::sync::watch;

use super::accept::{AcceptLoop, Accepted, Door, PreparedLoop};
use super::admission::{self, AdmissionError};
use crate::observe::metrics;
use crate::proxy::conn::Conn;
use crate::proxy::hooks::ProxyHooks;
use crate::proxy::listener::Listener;
use crate::proxy::open::{Connections, Open};
use crate::proxy::serve::serve;
use crate::proxy::service::Service;
use crate::proxy::threads::{Runtimes, Thread, emptiest};
use crate::stream::client_share::ClientShares;
use crate::stream::memory;
use crate::stream::side::Side;

/// The state that all client connections share.
pub struct Edge {
    service: Arc<Service>,
    data: Arc<[Thread]>,
    handshakes: Arc<[Thread]>,
    next: AtomicUsize,
    connections: Connections,
}

impl Edge {
    /// Makes an edge. The threads of `runtimes` serve its connections, which drain when `drain` turns true.
    /// `shares`: what each client may hold.
    pub fn new(
        hooks: ProxyHooks,
        runtimes: Runtimes,
        max_connections: usize,
        shares: Arc<ClientShares>,
        drain: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let data: Arc<[Thread]> = runtimes.data.into();
        Arc::new(Edge {
            service: Arc::new(Service { hooks, drain }),
            connections: Connections::at_most(max_connections, data.clone(), shares),
            data,
            handshakes: runtimes.handshakes.into(),
            next: AtomicUsize::new(0),
        })
    }

    /// Counts the client connections that are open now.
    pub fn open(&self) -> usize {
        self.connections.open()
    }

    /// Prepares to accept from `socket`: on the handshake threads if TLS ends here, else on the data threads.
    ///
    /// Errors: no descriptor is left.
    pub fn prepare(
        self: &Arc<Self>,
        asked: SocketAddr,
        socket: TcpListener,
        listener: &Arc<Listener>,
    ) -> io::Result<PreparedLoop> {
        let threads = match listener.tls {
            Some(_) => &self.handshakes,
            None => &self.data,
        };
        let door = EdgeDoor {
            edge: self.clone(),
            listener: listener.clone(),
        };
        AcceptLoop::prepare(asked, socket, listener, threads.clone(), door)
    }

    /// Serves a connection that this thread accepted. Where TLS ends here, this thread shakes hands and then
    /// moves the connection to the data thread that has the fewest connections at the time of the accept.
    fn take(self: &Arc<Self>, listener: &Arc<Listener>, at: usize, accepted: Accepted) {
        let shakes = listener.tls.is_some();
        let data = match shakes {
            true => emptiest(&self.data, self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(0),
            false => at,
        };
        let data = &self.data[data];
        if memory::is_short() {
            self.connections.close_idle(1, 1, "memory");
            return refused(listener, AdmissionError::Memory);
        }
        let client = client(listener, accepted.peer.ip());
        let open = match self.connections.enter(listener, data, client) {
            Ok(open) => open,
            Err(limit) => return refused(listener, AdmissionError::Limit(limit)),
        };
        let edge = self.clone();
        if !shakes {
            tokio::spawn(async move {
                let service = match admit(open, accepted).await {
                    Some((side, conn)) => serve(&edge.service, side, conn),
                    None => return,
                };
                service.await;
            });
            return;
        }
        let (shaking, data) = (self.handshakes[at].seat(), data.runtime.clone());
        tokio::spawn(async move {
            let admitted = admit(open, accepted).await;
            drop(shaking);
            let Some((mut side, conn)) = admitted else {
                return;
            };
            match side.tcp_mut().map(|tcp| tcp.rehome(&data)) {
                Some(Err(e)) => refused(&conn.listener, AdmissionError::of_move(&e, conn.peer)),
                _ => drop(data.spawn(async move { serve(&edge.service, side, conn).await })),
            }
        });
    }
}

/// Returns the client that a new connection from `peer` counts for; `None`: a proxy that carries many clients,
/// a program of this machine, or one that has yet to name its client.
fn client(listener: &Listener, peer: IpAddr) -> Option<IpAddr> {
    let names = listener.conf.load().accept_proxy.contains(peer);
    (!names && !listener.is_proxy(peer) && !is_unix(peer)).then_some(peer)
}

/// The way into the edge through one listener.
#[derive(Clone)]
struct EdgeDoor {
    edge: Arc<Edge>,
    listener: Arc<Listener>,
}

impl Door for EdgeDoor {
    fn take(&self, at: usize, accepted: Accepted) {
        self.edge.take(&self.listener, at, accepted);
    }

    fn make_room(&self, least: usize) -> bool {
        self.edge.connections.close_idle(1, least, "descriptors")
    }
}

/// Lets a client in, or counts its refusal. The admission's future is large, so it is boxed and freed before
/// the connection is served.
async fn admit(open: Open, accepted: Accepted) -> Option<(Side, Arc<Conn>)> {
    let listener = Arc::clone(&open);
    let admitted = Box::pin(admission::admit(open, accepted)).await;
    admitted.map_err(|e| refused(&listener, e)).ok()
}

fn refused(listener: &Listener, error: AdmissionError) {
    metrics::get()
        .refused
        .with_label_values(&[listener.name.as_str(), error.as_str()])
        .inc();
}
