//! A push node that counts what it sees: connections, raw request heads, clients, ends.
//!
//! In: an address. Out: streams, long polls, WebSockets, TLCP sessions and faults, by path (see
//! [`endpoints`], [`ws`], [`faults`], [`crate::tlcp`]). It reads raw sockets, so that it can misbehave.
//! Source: Diffusion load balancers, "Connection pooling", "Reuse TCP connection".

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssl::ssl::SslContext;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::deadline;
use crate::tlcp::Sessions;

pub mod conn;
pub mod endpoints;
mod faults;
mod hold;
pub mod request;
mod seen;
pub mod stream;
pub mod ws;

pub use conn::Conn;
pub use faults::FAULTS;
pub use hold::Held;
pub use request::Request;
pub use seen::{Seen, SeenRequest};

/// How the node treats its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepts, reads, answers.
    Serving,
    /// Listener closed, live connections served on: only a check can detect this.
    Deaf,
    /// Keeps its sockets and does nothing, like a stopped process.
    Frozen,
    /// Listener open, each connection reset.
    Resetting,
    /// Listener closed, all connections reset.
    Killed,
}

/// Answers of `/health` and `/lightstreamer/healthcheck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// 200 `OK`.
    Ok,
    /// 200 with a body other than `OK`.
    Odd,
    /// 500.
    Fail,
    /// No answer.
    Hang,
}

/// State that connections and the test's handle share.
pub struct Shared {
    /// Name in the answers.
    pub name: String,
    /// TLCP sessions of this node.
    pub sessions: Sessions,
    /// Answers of `/hello` so far.
    pub hellos: AtomicU64,
    /// Bytes the kernel took on `/flood` and `/ws/flood`.
    pub flooded: AtomicU64,
    /// The answer of the next poll; each value answers every waiting poll.
    pub poll: watch::Sender<Option<String>>,
    /// How requests for `/hold` are answered.
    pub held: watch::Sender<Held>,
    /// Uploads of `/soak/echo` that looked whole but differ from what their client sent.
    pub falsely_whole: AtomicU64,
    /// Pieces a stream with `step=1` may have sent so far, counted from its start.
    pub steps: watch::Sender<u64>,
    /// Result of health checks.
    pub health: Mutex<Health>,
    phase: watch::Sender<Phase>,
    seen: watch::Sender<Seen>,
}

impl Shared {
    /// Changes what the node has seen and wakes the waiting tests.
    pub fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }
}

/// A running node; dropping it kills it.
pub struct Node {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Node {
    /// Starts the node `name` at `addr`; port 0 lets the kernel choose.
    pub async fn start(name: &str, addr: impl Into<SocketAddr>) -> Node {
        Self::start_with(name, addr, Sessions::new(name)).await
    }

    /// As [`Node::start`], with its own TLCP settings.
    pub async fn start_with(name: &str, addr: impl Into<SocketAddr>, sessions: Sessions) -> Node {
        Self::start_tls(name, addr, sessions, None).await
    }

    /// As [`Node::start_with`]; TLS with `tls` ends at its port.
    pub async fn start_tls(
        name: &str,
        addr: impl Into<SocketAddr>,
        sessions: Sessions,
        tls: Option<SslContext>,
    ) -> Node {
        Self::on(name, listen(addr.into()), sessions, tls)
    }

    /// As [`Node::start_tls`], on a socket that already listens.
    pub fn on(
        name: &str,
        listener: TcpListener,
        sessions: Sessions,
        tls: Option<SslContext>,
    ) -> Node {
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            sessions,
            hellos: AtomicU64::new(0),
            flooded: AtomicU64::new(0),
            poll: watch::Sender::new(None),
            held: watch::Sender::new(Held::Waits),
            falsely_whole: AtomicU64::new(0),
            steps: watch::Sender::new(0),
            health: Mutex::new(Health::Ok),
            phase: watch::Sender::new(Phase::Serving),
            seen: watch::Sender::new(Seen::default()),
        });
        tokio::spawn(accept(listener, tls, shared.clone()));
        Node { addr, shared }
    }

    /// Listens on one more address, with the same sessions: a node's second `<https_server>`.
    pub fn also(&self, addr: impl Into<SocketAddr>, tls: Option<SslContext>) {
        tokio::spawn(accept(listen(addr.into()), tls, self.shared.clone()));
    }

    /// What the node has seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    /// Waits until what the node has seen satisfies `good`; panics after [`crate::DEADLINE`].
    pub async fn wait(&self, what: &str, good: impl FnMut(&Seen) -> bool) -> Seen {
        let mut rx = self.shared.seen.subscribe();
        let seen = deadline(&format!("{}: {what}", self.shared.name), rx.wait_for(good)).await;
        seen.expect("the node lives as long as its handle").clone()
    }

    /// Its TLCP sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// Bytes its kernel has taken on `/flood` and `/ws/flood`.
    pub fn flooded(&self) -> u64 {
        self.shared.flooded.load(Ordering::Relaxed)
    }

    /// Waits until `/flood` takes no byte for `quiet`; returns how many bytes it took.
    pub async fn stalled(&self, quiet: Duration) -> u64 {
        let stall = async {
            let mut last = 0;
            loop {
                tokio::time::sleep(quiet).await;
                let now = self.flooded();
                if now > 0 && now == last {
                    return now;
                }
                last = now;
            }
        };
        deadline("the flood to stall", stall).await
    }

    /// Answers all waiting polls, and those to come, with `text`.
    pub fn answer_polls(&self, text: &str) {
        self.shared.poll.send_replace(Some(text.to_owned()));
    }

    /// Makes polls wait again.
    pub fn hold_polls(&self) {
        self.shared.poll.send_replace(None);
    }

    /// Lets streams with `step=1` send their first `n` pieces; later pieces wait.
    pub fn allow(&self, n: u64) {
        self.shared.steps.send_replace(n);
    }

    /// Sets how requests for `/hold` are answered.
    pub fn hold(&self, held: Held) {
        self.shared.held.send_replace(held);
    }

    /// Uploads of `/soak/echo` that looked whole but differ from what their client sent.
    pub fn falsely_whole(&self) -> u64 {
        self.shared.falsely_whole.load(Ordering::Relaxed)
    }

    /// Resets every connection, including later ones, while its listener stays.
    pub fn reset(&self) {
        self.shared.phase.send_replace(Phase::Resetting);
    }

    /// Sets the result of health checks.
    pub fn set_health(&self, health: Health) {
        *self.shared.health.lock() = health;
    }

    /// Closes the listener and resets every connection, like a killed process.
    pub fn kill(&self) {
        self.shared.phase.send_replace(Phase::Killed);
    }

    /// Closes the listener only: connects and checks are refused, live connections go on.
    pub fn deafen(&self) {
        self.shared.phase.send_replace(Phase::Deaf);
    }

    /// Stops doing anything except holding its sockets, like a stopped process.
    pub fn freeze(&self) {
        self.shared.phase.send_replace(Phase::Frozen);
    }

    /// Resumes after [`Node::freeze`]. Connections that were served when it froze stay silent.
    pub fn thaw(&self) {
        self.shared.phase.send_replace(Phase::Serving);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Binds with SO_REUSEADDR: a node that is started again at the same address can bind at once.
fn listen(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    socket
        .bind(addr)
        .unwrap_or_else(|e| panic!("node cannot bind {addr}: {e}"));
    socket.listen(4096).expect("listen")
}

async fn accept(listener: TcpListener, tls: Option<SslContext>, shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    loop {
        if phase.wait_for(|p| *p != Phase::Frozen).await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            biased;
            changed = phase.changed() => match changed {
                Ok(()) if !matches!(*phase.borrow(), Phase::Deaf | Phase::Killed) => continue,
                _ => return,
            },
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            tokio::spawn(connection(Conn::new(stream, tls.as_ref(), shared.clone())));
        }
    }
}

/// Serves one connection until either side ends it or the node's phase does.
async fn connection(mut conn: Conn) {
    let shared = conn.shared.clone();
    let mut phase = shared.phase.subscribe();
    let mut id = 0;
    shared.note(|s| id = s.open());
    conn.id = id;
    let frozen_or_killed = async {
        // A frozen node's connection stays as it is until the node is killed.
        let _ = phase
            .wait_for(|p| matches!(p, Phase::Killed | Phase::Resetting))
            .await;
    };
    tokio::select! {
        biased;
        () = freezer(&shared) => frozen_or_killed.await,
        _ = serve(&mut conn) => {}
    }
    if matches!(*shared.phase.borrow(), Phase::Killed | Phase::Resetting) {
        conn.reset_on_drop();
    }
    drop(conn);
    shared.note(|s| s.close(id));
}

/// Shakes hands if the port has TLS, then answers.
async fn serve(conn: &mut Conn) -> std::io::Result<()> {
    conn.stream.accept().await?;
    endpoints::serve(conn).await
}

/// Ends when the node is frozen, resets or is killed.
async fn freezer(shared: &Shared) {
    let mut phase = shared.phase.subscribe();
    let stops = |p: &Phase| matches!(p, Phase::Frozen | Phase::Resetting | Phase::Killed);
    let _ = phase.wait_for(stops).await;
}
