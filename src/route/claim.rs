//! What the edges of a site must agree on before a flow gets its node.

use std::sync::Arc;

use pushgate_plugins::api::{Claim, Flow, NodeId, Route, Target};

use super::{Table, begins_session};
use crate::upstream::Node;

/// Claims of a flow, in the order of the plugins.
pub type Claims = Vec<Arc<dyn Claim>>;

impl Table {
    /// Returns what the edges of a site must agree on before [`Table::decide`], and the node that this edge would choose.
    /// `None`: nothing, because the client is stuck already, or no plugin shares what it knows.
    pub fn claims(&self, flow: &Flow<'_>, tried: &[NodeId]) -> Option<(Claims, Option<Arc<Node>>)> {
        // Before anything is recalled: to verify a cookie twice would cost each request more than the rest here.
        if !self.plugins.sticky.iter().any(|p| p.shares()) {
            return None;
        }
        let Route::To(Target::Pool(id)) = self.route(flow).1 else {
            return None;
        };
        let pool = self.pools.get(&id)?.current();
        if begins_session(&pool, flow) || self.recall(flow, &pool, tried).is_some() {
            return None;
        }
        let sticky = self.plugins.sticky.iter();
        let asked: Claims = sticky.filter_map(|p| p.claim(flow, pool.id)).collect();
        if asked.is_empty() {
            return None;
        }
        // A flow that must wait for a node asks what others know, and is told of when its turn has come.
        let may_choose = pool.waiting.is_empty() && asked.iter().any(|claim| !claim.is_proved());
        let choice = may_choose.then(|| self.pick(flow, &pool, tried, false).ok());
        Some((asked, choice.flatten().map(|assigned| assigned.node)))
    }
}
