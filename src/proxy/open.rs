//! Counts open client connections, and enforces their limits: in all, and of each client.
//!
//! In: accepted sockets. Out: a guard for each, which the connection holds. At the limit an idle connection
//! makes room. Source: FAULTS D54, D58.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use super::clients::{Client, ConnectionSeat};
use super::idle_clients::IdleClients;
use super::listener::Listener;
use super::place::{Micros, Place};
use super::threads::{Seat, Thread};
use super::turn::Turn;
use crate::balance::queue::counted_as;
use crate::observe::metrics;
use crate::stream::client_pace::{Paced, Places};
use crate::stream::client_share::{ClientShare, ClientShares};

/// The open client connections of all listeners. The threads that serve them keep the counts.
pub struct Connections {
    threads: Arc<[Thread]>,
    most: i64,
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    shares: Arc<ClientShares>,
    idle: IdleClients,
}

/// Which limit a new connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// `max_connections`, and no idle connection can make room.
    Connections,
    /// `max_connections_per_client` of the listener.
    PerClient,
    /// `client_share`.
    Share,
}

/// The listener of an open client connection. The connection counts until this is dropped.
pub struct Open(Box<Counted>);

struct Counted {
    listener: Arc<Listener>,
    place: Arc<Place>,
    /// Its client's counts; `None`: a trusted proxy, or a client that is not known yet.
    client: Option<(ConnectionSeat, Arc<ClientShare>)>,
    shared: Arc<Shared>,
    /// Streams of its own client wait before the connection begins them.
    streams_wait: AtomicBool,
    /// Its place on the thread that serves it.
    _seat: Seat,
}

/// Connections above the limit, at most, while as many idle ones close: their tasks end them within
/// milliseconds.
const CLOSING: i64 = 1024;

impl Connections {
    /// Counts the connections of `threads`, and allows at most `most`.
    pub fn at_most(most: usize, threads: Arc<[Thread]>, shares: Arc<ClientShares>) -> Self {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let idle = IdleClients::default();
        let shared = Arc::new(Shared { shares, idle });
        Connections {
            threads,
            most,
            shared,
        }
    }

    /// Counts the connections that are open now.
    pub fn open(&self) -> usize {
        usize::try_from(self.sum()).unwrap_or_default()
    }

    fn sum(&self) -> i64 {
        self.threads.iter().map(Thread::connections).sum()
    }

    /// Counts one more connection of `listener` on `thread`. `client`: its address; `None`: a trusted proxy,
    /// which has no limit of its own.
    ///
    /// Errors: the limit that is reached. If several threads accept at the limit, each may refuse its client
    /// although one place is left.
    pub fn enter(
        &self,
        listener: &Arc<Listener>,
        thread: &Thread,
        client: Option<IpAddr>,
    ) -> Result<Open, LimitReached> {
        // First, because a flood is refused here: it costs no memory.
        let charge = |client| charge(listener, &self.shared, client);
        let client = client.map(charge).transpose()?;
        let own = client.as_ref().map_or(1, |(_, share)| share.connections());
        let metric = &metrics::get().connections;
        metric.with_label_values(&[&listener.name]).inc();
        let open = Open(Box::new(Counted {
            listener: listener.clone(),
            place: Arc::new(Place::new(Micros::now())),
            client,
            shared: self.shared.clone(),
            streams_wait: AtomicBool::new(false),
            _seat: thread.seat(),
        }));
        let excess = self.sum() - self.most;
        if excess > CLOSING || (excess > 0 && !self.close_idle(own, 1, "max_connections")) {
            return Err(LimitReached::Connections);
        }
        // Only now, so that it does not make room for itself.
        open.may_close();
        Ok(open)
    }

    /// Closes the longest idle connection of the client with most, to make room for a client with `own`
    /// connections. Clients with fewer than `least` make none. Returns whether there was one.
    pub fn close_idle(&self, own: usize, least: usize, reason: &str) -> bool {
        let closes = self.shared.idle.close_one(own, least);
        if closes {
            let closed = &metrics::get().closed_idle;
            closed.with_label_values(&[reason]).inc();
        }
        closes
    }
}

impl Open {
    /// Counts the connection for `client`, which a trusted sender has named.
    ///
    /// Errors: the client has reached a limit.
    pub fn name(&mut self, client: IpAddr) -> Result<(), LimitReached> {
        if self.0.client.is_some() {
            // A reload made its peer a sender of the PROXY protocol just after it was charged as a client.
            return Ok(());
        }
        self.0.client = Some(charge(&self.0.listener, &self.0.shared, client)?);
        self.may_close();
        Ok(())
    }

    /// Lets the connection make room for others while it is idle.
    fn may_close(&self) {
        if let Some((_, share)) = &self.0.client {
            self.0.shared.idle.enter(share, &self.0.place);
        }
    }

    /// Counts a flow of the connection, until [`Open::end_flow`].
    pub fn begin_flow(&self) {
        self.0.place.begin_flow();
    }

    /// Ends the count of a flow.
    pub fn end_flow(&self) {
        if self.0.place.end_flow(Micros::now())
            && let Some((_, share)) = &self.0.client
        {
            self.0.shared.idle.is_idle(share);
        }
    }

    /// Ready when the idle connection must close, because others need the room. Only its own task may poll.
    pub fn poll_closes(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.place.poll_told(cx)
    }

    /// Returns the state of the connection: idle, or with flows.
    pub fn place(&self) -> Arc<Place> {
        self.0.place.clone()
    }

    /// Returns the share of its own client; `None`: a trusted proxy, or a client that is not known yet.
    pub fn share(&self) -> Option<&Arc<ClientShare>> {
        self.0.client.as_ref().map(|(_, share)| share)
    }

    /// Books the turn of the connection itself; `None`: it has come, or the connection is a trusted proxy's.
    pub fn connection_turn(&self) -> Option<Turn> {
        self.own_turn(Paced::Connection)
    }

    /// Books the turn of a stream of the connection's own client; `None`: it has come, or the connection is a
    /// trusted proxy's, whose streams wait one by one for the clients that it names.
    pub fn stream_turn(&self) -> Option<Turn> {
        self.0.streams_wait.store(true, Ordering::Relaxed);
        self.own_turn(Paced::Request)
    }

    fn own_turn(&self, what: Paced) -> Option<Turn> {
        let (seat, _) = self.0.client.as_ref()?;
        Turn::book(&self.0.listener, what, seat.client().places)
    }

    /// Books the turn of a request of `client`; `None`: it has come, or the request is a stream that has waited
    /// for [`Open::stream_turn`].
    pub fn request_turn(&self, client: IpAddr) -> Option<Turn> {
        let (places, is_own) = self.places(client);
        if is_own && self.0.streams_wait.load(Ordering::Relaxed) {
            return None;
        }
        Turn::book(&self.0.listener, Paced::Request, places)
    }

    /// Charges a connection to a node, made for a request of `client`, to the client's rate of requests.
    pub fn charge_dial(&self, client: IpAddr) {
        if let Some(rate) = self.0.listener.conf.load().request_rate() {
            let (places, _) = self.places(client);
            self.0.listener.clients.pace.charge_dial(places, rate);
        }
    }

    /// Returns where the rates of `client` are counted, and whether it is the connection's own client.
    fn places(&self, client: IpAddr) -> (Places, bool) {
        let address = counted_as(client);
        match &self.0.client {
            Some((seat, _)) if seat.client().address == address => (seat.client().places, true),
            _ => (self.0.listener.clients.pace.places(address), false),
        }
    }

    /// Returns the counts of `client` at this listener: often the connection's own client.
    pub fn client_of(&self, client: IpAddr) -> Arc<Client> {
        match &self.0.client {
            Some((seat, _)) if seat.client().address == counted_as(client) => seat.client().clone(),
            _ => self.0.listener.clients.of(client),
        }
    }

    /// Returns the share of `client`: often the connection's own client.
    pub fn share_of(&self, client: IpAddr) -> Arc<ClientShare> {
        let client = counted_as(client);
        match &self.0.client {
            Some((_, share)) if share.client == client => share.clone(),
            _ => self.0.shared.shares.of(client),
        }
    }
}

/// Counts a connection of `client`, at its listener and in its share.
///
/// Errors: the limit that is reached.
fn charge(
    listener: &Listener,
    shared: &Shared,
    client: IpAddr,
) -> Result<(ConnectionSeat, Arc<ClientShare>), LimitReached> {
    let most = listener.conf.load().max_connections_per_client.get();
    let seat = listener.clients.of(client).connection(most);
    let seat = seat.ok_or(LimitReached::PerClient)?;
    let share = shared.shares.of(seat.client().address);
    match share.connect() {
        true => Ok((seat, share)),
        false => Err(LimitReached::Share),
    }
}

impl Deref for Open {
    type Target = Arc<Listener>;

    fn deref(&self) -> &Arc<Listener> {
        &self.0.listener
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((_, share)) = &self.0.client {
            self.0.shared.idle.leave(share, &self.0.place);
            share.disconnect();
        }
        metrics::get()
            .connections
            .with_label_values(&[&self.0.listener.name])
            .dec();
    }
}
