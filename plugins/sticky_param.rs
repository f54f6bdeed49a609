//! Sticks a client to a node by a value its requests carry: a parameter, a header, a part of the path.
//!
//! In: the value the client chose (a user, a device, a room). Out: the node of the first flow with it,
//! until the assignment is too old or nobody has used it for `expiry`; or, by `mode: hash`, the node
//! the value computes to. An id that the *node* chose is for `sticky_session`.
//! Source: Lightstreamer clustering §2 (stickiness of the balancer), §4.

mod config;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{
    Assignment, Flow, Forget, How, Mark, NodeId, Plugin, PoolId, Recalled, unix_seconds,
};
use crate::sticky_ip::rendezvous::Rendezvous;
use crate::sticky_ip::table::{Key, Limits, Table, Verdict};
use crate::sticky_session::rule::Rule;
pub use config::Config;

const NAME: &str = "sticky_param";

struct StickyParam {
    rule: Rule,
    memory: Memory,
}

enum Memory {
    Table { table: Arc<Table>, limits: Limits },
    Hash(Rendezvous),
}

impl StickyParam {
    /// The value's hash in the form in which tables file clients: 128 bits, as an address has.
    fn value(&self, flow: &Flow<'_>) -> Option<IpAddr> {
        let hash = self.rule.recall(flow)?;
        Some(IpAddr::V6(Ipv6Addr::from(hash)))
    }
}

impl Plugin for StickyParam {
    fn name(&self) -> &'static str {
        NAME
    }

    fn wants_body(&self, flow: &Flow<'_>) -> bool {
        self.rule.wants_body(flow)
    }

    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        let value = self.value(flow)?;
        match &self.memory {
            Memory::Table { table, limits } => {
                let known = table.recall(&Key::new(value, pool), limits, flow.now);
                known.map(|known| Recalled {
                    node: known.node,
                    age: known.age,
                    remembered: true,
                    mark: Some(known.mark(limits)),
                })
            }
            Memory::Hash(nodes) => nodes.best(value, pool, &|_| true).map(|node| Recalled {
                node,
                age: Duration::ZERO,
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
        let value = self.value(flow)?;
        match &self.memory {
            Memory::Table { table, limits } => {
                let verdict = Verdict {
                    node: to.node,
                    how: to.how,
                    own: matches!(to.how, How::Recalled { by: NAME, .. }),
                };
                let at = (flow.now, unix_seconds(flow.wall));
                table.learn(Key::new(value, pool), &verdict, limits, at, usable)
            }
            Memory::Hash(nodes) if matches!(to.how, How::Balanced | How::Rebalanced) => {
                nodes.best(value, pool, usable).filter(|n| *n != to.node)
            }
            Memory::Hash(_) => None,
        }
    }

    /// A flow without a value is filed under its address, where no entry of the table is.
    fn client(&self, flow: &Flow<'_>) -> IpAddr {
        self.value(flow).unwrap_or(flow.client.ip())
    }

    fn ended(&self, client: IpAddr, pool: PoolId, now: Instant) {
        if let Memory::Table { table, limits } = &self.memory {
            table.ended(&Key::new(client, pool), limits, now);
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
        let key = Key::new(self.value(flow)?, pool);
        let known = table.recall(&key, limits, flow.now)?;
        Some(known.mark(limits))
    }

    fn computes(&self) -> bool {
        matches!(self.memory, Memory::Hash(_))
    }

    fn forget_client(&self, client: IpAddr, pool: PoolId, node: NodeId) {
        if let Memory::Table { table, .. } = &self.memory {
            table.forget_client(&Key::new(client, pool), node);
        }
    }
}

#[cfg(test)]
mod tests;
