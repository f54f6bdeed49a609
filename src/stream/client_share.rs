//! Bounds what one client may hold of this process: client connections, sockets, and local ports towards a
//! node.
//!
//! In: a client's address, what it wants to hold. Out: a charge, which gives the place back when it is
//! dropped. A client over HTTP/2 needs one connection to make the edge open thousands of sockets towards
//! nodes, so these are charged too. Source: FAULTS D54, D55, D58; issue "one client cannot shut out all
//! others".

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::by_client::{ByClient, take};

/// The most that one client may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// Client connections of all listeners.
    pub connections: usize,
    /// Sockets: its connections, and those to nodes that its flows opened.
    pub sockets: usize,
    /// Connections to one node: each takes a local port that no other connection to that node can have.
    pub ports: usize,
}

/// A browser opens six connections to a host, and a page may open two hosts.
const FEWEST_CONNECTIONS: usize = 8;
/// An office of a hundred people behind one address: two sockets for each flow.
const FEWEST_SOCKETS: usize = 256;
/// A small process leaves others so many sockets: sixty clients, who come and go while descriptors are being
/// closed.
const LEFT_SOCKETS: usize = 128;

impl ShareLimits {
    /// Computes the limits: `share`, from 0 to 1, of `connections`, `sockets` and `ports` of this process. A
    /// small process still gives each client what a browser or a small office needs.
    pub fn of(share: f64, connections: usize, sockets: usize, ports: usize) -> Self {
        let part = |whole: usize| (whole as f64 * share) as usize;
        let left = if share < 1.0 { LEFT_SOCKETS } else { 0 };
        let most = sockets.saturating_sub(left);
        ShareLimits {
            connections: part(connections).max(FEWEST_CONNECTIONS),
            sockets: part(sockets).min(most).max(FEWEST_SOCKETS),
            ports: part(ports).max(FEWEST_SOCKETS),
        }
    }
}

/// The clients that hold something. What they hold bounds the map.
pub struct ClientShares {
    known: ByClient<ClientShare>,
    limits: ShareLimits,
    /// Handshakes of one client whose arithmetic may run or wait for a thread at a time.
    handshakes: usize,
}

/// What one client holds.
pub struct ClientShare {
    /// The client's address; of IPv6 its /64.
    pub client: IpAddr,
    /// The turns of its handshakes: those beyond wait for one another, not in front of other clients'.
    pub handshakes: Semaphore,
    /// Its connections are in no list of idle clients, because none of them was idle.
    pub is_unlisted: AtomicBool,
    connections: AtomicUsize,
    sockets: AtomicUsize,
    /// Connections to each node, by the node's number. A client has flows at few nodes.
    ports: Mutex<Vec<(u64, usize)>>,
    all: Arc<ClientShares>,
}

impl ClientShares {
    /// Makes the shares of a process. `handshakes`: the number of its handshake threads.
    pub fn new(limits: ShareLimits, handshakes: usize) -> Arc<Self> {
        Arc::new(ClientShares {
            known: ByClient::default(),
            limits,
            handshakes: handshakes.max(1),
        })
    }

    /// Returns the share of `client`, which must be an address as clients are counted by.
    pub fn of(self: &Arc<Self>, client: IpAddr) -> Arc<ClientShare> {
        self.known.of(client, || ClientShare {
            client,
            handshakes: Semaphore::new(self.handshakes),
            is_unlisted: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            ports: Mutex::default(),
            all: self.clone(),
        })
    }
}

impl ClientShare {
    /// Charges a client connection. False: the client holds its share; nothing is charged. The caller gives
    /// it back by [`ClientShare::disconnect`].
    pub fn connect(&self) -> bool {
        let limits = self.all.limits;
        let connected = take(&self.connections, limits.connections);
        if connected && !take(&self.sockets, limits.sockets) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        connected
    }

    /// Gives back a client connection.
    pub fn disconnect(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the number of its connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Charges a connection to the node with the number `node`; `None`: the client holds its share.
    pub fn dial(self: &Arc<Self>, node: u64) -> Option<UpstreamCharge> {
        let limits = self.all.limits;
        if !take(&self.sockets, limits.sockets) {
            return None;
        }
        let mut ports = self.ports.lock();
        let at = ports.iter().position(|(n, _)| *n == node);
        let at = at.unwrap_or_else(|| {
            ports.push((node, 0));
            ports.len() - 1
        });
        let (_, held) = &mut ports[at];
        if *held >= limits.ports {
            drop(ports);
            self.sockets.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *held += 1;
        Some(UpstreamCharge {
            share: self.clone(),
            node,
        })
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        self.all.known.forget(self.client);
    }
}

/// A connection to a node, charged to the client whose flow opened it. Its socket holds this.
pub struct UpstreamCharge {
    share: Arc<ClientShare>,
    node: u64,
}

impl Drop for UpstreamCharge {
    fn drop(&mut self) {
        self.share.sockets.fetch_sub(1, Ordering::Relaxed);
        let mut ports = self.share.ports.lock();
        if let Some(at) = ports.iter().position(|(n, _)| *n == self.node) {
            ports[at].1 -= 1;
            if ports[at].1 == 0 {
                ports.swap_remove(at);
            }
        }
    }
}

impl std::fmt::Debug for UpstreamCharge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpstreamCharge({})", self.share.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: usize, sockets: usize, ports: usize) -> Arc<ClientShares> {
        let limits = ShareLimits {
            connections,
            sockets,
            ports,
        };
        ClientShares::new(limits, 1)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Aim: a client's share follows the process, with room for a browser and an office. Fails if a small
    /// process leaves a client nothing.
    #[test]
    fn a_share_follows_the_process() {
        let cases = [
            ((0.6, 200_000, 19_616, 28_232), (120_000, 11_769, 16_939)),
            ((0.6, 500, 896, 28_232), (300, 537, 16_939)),
            ((0.95, 500, 896, 28_232), (475, 768, 26_820)),
            ((0.6, 1, 224, 16), (8, 256, 256)),
            ((1.0, 500, 1000, 1000), (500, 1000, 1000)),
        ];
        for ((share, connections, sockets, ports), expected) in cases {
            let limits = ShareLimits::of(share, connections, sockets, ports);
            let got = (limits.connections, limits.sockets, limits.ports);
            assert_eq!(got, expected, "{share} of {connections}");
        }
    }

    /// Aim: connections to nodes count in the client's share as its own do, and others keep theirs. Fails if
    /// a charge is not given back, or if one client's charge is another's.
    #[test]
    fn sockets_to_nodes_count() {
        let shares = shares(10, 3, 10);
        let (one, two) = (shares.of(ip(1)), shares.of(ip(2)));
        assert!(one.connect());
        let (a, b) = (one.dial(1), one.dial(2));
        assert!(a.is_some() && b.is_some());
        assert!(one.dial(1).is_none() && !one.connect(), "three sockets");
        assert!(two.connect() && two.dial(1).is_some(), "another client");
        drop(a);
        assert!(one.dial(1).is_some());
        one.disconnect();
        assert!(one.connect());
    }

    /// Aim: a client takes its share of the ports towards one node, and reaches the others. Fails if ports
    /// are counted over all nodes, or not at all.
    #[test]
    fn ports_count_for_each_node() {
        let shares = shares(10, 100, 2);
        let one = shares.of(ip(1));
        let mut held = vec![one.dial(7), one.dial(7), one.dial(8)];
        assert!(held.iter().all(Option::is_some));
        assert!(one.dial(7).is_none() && one.dial(8).is_some());
        held.clear();
        assert!(one.dial(7).is_some());
        assert!(one.ports.lock().is_empty(), "nothing is left behind");
    }

    /// Aim: a client that holds nothing is forgotten. Fails if addresses fill the map.
    #[test]
    fn a_client_that_left_is_forgotten() {
        let shares = shares(10, 10, 10);
        let one = shares.of(ip(1));
        assert!(Arc::ptr_eq(&one, &shares.of(ip(1))));
        let charge = one.dial(1);
        drop(one);
        assert_eq!(shares.known.len(), 1, "its upstream is open");
        drop(charge);
        assert!(shares.known.len() == 0);
    }
}
