//! Listening sockets: bound, added and removed at run time; each accepted socket goes to the next
//! data thread and is registered with the runtime that serves it.
//!
//! In: addresses. Out: sockets to [`Edge::take`]. Source: Lightstreamer clustering §3.2.1.1
//! (several public addresses on one balancer); FAULTS D54 (descriptors run out).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::clients::Clients;
use super::edge::Edge;
use crate::config;
use crate::observe::metrics;
use crate::route::Table;
use crate::stream::descriptors;
use crate::tls::TlsFront;
use crate::upstream::shortage::Shortage;

/// A listener at run time. What a reload may change is swapped inside, so that live client
/// connections see it at their next request.
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// What decides.
    pub table: ArcSwap<Table>,
    /// Certificates, where TLS ends here.
    pub tls: Option<TlsFront>,
    /// Its section of the configuration.
    pub conf: ArcSwap<config::Listener>,
    /// Most hidden bytes of a flow.
    pub max_hidden: AtomicU64,
    /// Live flows by client address, where they are bounded.
    pub clients: Arc<Clients>,
}

impl Listener {
    /// A listener of this section.
    pub fn new(conf: &config::Listener, table: Table, tls: Option<TlsFront>) -> Arc<Self> {
        Arc::new(Listener {
            name: conf.name.clone(),
            table: ArcSwap::from_pointee(table),
            tls,
            max_hidden: AtomicU64::new(conf.max_hidden.0),
            clients: Arc::default(),
            conf: ArcSwap::from_pointee(conf.clone()),
        })
    }

    /// Takes over a changed section.
    pub fn change(&self, conf: &config::Listener, table: Table) {
        self.table.store(Arc::new(table));
        self.max_hidden.store(conf.max_hidden.0, Ordering::Relaxed);
        self.conf.store(Arc::new(conf.clone()));
    }
}

/// Connections the kernel may hold until we accept them; it cuts the number to its own limit.
const BACKLOG: i32 = 65_535;
/// Sockets accepted before the loop yields to other work of its thread.
const BATCH: usize = 64;
/// Pause when descriptors run out: live flows go on, and the admin endpoint still answers.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds one address.
///
/// Errors: what the system says, e.g. that it is in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One running accept loop; dropping it closes the socket.
pub struct AcceptLoop {
    /// The address it was asked to bind.
    pub asked: SocketAddr,
    /// The address it has: another port where 0 was asked for.
    pub bound: SocketAddr,
    socket: TcpListener,
    task: JoinHandle<()>,
}

impl AcceptLoop {
    /// Another handle of the listening socket: who takes it over loses no queued connection.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Starts accepting on `socket` in the current runtime.
    pub fn start(
        asked: SocketAddr,
        socket: TcpListener,
        listener: Arc<Listener>,
        edge: Arc<Edge>,
    ) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        let kept = socket.try_clone()?;
        // SAFETY: a TcpListener owns its descriptor and keeps the same one until it is dropped.
        let socket = unsafe { AsyncFd::register(socket) }?;
        let task = tokio::spawn(accept(socket, listener, edge));
        Ok(AcceptLoop {
            asked,
            bound,
            socket: kept,
            task,
        })
    }
}

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits while descriptors are scarce, as the client would have waited in the kernel's queue.
async fn when_spared(mut stream: TcpStream, listener: &Listener) -> TcpStream {
    while descriptors::are_scarce(&stream) {
        if Shortage::Descriptors.is_news() {
            let name = &listener.name;
            log::error!(
                "listener {name}: {}; new clients wait",
                Shortage::Descriptors
            );
        }
        tokio::time::sleep(PAUSE).await;
        // Under the lowest number that is free now.
        match stream.try_clone() {
            Ok(other) if other.as_raw_fd() < stream.as_raw_fd() => stream = other,
            _ => {}
        }
    }
    stream
}

async fn accept(socket: AsyncFd<TcpListener>, listener: Arc<Listener>, edge: Arc<Edge>) {
    let accepted = metrics::get().accepted.with_label_values(&[&listener.name]);
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        for _ in 0..BATCH {
            match socket.get_ref().accept() {
                Ok((stream, peer)) => {
                    accepted.inc();
                    let stream = when_spared(stream, &listener).await;
                    edge.take(&listener, stream, peer);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                // The client gave up before we came: its next try is another connection.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(e) => {
                    log::error!("listener {}: accept: {e}", listener.name);
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}
