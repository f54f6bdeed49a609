//! Sticks a push session to its node by the session's own id, whichever client sends it.
//!
//! In: answers of nodes (a line or JSON of the body, a cookie, a header), from which the plugin learns an id; the
//! query, form, cookie, header or path of later requests, by which it recalls the id. So it spreads and
//! sticks even clients that keep no cookie and share one address.
//! Source: Lightstreamer clustering §2, §4; Diffusion, "Routing strategies at your load balancer" (the
//! `session` cookie); Engine.IO protocol, `sid`; SignalR, `connectionToken`; FAULTS D47.

mod config;
mod json;
mod memory;
pub(crate) mod rule;
mod watch;

use std::sync::Arc;

use crate::api::{
    Assignment, Claim, Flow, Forget, Peers, PoolId, Recalled, Sticky, Watch, unix_seconds,
};
use crate::memory::source::Source;
use crate::memory::table::Key;
pub use config::{Config, Preset};
use memory::Memory;
pub use rule::{Learn, Recall};
use watch::Watching;

struct StickySession(Arc<Memory>);

impl StickySession {
    fn key(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Key> {
        Some(Key::of_hash(self.0.rule.recall(flow)?, pool))
    }
}

impl Sticky for StickySession {
    fn recall(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Recalled> {
        let key = self.key(flow, pool)?;
        let known = self.0.table.recall(&key, &self.0.limits, flow.now)?;
        Some(Recalled {
            node: known.node,
            age: known.age,
            remembered: true,
            mark: Some(known.mark(&self.0.limits)),
            max_flows: None,
        })
    }

    fn wants_body(&self, flow: &Flow<'_>) -> bool {
        self.0.rule.wants_body(flow)
    }

    /// Does not learn the request's id: a client that asks the wrong node must not be stuck to it. Only the
    /// node's answer proves where the session is.
    fn watch(&self, flow: &Flow<'_>, pool: PoolId, to: &Assignment<'_>) -> Option<Box<dyn Watch>> {
        let began = (flow.now, unix_seconds(flow.wall));
        let source = Source::of(flow.source);
        let mut watching = Watching::new(self.0.clone(), (pool, to.node), began, source);
        if let Some(key) = self.key(flow, pool) {
            watching.asked(key);
        }
        Some(Box::new(watching))
    }

    fn claim(&self, flow: &Flow<'_>, pool: PoolId) -> Option<Arc<dyn Claim>> {
        let key = self.key(flow, pool)?;
        Some(self.0.shared.claim(key, Source::of(flow.source)))
    }

    fn join(&self, peers: &Arc<dyn Peers>) {
        self.0.shared.join(peers);
    }

    fn forget(&self, what: &Forget) {
        self.0.table.forget(what, &self.0.limits);
    }
}

#[cfg(test)]
mod tests;
