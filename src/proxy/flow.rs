//! Holds the state of one exchange that the hooks, the loops and the log share.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use pushgate_plugins::api::{Flow, NodeId};
use pushgate_plugins::head::Head;

use super::clients::FlowSeat;
use super::conn::Conn;
use super::request_line::RequestLine;
use super::turn::Turn;
use crate::balance::queue::counted_as;
use crate::clock;
use crate::observe::end_reason::EndReason;
use crate::observe::{metrics, silence};
use crate::route::{Assigned, Table};
use crate::stream::meter::{Lost, Peer};
use crate::stream::relay::Relay;
use crate::upstream::LiveFlow;
use crate::upstream::live_flow::{Description, FlowOwner};
use crate::upstream::node::Entered;

/// One request and its answer, or one layer-4 connection.
pub struct Exchange {
    /// The client connection.
    pub conn: Arc<Conn>,
    /// The flow's entry in the node's live flows.
    pub flow: Arc<LiveFlow>,
    /// Facts of the flow so far.
    pub record: Mutex<Record>,
    /// The routing table. It is fixed for the exchange, so a reload does not mix two tables.
    pub table: Arc<Table>,
    /// The date when the exchange began; everything learned from the exchange gets this date.
    pub wall: SystemTime,
}

/// Facts of an exchange so far.
#[derive(Default)]
pub struct Record {
    /// Method, host and path.
    pub line: RequestLine,
    /// The protocol as the log names it.
    pub protocol: &'static str,
    /// Status sent to the client.
    pub status: u16,
    /// The node.
    pub assigned: Option<Assigned>,
    /// The guard of the flow's place at its node.
    pub entered: Option<Entered>,
    /// Client addresses under which plugins learned it, by plugin index, where they differ from the
    /// connection's client. `Some` once the flow was learned.
    pub learned: Option<Box<[(usize, IpAddr)]>>,
    /// State of the tries. It is dropped when an answer begins.
    pub tries: Option<Box<Tries>>,
    /// Number of failed tries.
    pub retries: usize,
    /// Why the exchange ended.
    pub reason: Option<EndReason>,
    /// Its place among the flows of its client's address.
    pub seat: Option<FlowSeat>,
    /// The flow's random number, an input of the decisions.
    pub random: u64,
    /// Hidden bytes at the end of a relay.
    pub hidden: Option<u64>,
    /// `X-Request-Id` as the node got it; only if the access log is on.
    pub request_id: Option<Box<str>>,
    /// The node was sent the request.
    pub asked: bool,
}

/// State of the search for the flow's node.
#[derive(Default)]
pub struct Tries {
    /// The beginning of the request's body, if a plugin asked for it.
    pub body_prefix: Vec<u8>,
    /// Nodes tried.
    pub tried: Vec<NodeId>,
    /// Until when the flow may wait for the other edges, over all its tries.
    pub asks_until: Option<Instant>,
    /// Number of requests that were sent to a node and not answered.
    pub unanswered: u32,
    /// Reason and status of the last failed try. The client gets them if no other try follows.
    pub failed: Option<(EndReason, u16)>,
}

impl Record {
    /// Returns the state of the tries.
    pub fn tries(&mut self) -> &mut Tries {
        self.tries.get_or_insert_default()
    }

    /// Records a failed try at `node`.
    pub fn failed_at(&mut self, node: NodeId) {
        self.asked = false;
        self.retries += 1;
        self.tries().tried.push(node);
    }
}

impl Exchange {
    /// Begins an exchange. `protocol`: its name in the log.
    pub fn new(conn: Arc<Conn>, protocol: &'static str) -> Arc<Self> {
        let table = conn.listener.table.load_full();
        conn.listener.begin_flow();
        Arc::new_cyclic(|this: &Weak<Exchange>| Exchange {
            flow: LiveFlow::of(this.clone()),
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

    /// Returns the plugins' view of the flow.
    pub fn facts<'a>(&'a self, host: &'a str, request: Option<&'a Head>, random: u64) -> Flow<'a> {
        self.conn.facts(self.wall, host, request, random)
    }

    /// Enters the flow at its node. `learned`: see [`Record::learned`].
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

    /// Removes the flow from its node, before a retry or at the end.
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

    /// Returns a future that resolves when the flow must be cut. The caller cuts the client only after that.
    /// By then the flow's seat is free, and a rebalanced client is forgotten before it can come back.
    pub fn kill(self: &Arc<Self>) -> Kill {
        Kill {
            flow: self.flow.clone(),
            ex: self.clone(),
            told: None,
        }
    }

    /// Frees the flow's seat, and forgets the client if the flow is closed by a rebalance.
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

    /// Returns the address of the flow's client ([`Table::client`]).
    pub fn client(&self, head: Option<&Head>) -> IpAddr {
        if self.table.plugins.trusts.is_empty() {
            return self.conn.client.ip();
        }
        self.table.client(&self.facts("", head, 0))
    }

    /// Returns the address under which the node counts the client.
    pub fn counted_as(&self, head: Option<&Head>) -> IpAddr {
        counted_as(self.client(head))
    }

    /// Takes a seat among the flows of its client's address. False: the address has `max_flows_per_client`
    /// already.
    pub fn take_seat(&self, head: Option<&Head>) -> bool {
        let listener = &self.conn.listener;
        let most = listener.conf.load().max_flows_per_client;
        let seat = listener.client_of(self.client(head)).flow(most.get());
        let taken = seat.is_some();
        self.record.lock().seat = seat;
        taken
    }

    /// Books the request's turn at the rate of its client; `None`: it has come.
    pub fn turn(&self, head: &Head) -> Option<Turn> {
        self.conn.listener.request_turn(self.client(Some(head)))
    }

    /// Returns why a killed flow was killed.
    pub fn killed(&self) -> EndReason {
        match self.flow.closed() {
            Some(closed) => closed,
            None if self.flow.is_evicted() => EndReason::Evicted,
            None => EndReason::Drained,
        }
    }

    /// Records why the flow ended, unless a reason is recorded already.
    pub fn ended(&self, reason: EndReason) {
        self.record.lock().reason.get_or_insert(reason);
    }

    /// Measures `relay`, to which the node was connected.
    pub fn follow(&self, relay: &mut Relay) {
        relay.measure(&self.flow.meter);
        self.record.lock().asked = true;
    }

    /// Remembers a lost peer, and for how long its connection had been silent.
    pub fn lost(&self, lost: Option<Lost>) {
        let Some(Lost { peer, silent }) = lost else {
            return;
        };
        let listener = &self.conn.listener;
        let keepalive = match (peer, &self.record.lock().assigned) {
            (Peer::Node, Some(assigned)) => assigned.node.tcp().keepalive,
            _ => listener.conf.load().tcp.keepalive,
        };
        let histogram = &metrics::get().silence;
        let labels = [listener.name.as_str(), peer.as_str()];
        histogram
            .with_label_values(&labels)
            .observe(silent.as_secs_f64());
        silence::note(&listener.name, peer.as_str(), silent, keepalive.0);
    }

    /// Ends the exchange: leaves the node, counts, and writes the access line. `otherwise`: the end reason if
    /// none is recorded. `bytes`: of the request's body to the node, and of the whole answer to the client.
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
        self.log(&record, Some(reason), (up, down));
    }
}

impl FlowOwner for Exchange {
    fn client(&self) -> SocketAddr {
        self.conn.client
    }

    fn listener(&self) -> &str {
        &self.conn.listener.name
    }

    fn describe(&self) -> Description {
        let record = self.record.lock();
        let (method, host, path) = record.line.parts();
        Description {
            protocol: record.protocol,
            request: [method, host, path].map(str::to_owned),
        }
    }
}

/// Resolves to the reason when its flow must be cut.
pub struct Kill {
    /// Also in `ex`. Here each wake-up asks the flow without touching the memory of the exchange.
    flow: Arc<LiveFlow>,
    ex: Arc<Exchange>,
    told: Option<Waker>,
}

impl Kill {
    /// Returns the exchange of the flow.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.ex
    }
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
        self.conn.listener.end_flow();
    }
}
