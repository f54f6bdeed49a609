//! Queue of the flows that wait for a node. Client addresses take turns, so that one address
//! with many flows does not shut the others out.
//!
//! In: flows that come when every node is at its limit, or while others wait. Out: the next flow, or the flow to
//! refuse when the queue is full. Pure. Source: docs/operations.md, "Reconnect storms"; Lightstreamer clustering §5.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Holds at most `limit` waiting flows.
#[derive(Debug)]
pub struct FairQueue<T> {
    limit: usize,
    len: usize,
    next: u64,
    /// Addresses with waiting flows, next turn first.
    turns: VecDeque<IpAddr>,
    waiting: HashMap<IpAddr, VecDeque<(u64, T)>>,
    /// The same addresses by number of flows, to find the one with the most.
    sizes: BTreeSet<(usize, IpAddr)>,
}

/// Result of adding a flow to the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// The flow waits; this number removes it again.
    Waits(u64),
    /// The queue was full. The flow waits (its number). The newest flow of the fullest address, returned here, lost
    /// its place: that address had at least two flows more.
    Instead(u64, T),
    /// The flow is refused: the queue is full, and no other address has at least two flows more than this one.
    Refused,
}

impl<T> FairQueue<T> {
    /// Creates an empty queue.
    pub fn new(limit: usize) -> Self {
        FairQueue {
            limit,
            len: 0,
            next: 0,
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            sizes: BTreeSet::new(),
        }
    }

    /// Number of waiting flows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no flow waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a flow of `client` behind the other flows of its address, unless it is refused.
    pub fn push(&mut self, client: IpAddr, flow: T) -> Pushed<T> {
        let client = counted_as(client);
        let mut out = None;
        if self.len >= self.limit {
            let own = self.waiting.get(&client).map_or(0, VecDeque::len);
            match self.sizes.last() {
                Some((most, greedy)) if *most > own + 1 => out = self.take_newest(*greedy),
                _ => return Pushed::Refused,
            }
        }
        self.next += 1;
        let id = self.next;
        let flows = self.waiting.entry(client).or_default();
        if flows.is_empty() {
            self.turns.push_back(client);
        } else {
            self.sizes.remove(&(flows.len(), client));
        }
        flows.push_back((id, flow));
        self.sizes.insert((flows.len(), client));
        self.len += 1;
        match out {
            Some(out) => Pushed::Instead(id, out),
            None => Pushed::Waits(id),
        }
    }

    /// Removes and returns the next flow: the oldest one of the address that waited longest for its turn.
    pub fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let flow = self.take(client, VecDeque::pop_front)?;
        if self.waiting.contains_key(&client) {
            self.turns.push_back(client);
        }
        Some(flow)
    }

    /// Removes a flow that gives up waiting; `None`: the flow has already left the queue (popped, displaced, removed).
    pub fn remove(&mut self, client: IpAddr, id: u64) -> Option<T> {
        let client = counted_as(client);
        let flow = self.take(client, |flows| {
            let at = flows.iter().position(|(i, _)| *i == id)?;
            flows.remove(at)
        });
        self.gone(client);
        flow
    }

    fn take_newest(&mut self, client: IpAddr) -> Option<T> {
        let flow = self.take(client, VecDeque::pop_back);
        self.gone(client);
        flow
    }

    /// Takes away the turn of an address that has no flows left.
    fn gone(&mut self, client: IpAddr) {
        if !self.waiting.contains_key(&client) {
            self.turns.retain(|c| *c != client);
        }
    }

    fn take(
        &mut self,
        client: IpAddr,
        which: impl FnOnce(&mut VecDeque<(u64, T)>) -> Option<(u64, T)>,
    ) -> Option<T> {
        let flows = self.waiting.get_mut(&client)?;
        let before = flows.len();
        let (_, flow) = which(flows)?;
        self.len -= 1;
        self.sizes.remove(&(before, client));
        if before == 1 {
            self.waiting.remove(&client);
        } else {
            self.sizes.insert((before - 1, client));
        }
        Some(flow)
    }
}

/// Returns the address under which a client is counted: an IPv6 client by its /64, because it owns at least that; an
/// IPv4-mapped address as IPv4. The queue calls this itself.
pub fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn drain(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    /// Fails if flows leave in the order they came: an address with many flows would be served first.
    #[test]
    fn addresses_take_turns() {
        let mut queue = FairQueue::new(10);
        for (client, flow) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            assert!(matches!(queue.push(ip(client), flow), Pushed::Waits(_)));
        }
        assert_eq!(drain(&mut queue), [10, 20, 30, 11, 21, 12]);
        assert!(queue.is_empty() && queue.turns.is_empty() && queue.sizes.is_empty());
    }

    /// At the limit, an address with few flows takes the place of the newest flow of the
    /// address with the most.
    #[test]
    fn a_full_queue_refuses_the_greedy() {
        let mut queue = FairQueue::new(3);
        for flow in 10..13 {
            queue.push(ip(1), flow);
        }
        assert_eq!(queue.push(ip(1), 13), Pushed::Refused);
        assert_eq!(queue.push(ip(2), 20), Pushed::Instead(4, 12));
        assert_eq!(queue.push(ip(2), 21), Pushed::Refused, "two and one");
        assert_eq!(queue.push(ip(3), 30), Pushed::Instead(5, 11));
        assert_eq!(queue.push(ip(4), 40), Pushed::Refused, "one each");
        assert_eq!(queue.len(), 3);
        assert_eq!(drain(&mut queue), [10, 20, 30]);
    }

    #[test]
    fn a_removed_flow_leaves_no_trace() {
        let mut queue = FairQueue::new(9);
        let Pushed::Waits(id) = queue.push(ip(1), 10) else {
            panic!("room")
        };
        queue.push(ip(2), 20);
        assert_eq!(queue.remove(ip(1), id), Some(10));
        assert_eq!(queue.remove(ip(1), id), None);
        assert_eq!(queue.turns, [ip(2)]);
        assert_eq!(drain(&mut queue), [20]);
    }

    #[test]
    fn a_limit_of_zero_lets_no_flow_wait() {
        assert_eq!(FairQueue::new(0).push(ip(1), 1), Pushed::Refused);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let mut queue = FairQueue::new(9);
        let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        queue.push(v6(1), 1);
        queue.push(v6(2), 2);
        queue.push(ip(1), 3);
        assert_eq!(drain(&mut queue), [1, 3, 2]);
    }
}
