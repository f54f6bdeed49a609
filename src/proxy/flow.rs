//! One exchange on a client connection: what the hooks, the loops and the log share.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pushgate_plugins::api::{Flow, NodeId};
use pushgate_plugins::head::Head;

use super::clients::Seat;
use super::conn::Conn;
use super::request_line::RequestLine;
use crate::balance::queue::counted_as;
use crate::clock;
use crate::observe::end_reason::EndReason;
use crate::observe::{access_log, metrics};
use crate::route::{Assigned, Table};
use crate::upstream::LiveFlow;
use crate::upstream::node::Entered;

/// One request and its answer, or one layer-4 connection.
pub struct Exchange {
    /// The client connection.
    pub conn: Arc<Conn>,
    /// The flow as its node sees it.
    pub flow: Arc<LiveFlow>,
    /// Facts of the flow so far.
    pub record: Mutex<Record>,
    /// The decision table; fixed for the exchange, so that a reload does not mix two tables.
    pub table: Arc<Table>,
    /// The date of its begin: one for all that is learned of it.
    pub wall: SystemTime,
}

/// Facts of an exchange so far.
#[derive(Default)]
pub struct Record {
    /// Method, host and path.
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
    /// State of the tries; dropped when an answer begins.
    pub tries: Option<Box<Tries>>,
    /// Tries that failed.
    pub retries: usize,
    /// Why it ended.
    pub reason: Option<EndReason>,
    /// Its place among the flows of its client's address.
    pub seat: Option<Box<Seat>>,
    /// Random number of the flow.
    pub random: u64,
    /// Hidden bytes at the end of a relay.
    pub hidden: Option<u64>,
}

/// How a flow gets its node.
#[derive(Default)]
pub struct Tries {
    /// The beginning of the request's body, where a plugin asked for it.
    pub body_prefix: Vec<u8>,
    /// Nodes tried.
    pub tried: Vec<NodeId>,
    /// Requests that were sent to a node and not answered.
    pub unanswered: u32,
    /// Reason and status of the last failed try, for the client if there is no other try.
    pub failed: Option<(EndReason, u16)>,
}

impl Record {
    /// How the flow gets its node.
    pub fn tries(&mut self) -> &mut Tries {
        self.tries.get_or_insert_default()
    }

    /// Notes a node at which a try failed.
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
            conn,
        })
    }

    /// The plugins' view of the flow.
    pub fn facts<'a>(&'a self, host: &'a str, request: Option<&'a Head>, random: u64) -> Flow<'a> {
        self.conn.facts(self.wall, host, request, random)
    }

    /// Enters the flow into its node.
    pub fn assign(&self, assigned: Assigned, learned: Option<Vec<(usize, IpAddr)>>) {
        let m = metrics::get();
        m.assigned
            .with_label_values(&[assigned.node.name.as_str(), assigned.how_str()])
            .inc();
        let entered = assigned.node.enter(&self.flow, assigned.stickiness());
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

    /// Waits until the flow is to be cut. The client is told only after this. A client that is to move is
    /// then forgotten before it can come back, and its seat is free.
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
        if self.flow.closed() != Some(EndReason::Rebalanced) {
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
    pub fn client(&self, head: Option<&Head>) -> IpAddr {
        self.table.client(&self.facts("", head, 0))
    }

    /// The address its client counts as, at its node.
    pub fn counted_as(&self, head: Option<&Head>) -> IpAddr {
        counted_as(self.client(head))
    }

    /// Takes a place among the flows of its client's address; false if there is none left.
    pub fn take_seat(&self, head: Option<&Head>) -> bool {
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
    pub fn killed(&self) -> EndReason {
        match self.flow.closed() {
            Some(closed) => closed,
            None if self.flow.is_evicted() => EndReason::Evicted,
            None => EndReason::Drained,
        }
    }

    /// Notes why the flow ended, unless that is known already.
    pub fn ended(&self, reason: EndReason) {
        self.record.lock().reason.get_or_insert(reason);
    }

    /// Ends the exchange: leaves the node, counts, logs. `bytes`: of the request's body to the node, all
    /// of the answer to the client.
    pub fn close(&self, otherwise: EndReason, (up, down): (u64, u64)) {
        self.leave();
        let mut record = self.record.lock();
        record.seat = None;
        let reason = record.reason.unwrap_or(otherwise);
        let listener = &*self.conn.listener.name;
        let counters = &self.conn.listener.counters;
        let m = metrics::get();
        match reason {
            EndReason::Done => counters.done.inc(),
            _ => m
                .flows
                .with_label_values(&[listener, reason.as_str()])
                .inc(),
        }
        counters.up.inc_by(up);
        counters.down.inc_by(down);
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
            how: assigned.map(Assigned::how_str),
            retries: record.retries,
            bytes_up: up,
            bytes_down: down,
            seconds: self.flow.age(Instant::now()).as_secs_f64(),
            reason: reason.as_str(),
        });
    }
}

/// Resolves when its flow is to be cut, to the reason.
pub struct Kill {
    /// Also in `ex`: each wake-up asks the flow, without touching the memory of the exchange.
    flow: Arc<LiveFlow>,
    ex: Arc<Exchange>,
    told: Option<Waker>,
}

impl Future for Kill {
    type Output = EndReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<EndReason> {
        let this = &mut *self;
        ready!(this.flow.kill.poll(cx, &mut this.told));
        this.ex.give_back();
        Poll::Ready(this.ex.killed())
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
