//! Live flows of each client address, where a listener bounds them.
//!
//! In: flows that begin and end. Out: whether one more of an address may begin; HTTP/2 streams count one
//! by one, so a single connection cannot get round it. Source: FAULTS D58.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::balance::queue::counted_as;

/// Addresses with live flows; bounded by the flows themselves.
#[derive(Default)]
pub struct Clients {
    live: Mutex<HashMap<IpAddr, usize>>,
}

/// A flow that is counted, until this is dropped.
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts a flow of `client`, unless its address (IPv6: /64) has `most` already.
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
