//! Counts the live flows of each client address, for listeners that limit them.
//!
//! In: flows that begin and end. Out: whether an address may begin one more. Each HTTP/2 stream counts, so a
//! client cannot evade the limit with one connection. Source: FAULTS D58.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::balance::queue::counted_as;

/// The addresses that have live flows. The number of live flows bounds the map.
#[derive(Default)]
pub struct Clients {
    live: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of a counted flow. Dropping it ends the count.
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts a flow of `client`; `None`: its address (IPv6: its /64) has `most` flows already.
    pub fn enter(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<Seat> {
        let client = counted_as(client);
        let mut live = self.live.lock();
        let own = live.entry(client).or_insert(0);
        if *own >= most {
            return None;
        }
        *own += 1;
        Some(Seat {
            clients: self.clone(),
            client,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = self.clients.live.lock();
        if let Some(own) = live.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                live.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_seats_and_no_more() {
        let clients = Arc::new(Clients::default());
        let ip = |n| IpAddr::from([192, 0, 2, n]);
        let (one, two) = (clients.enter(ip(1), 2), clients.enter(ip(1), 2));
        assert!(one.is_some() && two.is_some());
        assert!(clients.enter(ip(1), 2).is_none());
        assert!(
            clients.enter(ip(2), 2).is_some(),
            "others are not concerned"
        );
        drop(one);
        assert!(clients.enter(ip(1), 2).is_some());
        drop(two);
        assert!(clients.live.lock().is_empty(), "nothing is left behind");
    }
}
