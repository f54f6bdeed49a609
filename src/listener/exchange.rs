//! One client connection and one exchange on it: what the hooks, the loops and the log share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pingora_http::RequestHeader;
use pushgate_plugins::api::{Flow, NodeId};

use super::accept::Listener;
use super::clients::Seat;
pub use super::reason::Reason;
use crate::observe::{access_log, metrics};
use crate::route::{Assigned, Table};
use crate::stream::framing::Framing;
use crate::stream::side::Side;
use crate::tls::Handshake;
use crate::upstream::connect::Dialer;
use crate::upstream::live::Closed;
use crate::upstream::state::Entered;
use crate::upstream::{Affinity, LiveFlow, Node};

tokio::task_local! {
    /// The exchange Pingora is serving in this task.
    pub static CURRENT: Arc<Exchange>;
}

/// One client connection.
pub struct Conn {
    /// Number in this process.
    pub id: u64,
    /// The listener it came in on.
    pub listener: Arc<Listener>,
    /// The client.
    pub client: SocketAddr,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The address it reached.
    pub vip: SocketAddr,
    /// What the handshake told, ended here or passed through.
    pub tls: Option<Handshake>,
    /// Its upstream connections.
    pub affinity: Arc<Affinity>,
    /// Body bytes from and to the client.
    pub bytes_up: AtomicU64,
    /// All bytes to the client.
    pub bytes_down: AtomicU64,
    /// A request's body was not legal: the connection must end with a 400.
    pub bad_body: AtomicBool,
    /// The socket of a client that was answered before its request was read whole.
    pub parting: Mutex<Option<Side>>,
    known_to: Mutex<Vec<Arc<Node>>>,
}

impl Conn {
    /// A connection that was just let in.
    pub fn new(
        listener: Arc<Listener>,
        client: SocketAddr,
        peer: SocketAddr,
        vip: SocketAddr,
        tls: Option<Handshake>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Conn {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener,
            client,
            peer,
            vip,
            tls,
            affinity: Arc::default(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            bad_body: AtomicBool::new(false),
            parting: Mutex::default(),
            known_to: Mutex::default(),
        }
    }

    /// The plugins' view of a flow on this connection.
    pub fn facts<'a>(
        &'a self,
        host: &'a str,
        request: Option<&'a RequestHeader>,
        random: u64,
    ) -> Flow<'a> {
        Flow {
            listener: &self.listener.name,
            client: self.client,
            peer: self.peer,
            vip: self.vip,
            tls: self.tls.as_ref().map(Handshake::facts),
            host,
            request,
            body: b"",
            wall: SystemTime::now(),
            now: Instant::now(),
            random,
        }
    }

    /// Lets `node` find this connection's idle upstreams when it goes Down.
    pub fn known_to(&self, node: &Arc<Node>) {
        let mut known = self.known_to.lock();
        if !known.iter().any(|n| n.id == node.id) {
            known.push(node.clone());
            node.keeps_idle(self.id, &self.affinity);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        for node in self.known_to.get_mut() {
            node.forget_idle(self.id);
        }
    }
}

/// One request and its answer, or one layer-4 connection.
pub struct Exchange {
    /// The client connection.
    pub conn: Arc<Conn>,
    /// The flow as its node sees it.
    pub flow: Arc<LiveFlow>,
    /// What is known so far.
    pub record: Mutex<Record>,
    /// What decides; fixed for the exchange, so that a reload does not mix two tables.
    pub table: Arc<Table>,
    started: Instant,
    /// Wall clock at its begin: one date for all that is learned of it.
    wall: SystemTime,
    down_before: u64,
    up_before: u64,
}

/// What is known of an exchange so far.
#[derive(Default)]
pub struct Record {
    /// Method.
    pub method: String,
    /// Host, normalised.
    pub host: String,
    /// Path, and query where configured.
    pub path: String,
    /// Protocol word.
    pub protocol: &'static str,
    /// Status sent to the client.
    pub status: u16,
    /// The node.
    pub assigned: Option<Assigned>,
    /// Membership of the node.
    pub entered: Option<Entered>,
    /// Addresses it was learned under; present once learned.
    pub learned: Option<Vec<(usize, std::net::IpAddr)>>,
    /// The beginning of the request's body, where a plugin asked for it.
    pub body_prefix: Vec<u8>,
    /// Nodes tried.
    pub tried: Vec<NodeId>,
    /// The connector of the present try.
    pub dialer: Option<Arc<Dialer>>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Its place among the flows of its client's address.
    pub seat: Option<Seat>,
    /// Why the last try failed and what the client is told if there is no other.
    pub failed: Option<(Reason, u16)>,
    /// Framing of the request's body; `None`: HTTP/2.
    pub request: Option<Framing>,
    /// Random number of the flow.
    pub random: u64,
    /// Hidden bytes at the end of a relay.
    pub hidden: Option<u64>,
    /// Body bytes up and down, where one connection carries several exchanges at once (HTTP/2).
    pub body: Option<(u64, u64)>,
}

impl Exchange {
    /// Begins an exchange.
    pub fn new(conn: Arc<Conn>, protocol: &'static str) -> Arc<Self> {
        let table = conn.listener.table.load_full();
        Arc::new(Exchange {
            flow: LiveFlow::new(),
            record: Mutex::new(Record {
                protocol,
                random: fastrand::u64(..),
                ..Record::default()
            }),
            table,
            started: Instant::now(),
            wall: SystemTime::now(),
            down_before: conn.bytes_down.load(Ordering::Relaxed),
            up_before: conn.bytes_up.load(Ordering::Relaxed),
            conn,
        })
    }

    /// The plugins' view of the flow.
    pub fn facts<'a>(
        &'a self,
        host: &'a str,
        request: Option<&'a RequestHeader>,
        random: u64,
    ) -> Flow<'a> {
        Flow {
            wall: self.wall,
            ..self.conn.facts(host, request, random)
        }
    }

    /// Enters the flow into its node.
    pub fn assign(&self, assigned: Assigned, learned: Option<Vec<(usize, std::net::IpAddr)>>) {
        let m = metrics::get();
        m.assigned
            .with_label_values(&[assigned.node.name.as_str(), assigned.word()])
            .inc();
        let entered = assigned.node.enter(&self.flow, assigned.stuck());
        let mut record = self.record.lock();
        record.entered = Some(entered);
        record.assigned = Some(assigned);
        record.learned = learned;
    }

    /// Takes the flow out of its node, before a retry or at the end.
    pub fn leave(&self) {
        let (entered, learned, assigned) = {
            let mut r = self.record.lock();
            (r.entered.take(), r.learned.take(), r.assigned.clone())
        };
        drop(entered);
        if let (
            Some(filed),
            Some(Assigned {
                pool: Some(pool), ..
            }),
        ) = (learned, assigned)
        {
            self.table.ended(self.conn.client.ip(), &filed, pool.id);
        }
    }

    /// Waits until the flow is to be cut. Its client is told after this only: one that is to move has
    /// been forgotten before it can come back, and the seat of one that comes back at once is free.
    pub async fn kill(&self) {
        self.flow.kill.notified().await;
        let mut record = self.record.lock();
        record.seat = None;
        if self.flow.closed() != Some(Closed::Rebalanced) {
            return;
        }
        if let (Some(filed), Some(assigned)) = (&record.learned, &record.assigned)
            && let Some(pool) = &assigned.pool
        {
            let client = self.conn.client.ip();
            self.table.forget(client, filed, pool.id, assigned.node.id);
        }
    }

    /// Takes a place among the flows of its client's address; false if there is none left.
    pub fn take_seat(&self) -> bool {
        let listener = &self.conn.listener;
        let Some(most) = listener.conf.load().max_flows_per_client else {
            return true;
        };
        let seat = listener.clients.enter(self.conn.client.ip(), most.get());
        let taken = seat.is_some();
        self.record.lock().seat = seat;
        taken
    }

    /// Why a killed flow was killed.
    pub fn killed(&self) -> Reason {
        match self.flow.closed() {
            Some(Closed::Rebalanced) => Reason::Rebalanced,
            Some(Closed::Expired) => Reason::Expired,
            None if self.flow.is_evicted() => Reason::Evicted,
            None => Reason::Drained,
        }
    }

    /// Notes why the flow ended, unless that is known already.
    pub fn ended(&self, reason: Reason) {
        self.record.lock().reason.get_or_insert(reason);
    }

    /// Ends the exchange: leaves the node, counts, logs. `relayed`: bytes up and down after the exit
    /// from Pingora.
    pub fn close(&self, otherwise: Reason, relayed: (u64, u64)) {
        self.leave();
        let mut record = self.record.lock();
        record.seat = None;
        let reason = record.reason.unwrap_or(otherwise).word();
        let listener = &*self.conn.listener.name;
        let up = self.conn.bytes_up.load(Ordering::Relaxed) - self.up_before + relayed.0;
        let down = self.conn.bytes_down.load(Ordering::Relaxed) - self.down_before + relayed.1;
        let (up, down) = match record.protocol {
            "h2" => record.body.unwrap_or_default(),
            _ => (up, down),
        };
        let m = metrics::get();
        m.flows.with_label_values(&[listener, reason]).inc();
        m.bytes.with_label_values(&[listener, "up"]).inc_by(up);
        m.bytes.with_label_values(&[listener, "down"]).inc_by(down);
        if let Some(hidden) = record.hidden {
            m.hidden
                .with_label_values(&[listener])
                .observe(hidden as f64);
        }
        if !access_log::is_on() {
            return;
        }
        let assigned = record.assigned.as_ref();
        let tls = self.conn.tls.as_ref();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        access_log::write(&access_log::Line {
            time: since.map_or(0.0, |d| d.as_secs_f64()),
            flow: self.flow.id,
            listener,
            client: self.conn.client,
            vip: self.conn.vip,
            protocol: record.protocol,
            tls: tls.map(|t| t.version).filter(|v| !v.is_empty()),
            sni: tls.and_then(|t| t.sni.as_deref()),
            method: &record.method,
            host: &record.host,
            path: &record.path,
            status: record.status,
            pool: assigned
                .and_then(|a| a.pool.as_ref())
                .map(|p| p.name.as_str()),
            node: assigned.map(|a| a.node.name.as_str()),
            how: assigned.map(Assigned::word),
            retries: record.tried.len(),
            bytes_up: up,
            bytes_down: down,
            seconds: self.started.elapsed().as_secs_f64(),
            reason,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A panic in the task, or a runtime that stops, skips `close`.
        self.leave();
    }
}
