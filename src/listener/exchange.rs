//! One exchange on a client connection: what the hooks, the loops and the log share.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pingora_http::RequestHeader;
use pushgate_plugins::api::{Flow, NodeId};

use super::clients::Seat;
pub use super::conn::Conn;
pub use super::reason::Reason;
pub use super::request_line::RequestLine;
use crate::balance::queue::counted_as;
use crate::clock;
use crate::observe::{access_log, metrics};
use crate::route::{Assigned, Table};
use crate::stream::framing::Framing;
use crate::upstream::LiveFlow;
use crate::upstream::connect::Dialer;
use crate::upstream::live::Closed;
use crate::upstream::state::Entered;

tokio::task_local! {
    /// The exchange Pingora is serving in this task.
    pub static CURRENT: Arc<Exchange>;
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
    /// The date of its begin: one for all that is learned of it.
    wall: SystemTime,
    down_before: u64,
    up_before: u64,
}

/// What is known of an exchange so far.
#[derive(Default)]
pub struct Record {
    /// What was asked for.
    pub line: RequestLine,
    /// Protocol word.
    pub protocol: &'static str,
    /// Status sent to the client.
    pub status: u16,
    /// The node.
    pub assigned: Option<Assigned>,
    /// Membership of the node.
    pub entered: Option<Entered>,
    /// Addresses it was learned under; present once learned.
    pub learned: Option<Box<[(usize, IpAddr)]>>,
    /// What is needed until an answer has begun; dropped when the flow leaves Pingora.
    pub tries: Option<Box<Tries>>,
    /// Tries that failed.
    pub retries: usize,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Its place among the flows of its client's address.
    pub seat: Option<Box<Seat>>,
    /// Random number of the flow.
    pub random: u64,
    /// Hidden bytes at the end of a relay.
    pub hidden: Option<u64>,
    /// Body bytes up and down, where one connection carries several exchanges at once (HTTP/2).
    pub body: (u64, u64),
}

/// How a flow gets its node.
#[derive(Default)]
pub struct Tries {
    /// The beginning of the request's body, where a plugin asked for it.
    pub body_prefix: Vec<u8>,
    /// Framing of the request's body; `None`: HTTP/2.
    pub request: Option<Framing>,
    /// Nodes tried.
    pub tried: Vec<NodeId>,
    /// The connector of the present try.
    pub dialer: Option<Arc<Dialer>>,
    /// Why the last try failed and what the client is told if there is no other.
    pub failed: Option<(Reason, u16)>,
}

impl Record {
    /// How the flow gets its node.
    pub fn tries(&mut self) -> &mut Tries {
        self.tries.get_or_insert_default()
    }

    /// Notes a node that could not be had.
    pub fn failed_at(&mut self, node: NodeId) {
        self.retries += 1;
        self.tries().tried.push(node);
    }
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
            wall: clock::date(),
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
        self.conn.facts(self.wall, host, request, random)
    }

    /// Enters the flow into its node.
    pub fn assign(&self, assigned: Assigned, learned: Option<Vec<(usize, IpAddr)>>) {
        let m = metrics::get();
        m.assigned
            .with_label_values(&[assigned.node.name.as_str(), assigned.word()])
            .inc();
        let entered = assigned.node.enter(&self.flow, assigned.stuck());
        let mut record = self.record.lock();
        record.entered = Some(entered);
        record.assigned = Some(assigned);
        record.learned = learned.map(Vec::into_boxed_slice);
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
    pub fn kill(self: &Arc<Self>) -> Kill {
        Kill {
            flow: self.flow.clone(),
            ex: self.clone(),
            told: None,
        }
    }

    /// Gives its seat back, and forgets a client that is to move.
    fn give_back(&self) {
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

    /// The address of the flow's client ([`Table::client`]).
    pub fn client(&self, head: Option<&RequestHeader>) -> IpAddr {
        self.table.client(&self.facts("", head, 0))
    }

    /// The address its client counts as, at its node.
    pub fn counted_as(&self, head: Option<&RequestHeader>) -> IpAddr {
        counted_as(self.client(head))
    }

    /// Takes a place among the flows of its client's address; false if there is none left.
    pub fn take_seat(&self, head: Option<&RequestHeader>) -> bool {
        let listener = &self.conn.listener;
        let Some(most) = listener.conf.load().max_flows_per_client else {
            return true;
        };
        let seat = listener.clients.enter(self.client(head), most.get());
        let taken = seat.is_some();
        self.record.lock().seat = seat.map(Box::new);
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
            "h2" => record.body,
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
        let (method, host, path) = record.line.parts();
        let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        access_log::write(&access_log::Line {
            time: since.map_or(0.0, |d| d.as_secs_f64()),
            flow: self.flow.id,
            listener,
            client: self.conn.client,
            vip: self.conn.vip,
            protocol: record.protocol,
            tls: tls.map(|t| t.version).filter(|v| !v.is_empty()),
            sni: tls.and_then(|t| t.sni.as_deref()),
            method,
            host,
            path,
            status: record.status,
            pool: assigned
                .and_then(|a| a.pool.as_ref())
                .map(|p| p.name.as_str()),
            node: assigned.map(|a| a.node.name.as_str()),
            how: assigned.map(Assigned::word),
            retries: record.retries,
            bytes_up: up,
            bytes_down: down,
            seconds: self.flow.age(Instant::now()).as_secs_f64(),
            reason,
        });
    }
}

/// Resolves when its flow is to be cut.
pub struct Kill {
    /// Beside the exchange: each wake-up asks it, and spares a look at the exchange.
    flow: Arc<LiveFlow>,
    ex: Arc<Exchange>,
    told: Option<Waker>,
}

impl Future for Kill {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready!(this.flow.kill.poll(cx, &mut this.told));
        this.ex.give_back();
        Poll::Ready(())
    }
}

impl Drop for Kill {
    fn drop(&mut self) {
        self.flow.kill.leave();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A panic in the task, or a runtime that stops, skips `close`.
        self.leave();
    }
}
