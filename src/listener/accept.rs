//! Binds, adds and removes listening sockets at run time, and accepts clients from them.
//!
//! In: addresses. Out: accepted sockets to `Edge::take`. The threads that serve a listener accept in turn:
//! the handshake threads where TLS ends here, otherwise the data threads. Each new client wakes one thread.
//! Source: Lightstreamer clustering §3.2.1.1 (several public addresses on one balancer); FAULTS D54
//! (descriptors run out).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pushgate_plugins::unix::{CLIENT, is_unix, name_of};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::accept_turn::{AcceptTurn, AcceptTurns};
use super::unix::{self, SocketFile};
use crate::config::{self, UnixSocket};
use crate::observe::metrics;
use crate::observe::seldom::Seldom;
use crate::proxy::idle_clients::BROWSER;
use crate::proxy::listener::Listener;
use crate::proxy::threads::{Thread, emptiest};
use crate::stream::socket::{self, Options};
use crate::stream::{descriptors, kernel};
use crate::upstream::shortage::Shortage;

/// Connections that the kernel may queue for us. The kernel lowers the number to its own limit.
const BACKLOG: i32 = 65_535;
/// Connections that a thread accepts before it yields to its other work. Accepting and refusing one takes 20 µs;
/// with 64 a flood of one client delayed each step of others by a millisecond.
const BATCH: usize = 16;
/// A thread passes the turn when it has this many connections more than the emptiest thread. In a burst,
/// eight clients share the cost of one wake-up. Of 1,000 connections that live for hours, eight are no
/// burden.
const LEAD: i64 = 8;
/// Stands for an address where none is needed.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
/// Pause when descriptors run out. Live flows go on, and the admin endpoint still answers.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after an idle connection was told to close: its task does so in its next turn.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// What accepted sockets go through.
pub trait Door: Clone + Send + Sync + 'static {
    /// Takes a socket that the thread `at` accepted, on that thread.
    fn take(&self, at: usize, accepted: Accepted);

    /// Closes an idle connection of the client with most, because no descriptor is left, if that client has
    /// `least` connections. Returns whether there was one.
    fn make_room(&self, _least: usize) -> bool {
        false
    }
}

impl<F: Fn(usize, Accepted) + Clone + Send + Sync + 'static> Door for F {
    fn take(&self, at: usize, accepted: Accepted) {
        self(at, accepted);
    }
}

/// An accepted connection.
pub struct Accepted {
    /// Its non-blocking socket.
    pub stream: TcpStream,
    /// When it was accepted.
    pub at: Instant,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The address the client reached, if the listening socket has exactly one. Otherwise getsockname(2) is
    /// needed.
    pub vip: Option<SocketAddr>,
}

/// Binds one address. Accepted sockets inherit `options`, so they have them before the first client arrives.
/// The admin endpoint passes `None`. `unix`: who may connect, if it is a Unix socket.
///
/// Errors: those of the system, e.g. that the address is in use.
pub fn bind(
    address: SocketAddr,
    options: Option<&Options>,
    unix: &UnixSocket,
) -> io::Result<TcpListener> {
    if let Some(name) = name_of(address) {
        return unix::bind(&name, unix);
    }
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

/// Returns the socket options that accepted sockets inherit from their listener.
pub fn options(conf: &config::Listener) -> Options {
    Options {
        keepalive: conf.tcp.keepalive.0,
        receive_buffer: None,
        bulk: false,
        source: None,
    }
}

/// The accept loops of one address, one on each thread. Dropping it closes the socket.
pub struct AcceptLoop {
    /// The address that the configuration asks for.
    pub asked: SocketAddr,
    /// The address it is bound to; its port differs where the configuration asks for port 0.
    pub bound: SocketAddr,
    socket: TcpListener,
    tasks: Vec<JoinHandle<()>>,
    /// Its file, if it is a Unix socket.
    _file: Option<Arc<SocketFile>>,
}

impl AcceptLoop {
    /// Duplicates the listening socket. A process that takes the duplicate over loses no queued connection.
    pub fn socket(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }

    /// Prepares to accept on `threads`. Each connection goes through `door` on the thread that accepted it,
    /// with that thread's index in `threads`.
    ///
    /// Errors: no descriptor is left.
    pub fn prepare(
        asked: SocketAddr,
        socket: TcpListener,
        listener: &Arc<Listener>,
        threads: Arc<[Thread]>,
        door: impl Door,
    ) -> io::Result<PreparedLoop> {
        let name = name_of(asked);
        // std reads no name of a Unix socket.
        let bound = name
            .as_ref()
            .map_or_else(|| socket.local_addr(), |_| Ok(asked))?;
        let accepting = AcceptLoop {
            asked,
            bound,
            _file: name.map(SocketFile::of),
            socket: socket.try_clone()?,
            tasks: Vec::new(),
        };
        let mut acceptors: Vec<Box<dyn FnOnce() -> JoinHandle<()> + Send>> = Vec::new();
        for (at, turn) in AcceptTurns::for_threads(socket, threads.len())?
            .into_iter()
            .enumerate()
        {
            let runtime = threads[at].runtime.clone();
            let turn = {
                let _entered = runtime.enter();
                kernel::watch_readable(turn)?
            };
            let acceptor = Acceptor {
                at,
                vip: (!bound.ip().is_unspecified()).then_some(bound),
                listener: listener.clone(),
                threads: threads.clone(),
                door: door.clone(),
            };
            acceptors.push(Box::new(move || runtime.spawn(acceptor.run(turn))));
        }
        Ok(PreparedLoop {
            accepting,
            listener: listener.clone(),
            acceptors,
        })
    }

    /// Sets the options that accepted sockets inherit to those of a changed section. Logs an option that the kernel
    /// refuses; it has accepted each before.
    pub fn tune(&self, conf: &config::Listener) {
        if is_unix(self.asked.ip()) {
            return;
        }
        if let Err(e) = socket::tune(&self.socket, &options(conf)) {
            log::error!("listener {} on {}: {e}", conf.name, self.bound);
        }
    }

    /// Stops accepting. Returns when no thread can bring another connection.
    pub async fn end(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // The result is our own abort, or a panic that is already in the log.
            let _ = task.await;
        }
    }
}

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The accept loops of one address, with every descriptor they need, so that starting them cannot fail. If it is
/// dropped instead, it closes its handle of the socket and has accepted no client.
pub struct PreparedLoop {
    accepting: AcceptLoop,
    listener: Arc<Listener>,
    acceptors: Vec<Box<dyn FnOnce() -> JoinHandle<()> + Send>>,
}

impl PreparedLoop {
    /// Starts accepting.
    pub fn start(self) -> AcceptLoop {
        let PreparedLoop {
            mut accepting,
            listener,
            acceptors,
        } = self;
        // Set again here: the socket may come from another process, or from a listener of another kind.
        accepting.tune(&listener.conf.load());
        accepting.tasks = acceptors.into_iter().map(|start| start()).collect();
        accepting
    }
}

/// The accept loop of one thread.
struct Acceptor<D> {
    at: usize,
    vip: Option<SocketAddr>,
    listener: Arc<Listener>,
    threads: Arc<[Thread]>,
    door: D,
}

impl<D: Door> Acceptor<D> {
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
                // Cleared before the turn is passed, because the turn may come back at once.
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

    /// Accepts until no client waits, the batch is full, or this thread has its share. True: no client waits.
    async fn batch(&self, socket: &TcpListener, accepted: &IntCounter) -> bool {
        for _ in 0..BATCH {
            match accept(socket, self.is_unix()) {
                Ok((stream, peer)) => {
                    accepted.inc();
                    let stream = self.when_spared(stream).await;
                    if is_unix(peer.ip()) {
                        self.limit_unread(&stream);
                    }
                    let accepted = Accepted {
                        stream,
                        at: Instant::now(),
                        peer,
                        vip: self.vip,
                    };
                    self.door.take(self.at, accepted);
                }
                Err(Errno::WOULDBLOCK) => return true,
                // The client gave up before we accepted it. Its next try is another connection.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(e) => {
                    self.fail(e.into()).await;
                    return false;
                }
            }
            if self.leads() {
                return false;
            }
        }
        false
    }

    fn is_unix(&self) -> bool {
        self.vip.is_some_and(|vip| is_unix(vip.ip()))
    }

    /// Bounds what the kernel holds for a client of a Unix socket: it has no window, only our buffer.
    fn limit_unread(&self, stream: &TcpStream) {
        let hidden = self.listener.conf.load().max_hidden.bytes.0;
        // If it fails, the kernel holds more.
        let _ = SockRef::from(stream).set_send_buffer_size(socket::unsent_allowance(hidden));
    }

    /// Whether this thread has [`LEAD`] connections more than the emptiest one.
    fn leads(&self) -> bool {
        let least = self.threads.iter().map(Thread::connections).min();
        least.is_some_and(|least| self.threads[self.at].connections() >= least + LEAD)
    }

    async fn pass(&self, turn: &AcceptTurn) {
        let to = emptiest(&self.threads, self.at).unwrap_or(self.at);
        while let Err(e) = turn.pass(to) {
            self.fail(e).await;
        }
    }

    /// Waits after a call has failed. Logs it at a bounded pace: under a flood it fails twenty times a second.
    async fn fail(&self, e: io::Error) {
        static TOLD: Seldom = Seldom::new();
        let name = &self.listener.name;
        let shortage = Shortage::of(&e, self.vip.unwrap_or(ANY));
        if TOLD.is_due() {
            log::error!("listener {name}: cannot accept clients: {e}; new clients wait");
        }
        // Others than clients have taken the descriptors, e.g. the whole system: small clients would not help.
        let is_full = shortage == Some(Shortage::Descriptors);
        let makes_room = is_full && self.door.make_room(BROWSER + 1);
        tokio::time::sleep(if makes_room { SHORT_PAUSE } else { PAUSE }).await;
    }

    /// Holds a client while descriptors are scarce, as it would have waited in the kernel's queue. Idle clients
    /// make room for it.
    async fn when_spared(&self, mut stream: TcpStream) -> TcpStream {
        let mut pause = SHORT_PAUSE;
        while descriptors::are_scarce(&stream) {
            let makes_room = self.door.make_room(1);
            if !makes_room && Shortage::Descriptors.is_news() {
                let name = &self.listener.name;
                log::error!(
                    "listener {name}: {}; new clients wait",
                    Shortage::Descriptors
                );
            }
            tokio::time::sleep(if makes_room { pause } else { PAUSE }).await;
            // One that was told to close may take a while, and no other should go instead of it.
            pause = (pause * 2).min(PAUSE);
            // A duplicate gets the lowest free number. The higher one is closed.
            match stream.try_clone() {
                Ok(other) if other.as_raw_fd() < stream.as_raw_fd() => stream = other,
                _ => {}
            }
        }
        stream
    }
}

/// Accepts one client. One system call returns a non-blocking socket and the peer's address; std needs two.
fn accept(socket: &TcpListener, is_unix: bool) -> Result<(TcpStream, SocketAddr), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    if is_unix {
        let stream = rustix::net::accept_with(socket, flags)?;
        return Ok((stream.into(), CLIENT));
    }
    let (stream, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    // Without an address the client has already left.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer.ok_or(Errno::CONNABORTED)?))
}

#[cfg(test)]
mod tests;
