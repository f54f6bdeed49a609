//! What the edges of a site must agree on before a flow gets its node.

use std::sync::Arc;

use pushgate_plugins::api::{Claim, Flow, NodeId};

use super::stick::Recalled;
use super::{Decision, Table};
use crate::upstream::Node;

/// Claims of a flow, in the order of the plugins.
pub type Claims = Vec<Arc<dyn Claim>>;

/// What becomes of a flow at an edge of a site.
pub enum FirstDecision {
    /// There is nothing to agree on: the client is stuck already, or no plugin shares what it knows.
    Decided(Decision),
    /// These must be agreed on before [`Table::decide`]; the node is this edge's own choice.
    Ask(Claims, Option<Arc<Node>>),
}

impl Table {
    /// Decides as [`Table::decide`], or returns what the edges of a site must agree on before.
    pub fn decide_or_ask(&self, flow: &Flow<'_>, tried: &[NodeId]) -> FirstDecision {
        let pool = match self.pool_of(flow, tried) {
            Ok(pool) => pool,
            Err(decision) => return FirstDecision::Decided(decision),
        };
        let recalled = self.recall(flow, &pool, tried);
        if matches!(recalled, Recalled::Nothing) {
            let sticky = self.plugins.sticky.iter();
            let asked: Claims = sticky.filter_map(|p| p.claim(flow, pool.id)).collect();
            if !asked.is_empty() {
                // A flow that must wait for a node asks what others know, and is told of when its turn has come.
                let may_choose = pool.waiting.is_empty() && asked.iter().any(|c| !c.is_proved());
                let choice = may_choose.then(|| self.pick(flow, &pool, tried, false).ok());
                return FirstDecision::Ask(asked, choice.flatten().map(|to| to.node));
            }
        }
        FirstDecision::Decided(self.balance(flow, &pool, tried, false, recalled))
    }
}
