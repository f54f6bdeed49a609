//! Sticks a client to a node by its source address.
//!
//! In: the client's address. Out: the node of its first flow, until the assignment is too old or
//! the client has been gone for `expiry`; or, by `mode: hash`, the node its address computes to.
//! Works at layer 4. Source: Lightstreamer clustering §2.1.1 (Option 1.A.1), §3.1.1 (2.A.1), §4;
//! Diffusion load balancers, "sticky-by-IP".

mod config;
pub(crate) mod rendezvous;
pub(crate) mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::api::{
    Assignment, Flow, Forget, How, Mark, NodeId, Plugin, PoolId, Recalled, unix_seconds,
};
use crate::trust::Trust;
pub use config::{Config, From, Mode};
use rendezvous::Rendezvous;
use table::{Key, Limits, Table, Verdict};

const NAME: &str = "sticky_ip";

struct StickyIp {
    /// Whose `X-Forwarded-For` is followed; `None`: the flow's own client address counts.
    trust: Option<Trust>,
    ipv6_prefix: u8,
    memory: Memory,
}

enum Memory {
    Table { table: Arc<Table>, limits: Limits },
    Hash(Rendezvous),
}

impl StickyIp {
    fn address(&self, flow: &Flow<'_>) -> IpAddr {
        self.network(match &self.trust {
            Some(trust) => trust.client(flow),
            None => flow.client.ip(),
        })
    }

    /// What counts of an address; of its own answer, the same.
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

impl Plugin for StickyIp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        let client = self.address(flow);
        match &self.memory {
            Memory::Table { table, limits } => table
                .recall(&Key::new(client, pool), limits, flow.now)
                .map(|known| Recalled {
                    node: known.node,
                    age: known.age,
                    remembered: true,
                    mark: Some(known.mark(limits)),
                }),
            Memory::Hash(nodes) => nodes.best(client, pool, &|_| true).map(|node| Recalled {
                node,
                age: std::time::Duration::ZERO,
                remembered: false,
                mark: None,
            }),
        }
    }

    fn learn(
        &self,
        flow: &Flow<'_>,
        pool: PoolId,
        to: &Assignment<'_>,
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let client = self.address(flow);
        match &self.memory {
            Memory::Table { table, limits } => {
                let verdict = Verdict {
                    node: to.node,
                    how: to.how,
                    own: matches!(to.how, How::Recalled { by: NAME, .. }),
                };
                let wall = unix_seconds(flow.wall);
                table.learn(
                    Key::new(client, pool),
                    &verdict,
                    limits,
                    (flow.now, wall),
                    usable,
                )
            }
            // The first choice is Down: the second by hash keeps all flows of the client together,
            // where the balancer would scatter them.
            Memory::Hash(nodes) if matches!(to.how, How::Balanced | How::Rebalanced) => {
                nodes.best(client, pool, usable).filter(|n| *n != to.node)
            }
            Memory::Hash(_) => None,
        }
    }

    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        self.address(flow)
    }

    fn ended(&self, client: IpAddr, pool: PoolId, now: Instant) {
        if let Memory::Table { table, limits } = &self.memory {
            table.ended(&Key::new(self.network(client), pool), limits, now);
        }
    }

    fn forget(&self, what: &Forget) {
        if let Memory::Table { table, limits } = &self.memory {
            table.forget(what, limits);
        }
    }

    fn mark(&self, flow: &Flow<'_>, pool: PoolId, _: &Assignment<'_>) -> Option<Mark> {
        let Memory::Table { table, limits } = &self.memory else {
            return None;
        };
        let key = Key::new(self.address(flow), pool);
        let known = table.recall(&key, limits, flow.now)?;
        Some(known.mark(limits))
    }

    fn computes(&self) -> bool {
        matches!(self.memory, Memory::Hash(_))
    }

    fn forget_client(&self, client: IpAddr, pool: PoolId, node: NodeId) {
        if let Memory::Table { table, .. } = &self.memory {
            table.forget_client(&Key::new(self.network(client), pool), node);
        }
    }
}

#[cfg(test)]
mod tests;
