//! Listening sockets: bound, added and removed at run time; the data threads accept from them in turn.
//!
//! In: addresses. Out: sockets to `Edge::take`, on the thread that will serve them:
//! where TLS ends here one that shakes hands, else one that carries bytes. Each new client wakes one thread.
//! Source: Lightstreamer clustering §3.2.1.1 (several public addresses on one balancer); FAULTS D54
//! (descriptors run out).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::accept_turn::{AcceptTurn, AcceptTurns};
use crate::config;
use crate::observe::metrics;
use crate::proxy::listener::Listener;
use crate::proxy::threads::{Thread, emptiest};
use crate::stream::socket::{self, Options};
use crate::stream::{descriptors, kernel};
use crate::upstream::shortage::Shortage;

/// Connections the kernel may hold until we accept them; it cuts the number to its own limit.
const BACKLOG: i32 = 65_535;
/// Connections accepted before the loop yields to other work of its thread.
const BATCH: usize = 64;
/// Connections a thread may have more than the emptiest one when it passes the turn. In a burst eight share the
/// cost of a wake-up; of 1,000 connections that live for hours eight are no burden.
const LEAD: i64 = 8;
/// Pause when descriptors run out: live flows go on, and the admin endpoint still answers.
const PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection.
pub struct Accepted {
    /// Its socket, which does not block.
    pub stream: TcpStream,
    /// When it was accepted.
    pub at: Instant,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The address it reached, where the listening socket has only one; else getsockname(2) tells.
    pub vip: Option<SocketAddr>,
}

/// Binds one address. Accepted sockets inherit `options`, so that they are set before the first client can come;
/// the admin endpoint has none.
///
/// Errors: what the system says, e.g. that it is in use.
pub fn bind(address: SocketAddr, options: Option<&Options>) -> io::Result<TcpListener> {
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
    if let Some(options) = options {
        socket::tune(&socket, options)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The socket options that accepted sockets inherit from their listener.
pub fn options(conf: &config::Listener) -> Options {
    Options {
        keepalive: conf.tcp.keepalive.0,
        receive_buffer: None,
        bulk: false,
    }
}

/// One address's accept loops, one on each thread; dropping it closes the socket.
pub struct AcceptLoop {
    /// The address it was asked to bind.
    pub asked: SocketAddr,
    /// The address it has: another port where 0 was asked for.
    pub bound: SocketAddr,
    socket: TcpListener,
    tasks: Vec<JoinHandle<()>>,
}

impl AcceptLoop {
    /// Another handle of the listening socket: who takes it over loses no queued connection.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Starts accepting on `threads`. `take` is given each connection on the thread that accepted it, with
    /// that thread's place in `threads`.
    ///
    /// Errors: no descriptor is left.
    pub fn start(
        asked: SocketAddr,
        socket: TcpListener,
        listener: &Arc<Listener>,
        threads: Arc<[Thread]>,
        take: impl Fn(usize, Accepted) + Clone + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // Also here: the socket may be another process's, or come from a listener of another kind.
        socket::tune(&socket, &options(&listener.conf.load()))?;
        let bound = socket.local_addr()?;
        let mut accepting = AcceptLoop {
            asked,
            bound,
            socket: socket.try_clone()?,
            tasks: Vec::new(),
        };
        for (at, turn) in AcceptTurns::for_threads(socket, threads.len())?
            .into_iter()
            .enumerate()
        {
            let runtime = threads[at].runtime.clone();
            let _entered = runtime.enter();
            let turn = kernel::watch_readable(turn)?;
            let acceptor = Acceptor {
                at,
                vip: (!bound.ip().is_unspecified()).then_some(bound),
                listener: listener.clone(),
                threads: threads.clone(),
                take: take.clone(),
            };
            accepting.tasks.push(runtime.spawn(acceptor.run(turn)));
        }
        Ok(accepting)
    }

    /// Has sockets that are accepted from now on inherit the options of a changed section.
    ///
    /// Errors: the kernel refuses an option; it has taken each before.
    pub fn tune(&self, conf: &config::Listener) -> io::Result<()> {
        socket::tune(&self.socket, &options(conf))
    }

    /// Stops accepting, and returns when no thread can bring another connection.
    pub async fn end(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Aborted, as it was told; a panic is in the log already.
            let _ = task.await;
        }
    }
}

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The loop of one thread.
struct Acceptor<T> {
    at: usize,
    vip: Option<SocketAddr>,
    listener: Arc<Listener>,
    threads: Arc<[Thread]>,
    take: T,
}

impl<T: Fn(usize, Accepted)> Acceptor<T> {
    async fn run(self, turn: AsyncFd<AcceptTurn>) {
        let accepted = metrics::get()
            .accepted
            .with_label_values(&[&self.listener.name]);
        loop {
            let Ok(mut ready) = turn.readable().await else {
                return;
            };
            let turn = turn.get_ref();
            if turn.is_shared() {
                // Before the turn is passed: it may come back at once.
                ready.clear_ready();
            }
            if turn.take() {
                if self.batch(turn.socket(), &accepted).await {
                    ready.clear_ready();
                }
                self.pass(turn).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Accepts until no client waits, which is told by true, or it is another thread's turn.
    async fn batch(&self, socket: &TcpListener, accepted: &IntCounter) -> bool {
        for _ in 0..BATCH {
            match accept(socket) {
                Ok((stream, peer)) => {
                    accepted.inc();
                    let stream = when_spared(stream, &self.listener).await;
                    let accepted = Accepted {
                        stream,
                        at: Instant::now(),
                        peer,
                        vip: self.vip,
                    };
                    (self.take)(self.at, accepted);
                }
                Err(Errno::WOULDBLOCK) => return true,
                // The client gave up before we came: its next try is another connection.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(e) => {
                    log::error!("listener {}: accept: {e}", self.listener.name);
                    tokio::time::sleep(PAUSE).await;
                    return false;
                }
            }
            if self.leads() {
                return false;
            }
        }
        false
    }

    /// Whether this thread has its share for now.
    fn leads(&self) -> bool {
        let least = self.threads.iter().map(Thread::connections).min();
        least.is_some_and(|least| self.threads[self.at].connections() >= least + LEAD)
    }

    async fn pass(&self, turn: &AcceptTurn) {
        let to = emptiest(&self.threads, self.at).unwrap_or(self.at);
        while let Err(e) = turn.pass(to) {
            log::error!("listener {}: next thread: {e}", self.listener.name);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Accepts one client: one system call with the peer's address, where std needs a second one so that the
/// socket does not block.
fn accept(socket: &TcpListener) -> Result<(TcpStream, SocketAddr), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    // The peer of a TCP socket has an address, unless it is gone.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer.ok_or(Errno::CONNABORTED)?))
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

#[cfg(test)]
mod tests;
