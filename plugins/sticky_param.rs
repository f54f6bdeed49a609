//! Sticks a client to a node by a value in its requests: a parameter, a header, a part of the path.
//!
//! In: the value that the client chose (a user, a device, a room). Out: the node of the first flow with that
//! value, until the assignment is too old, the value has had no live flow for `expiry`, or the full table needs its
//! place. With `mode: hash`: the node that the value computes to. For an id that the *node* chose, use
//! `sticky_session`.
//! Source: Lightstreamer clustering §2 (stickiness of the balancer), §4.

mod config;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use crate::api::{Assignment, Claim, Flow, Forget, Mark, NodeId, Peers, PoolId, Recalled, Sticky};
use crate::memory::Memory;
use crate::memory::source::Source;
use crate::sticky_session::rule::Rule;
pub use config::Config;

const NAME: &str = "sticky_param";

struct StickyParam {
    rule: Rule,
    memory: Memory,
}

impl StickyParam {
    /// Returns the value's hash in the form under which tables file clients: 128 bits, like an address.
    fn value(&self, flow: &Flow<'_>) -> Option<IpAddr> {
        let hash = self.rule.recall(flow)?;
        Some(IpAddr::V6(Ipv6Addr::from(hash)))
    }
}

impl Sticky for StickyParam {
    fn wants_body(&self, flow: &Flow<'_>) -> bool {
        self.rule.wants_body(flow)
    }

    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        self.memory.recall(self.value(flow)?, pool, flow.now)
    }

    fn learn(
        &self,
        flow: &Flow<'_>,
        pool: PoolId,
        to: &Assignment<'_>,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let value = self.value(flow)?;
        let source = Source::of(flow.source);
        self.memory.learn((value, source), flow, pool, to, usable)
    }

    /// Files a flow without a value under its address, which no entry of the table has.
    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        self.value(flow).unwrap_or(flow.client.ip())
    }

    fn ended(&self, client: IpAddr, pool: PoolId, now: Instant) {
        self.memory.ended(client, pool, now);
    }

    fn forget(&self, what: &Forget) {
        self.memory.forget(what);
    }

    fn mark(&self, flow: &Flow<'_>, pool: PoolId, _: &Assignment<'_>) -> Option<Mark> {
        self.memory.mark(self.value(flow)?, pool, flow.now)
    }

    fn claim(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Arc<dyn Claim>> {
        let source = Source::of(flow.source);
        self.memory.claim(self.value(flow)?, source, pool)
    }

    fn join(&self, peers: &Arc<dyn Peers>) {
        self.memory.join(peers);
    }

    fn computes(&self) -> bool {
        self.memory.computes()
    }

    fn forget_client(&self, client: IpAddr, pool: PoolId, node: NodeId) {
        self.memory.forget_client(client, pool, node);
    }
}

#[cfg(test)]
mod tests;
