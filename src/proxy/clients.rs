//! Counts the connections and live flows of each client address at a listener, which limits both.
//!
//! In: connections and flows that begin and end. Out: whether an address may begin one more. Each HTTP/2
//! stream counts as a flow, so a client cannot evade that limit with one connection. Source: FAULTS D58.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::balance::queue::counted_as;
use crate::stream::by_client::{ByClient, take};
use crate::stream::client_pace::{ClientPace, Places};

/// The clients of a listener. The number of its connections and flows bounds the map.
#[derive(Default)]
pub struct Clients {
    known: ByClient<Client>,
    /// The pace of each client, whether it is here or not.
    pub pace: ClientPace,
}

/// One client at one listener.
pub struct Client {
    /// Its address; of IPv6 its /64.
    pub address: IpAddr,
    /// Its places in [`Clients::pace`].
    pub places: Places,
    connections: AtomicUsize,
    flows: AtomicUsize,
    all: Arc<Clients>,
}

/// The place of a counted flow. Dropping it ends the count.
pub struct FlowSeat(Arc<Client>);

/// The place of a counted connection. Dropping it ends the count.
pub struct ConnectionSeat(Arc<Client>);

impl Clients {
    /// Returns the client with the address `client` (IPv6: the /64).
    pub fn of(self: &Arc<Self>, client: IpAddr) -> Arc<Client> {
        let address = counted_as(client);
        self.known.of(address, || Client {
            address,
            places: self.pace.places(address),
            connections: AtomicUsize::new(0),
            flows: AtomicUsize::new(0),
            all: self.clone(),
        })
    }
}

impl Client {
    /// Counts a flow; `None`: the client has `most` flows already.
    pub fn flow(self: &Arc<Self>, most: usize) -> Option<FlowSeat> {
        take(&self.flows, most).then(|| FlowSeat(self.clone()))
    }

    /// Counts a connection; `None`: the client has `most` connections already.
    pub fn connection(self: &Arc<Self>, most: usize) -> Option<ConnectionSeat> {
        take(&self.connections, most).then(|| ConnectionSeat(self.clone()))
    }
}

impl ConnectionSeat {
    /// Returns the client.
    pub fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for FlowSeat {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.all.known.forget(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_seats_and_no_more() {
        let clients = Arc::new(Clients::default());
        let of = |n| clients.of(IpAddr::from([192, 0, 2, n]));
        let (one, two) = (of(1).flow(2), of(1).flow(2));
        assert!(one.is_some() && two.is_some());
        assert!(of(1).flow(2).is_none());
        assert!(of(2).flow(2).is_some(), "others are not concerned");
        assert!(of(1).connection(1).is_some(), "nor are its connections");
        drop(one);
        assert!(of(1).flow(2).is_some());
        drop(two);
        assert!(clients.known.len() == 0, "nothing is left behind");
    }

    #[test]
    fn a_prefix_is_one_client() {
        let clients = Arc::new(Clients::default());
        let of = |text: &str| clients.of(text.parse().expect("an address"));
        let held = of("2001:db8::1").connection(1);
        assert!(held.is_some());
        assert!(of("2001:db8::ffff:1").connection(1).is_none(), "its /64");
        assert!(of("2001:db8:0:1::1").connection(1).is_some(), "the next");
    }
}
