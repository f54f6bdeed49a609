//! Sticks a push session to its node by the session's own id, whoever its client is.
//!
//! In: what nodes answer (a line of the body, a cookie, a header), from which an id is learned; the
//! query, form, cookie, header or path of later requests, by which it is recalled. So clients that
//! keep no cookie and share one address are spread and stuck all the same.
//! Source: Lightstreamer clustering §2, §4; Diffusion, "Routing strategies at your load balancer"
//! (the `session` cookie); FAULTS D47.

mod config;
pub(crate) mod rule;
mod watch;

use std::sync::Arc;

use crate::api::{Assignment, Flow, Forget, Plugin, PoolId, Recalled, Watch, unix_seconds};
use crate::sticky_ip::table::{Key, Limits, Table};
pub use config::{Config, Preset};
use rule::Rule;
pub use rule::{Learn, Recall};
use watch::Watching;

const NAME: &str = "sticky_session";

/// What one block is made of; shared with the flows it watches.
struct Memory {
    rule: Rule,
    table: Arc<Table>,
    limits: Limits,
}

struct StickySession(Arc<Memory>);

impl StickySession {
    fn key(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Key> {
        Some(Key::of_hash(self.0.rule.recall(flow)?, pool))
    }
}

impl Plugin for StickySession {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sticks(&self) -> bool {
        true
    }

    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        let key = self.key(flow, pool)?;
        let known = self.0.table.recall(&key, &self.0.limits, flow.now)?;
        Some(Recalled {
            node: known.node,
            age: known.age,
            remembered: true,
            mark: Some(known.mark(&self.0.limits)),
        })
    }

    fn wants_body(&self, flow: &Flow<'_>) -> bool {
        self.0.rule.wants_body(flow)
    }

    /// The request's id is not learned here: who asks the wrong node must not be stuck to it. The
    /// node's answer tells.
    fn watch(&self, flow: &Flow<'_>, pool: PoolId, to: &Assignment<'_>) -> Option<Box<dyn Watch>> {
        let began = (flow.now, unix_seconds(flow.wall));
        let mut watching = Watching::new(self.0.clone(), (pool, to.node), began);
        if let Some(key) = self.key(flow, pool) {
            watching.asked(key);
        }
        Some(Box::new(watching))
    }

    fn forget(&self, what: &Forget) {
        self.0.table.forget(what, &self.0.limits);
    }
}

#[cfg(test)]
mod tests;
