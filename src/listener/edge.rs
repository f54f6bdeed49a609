//! Turns an accepted socket into a client connection, and picks the threads that shake hands and serve it.
//!
//! Source: Lightstreamer clustering §1 (layers 7 and 4), §3; Diffusion load balancers, all points.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::accept::{AcceptLoop, Accepted, PreparedLoop};
use super::admission::{self, AdmissionError};
use crate::observe::metrics;
use crate::proxy::conn::Conn;
use crate::proxy::hooks::ProxyHooks;
use crate::proxy::listener::Listener;
use crate::proxy::open::{Connections, Open};
use crate::proxy::serve::serve;
use crate::proxy::service::Service;
use crate::proxy::threads::{Runtimes, Thread, emptiest};
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
    pub fn new(
        hooks: ProxyHooks,
        runtimes: Runtimes,
        max_connections: usize,
        drain: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let data: Arc<[Thread]> = runtimes.data.into();
        Arc::new(Edge {
            service: Arc::new(Service { hooks, drain }),
            connections: Connections::at_most(max_connections, data.clone()),
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
        let (edge, of) = (self.clone(), listener.clone());
        let take = move |at, accepted| edge.take(&of, at, accepted);
        AcceptLoop::prepare(asked, socket, listener, threads.clone(), take)
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
        let Some(open) = self.connections.enter(listener, data) else {
            refused(listener, AdmissionError::MaxConnections);
            return;
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
                Some(Err(_)) => refused(&conn.listener, AdmissionError::NoDescriptor),
                _ => drop(data.spawn(async move { serve(&edge.service, side, conn).await })),
            }
        });
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
