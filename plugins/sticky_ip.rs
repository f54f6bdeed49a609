//! Sticks a client to a node by the client's source address.
//!
//! In: the client's address. Out: the node of the client's first flow, until the assignment is too old, the client
//! has had no live flow for `expiry`, an order or a rebalance forgets it, or a full table needs its place (never
//! that of a client with a live flow). If that node is Down or cannot be connected to, the client is balanced anew
//! and sticks to the new node. A node that drains keeps its clients.
//! With `mode: hash`: the node that rendezvous hashing computes from the address; while that node is Down or drains,
//! the client's second choice. Both modes work at layer 4 too.
//! Source: Lightstreamer clustering §2.1.1 (Option 1.A.1), §3.1.1 (2.A.1), §4; Diffusion load balancers,
//! "sticky-by-IP".

mod config;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::api::{Assignment, Claim, Flow, Forget, Mark, NodeId, Peers, PoolId, Recalled, Sticky};
use crate::memory::Memory;
use crate::memory::source::{OWNED_PREFIX, Source};
use crate::trust::Trust;
pub use config::{Config, From};

const NAME: &str = "sticky_ip";

struct StickyIp {
    /// Senders whose `X-Forwarded-For` is trusted; `None` (`from: client`): the flow's own client address counts.
    trust: Option<Trust>,
    ipv6_prefix: u8,
    memory: Memory,
}

impl StickyIp {
    fn address(&self, flow: &Flow<'_>) -> IpAddr {
        self.network(match &self.trust {
            Some(trust) => trust.client(flow),
            None => flow.client.ip(),
        })
    }

    /// Returns who takes the client's room in the table: the client itself, unless a network of the size that
    /// one client owns may hold several entries.
    fn source(&self, client: IpAddr) -> Source {
        match client.is_ipv6() && self.ipv6_prefix > OWNED_PREFIX {
            true => Source::of(client),
            false => Source::OWN,
        }
    }

    /// Returns the network that counts as one client: an IPv4 address itself, or the first `ipv6_prefix` bits of an
    /// IPv6 address. Applying this to its own result changes nothing.
    fn network(&self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let host_bits = u32::from(128 - self.ipv6_prefix);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
            v4 => v4,
        }
    }
}

impl Sticky for StickyIp {
    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        self.memory.recall(self.address(flow), pool, flow.now)
    }

    fn learn(
        &self,
        flow: &Flow<'_>,
        pool: PoolId,
        to: &Assignment<'_>,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let client = self.address(flow);
        let source = self.source(client);
        self.memory.learn((client, source), flow, pool, to, usable)
    }

    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        self.address(flow)
    }

    fn ended(&self, client: IpAddr, pool: PoolId, now: Instant) {
        self.memory.ended(self.network(client), pool, now);
    }

    fn forget(&self, what: &Forget) {
        self.memory.forget(what);
    }

    fn mark(&self, flow: &Flow<'_>, pool: PoolId, _: &Assignment<'_>) -> Option<Mark> {
        self.memory.mark(self.address(flow), pool, flow.now)
    }

    fn claim(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Arc<dyn Claim>> {
        let client = self.address(flow);
        self.memory.claim(client, self.source(client), pool)
    }

    fn join(&self, peers: &Arc<dyn Peers>) {
        self.memory.join(peers);
    }

    fn computes(&self) -> bool {
        self.memory.computes()
    }

    fn forget_client(&self, client: IpAddr, pool: PoolId, node: NodeId) {
        let client = self.network(client);
        self.memory.forget_client(client, pool, node);
    }
}

#[cfg(test)]
mod tests;
