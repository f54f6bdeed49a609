//! Chooses the node of a flow within its pool: the node to which its client is stuck, or another one, which the
//! plugins learn.
//!
//! In: a flow, its pool, the nodes tried for it. Out: an assignment. Source: Lightstreamer clustering §2.1, §2.2.

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::{Flow, Forgotten, How, Mark, NodeId, PoolId, unix_seconds};

use super::hash::hash;
use super::{Assigned, Decision, Table};
use crate::balance::{Picked, Pool, Seed};
use crate::upstream::{Node, State};

/// What plugins know of a flow's client.
pub(super) enum Recalled {
    /// Its node, which can be used.
    Node(Assigned),
    /// Its node takes no more flows, or no more of this client.
    Refused(Decision),
    /// Nothing, or a node that cannot be used.
    Nothing,
    /// The flow begins a session, so it does not matter.
    Begins,
}

impl Table {
    /// Stuck clients do not wait: no other node has their session.
    pub(super) fn balance(
        &self,
        flow: &Flow<'_>,
        pool: &Arc<Pool>,
        tried: &[NodeId],
        in_turn: bool,
        recalled: Recalled,
    ) -> Decision {
        let assigned = match recalled {
            Recalled::Node(recalled) => recalled,
            Recalled::Refused(decision) => return decision,
            _ if !in_turn && !pool.waiting.is_empty() => return Decision::Wait(pool.clone()),
            new => match self.pick(flow, pool, tried, matches!(new, Recalled::Begins)) {
                Ok(assigned) => assigned,
                Err(decision) => return decision,
            },
        };
        Decision::Node(self.learn(flow, pool, tried, assigned))
    }

    /// Picks a node for a flow that is not stuck. Errors: the decision when no node can take it.
    pub(super) fn pick(
        &self,
        flow: &Flow<'_>,
        pool: &Arc<Pool>,
        tried: &[NodeId],
        begins: bool,
    ) -> Result<Assigned, Decision> {
        let assigned = |node: &Arc<Node>, how| Assigned {
            node: node.clone(),
            pool: Some(pool.clone()),
            how,
            mark: None,
        };
        if let Some(node) = self.same(flow, pool, tried) {
            let (by, age) = ("connection", Duration::ZERO);
            return Ok(assigned(node, How::Recalled { by, age }));
        }
        let seed = Seed {
            client: hash(self.client(flow)),
            random: flow.random,
        };
        match pool.pick(seed, tried, flow.now) {
            Picked::Node(node) if begins => Ok(assigned(node, How::Rebalanced)),
            Picked::Node(node) => Ok(assigned(node, How::Balanced)),
            Picked::Full => Err(Decision::Wait(pool.clone())),
            Picked::Nobody => Err(Decision::NoNode(Some(pool.clone()))),
        }
    }

    /// Returns the node of the connection's previous request, if that node takes new flows and no plugin
    /// sticks clients. So a client that is not stuck still finds what the node knows of it.
    fn same<'p>(
        &self,
        flow: &Flow<'_>,
        pool: &'p Arc<Pool>,
        tried: &[NodeId],
    ) -> Option<&'p Arc<Node>> {
        let node = usable(pool, flow.last?, false, tried)?;
        let sticks = !self.plugins.sticky.is_empty();
        let serves = !node.is_backup() || pool.lends_backups();
        (!sticks && serves && node.admit(flow.now)).then_some(node)
    }

    /// Asks the plugins for the client's node; the first that can be used counts.
    pub(super) fn recall(&self, flow: &Flow<'_>, pool: &Arc<Pool>, tried: &[NodeId]) -> Recalled {
        if begins_session(pool, flow) {
            return Recalled::Begins;
        }
        let recalled = self.plugins.sticky.iter().find_map(|p| {
            let recalled = p.recall(flow, pool.id)?;
            let node = usable(pool, recalled.node, recalled.remembered, tried)?;
            if node.limits.is_full(node.live()) {
                return Some(Recalled::Refused(Decision::Full(
                    node.clone(),
                    Some(pool.clone()),
                )));
            }
            let (most, mark) = (recalled.max_flows, recalled.mark);
            if let (Some(most), Some(mark)) = (most, mark)
                && node.flows.of_mark(mark.id) >= most.get()
            {
                return Some(Recalled::Refused(Decision::TooMany(node.clone())));
            }
            let how = How::Recalled {
                by: p.name,
                age: recalled.age,
            };
            Some(Recalled::Node(Assigned {
                node: node.clone(),
                pool: Some(pool.clone()),
                how,
                mark: recalled.mark,
            }))
        });
        recalled.unwrap_or(Recalled::Nothing)
    }

    /// Lets every plugin learn the assignment. If a racing flow of the same client was given another node, a
    /// plugin may return that node, and this flow goes there.
    fn learn(
        &self,
        flow: &Flow<'_>,
        pool: &Arc<Pool>,
        tried: &[NodeId],
        mut assigned: Assigned,
    ) -> Assigned {
        let remembered = !matches!(assigned.how, How::Balanced | How::Rebalanced);
        for p in &self.plugins.sticky {
            let may = |id: NodeId| usable(pool, id, remembered, tried).is_some();
            let other = p.learn(flow, pool.id, &assigned.facts(), &may);
            if let Some(node) = other.and_then(|id| pool.node(id)) {
                assigned.node = node.clone();
                assigned.how = How::Recalled {
                    by: p.name,
                    age: Duration::ZERO,
                };
                assigned.mark = None;
            }
        }
        assigned.mark = self.mark(flow, pool.id, &assigned);
        assigned
    }

    /// Returns what identifies the assignment to a rebalance. A token takes precedence: a table's entry can
    /// be forgotten by name, but what the client carries cannot.
    fn mark(&self, flow: &Flow<'_>, pool: PoolId, assigned: &Assigned) -> Option<Mark> {
        if self.plugins.sticky.iter().any(|p| p.computes()) {
            return None;
        }
        let is_rule = |m: &Mark| m.by == Forgotten::Rule;
        if assigned.mark.as_ref().is_some_and(is_rule) {
            return assigned.mark;
        }
        let facts = assigned.facts();
        let marks = || {
            self.plugins
                .sticky
                .iter()
                .filter_map(|p| p.mark(flow, pool, &facts))
        };
        let known = marks().find(is_rule).or(assigned.mark);
        let known = known.or_else(|| marks().next());
        Some(known.unwrap_or_else(|| Mark::of_flow(flow.random, unix_seconds(flow.wall))))
    }
}

/// Whether the request begins a session, which may go to any node (Lightstreamer clustering §1: the S
/// connections "can always be freely balanced").
fn begins_session(pool: &Pool, flow: &Flow<'_>) -> bool {
    let path = flow.request.map(|r| r.path());
    path.is_some_and(|path| pool.rebalance_on.iter().any(|p| p == path))
}

/// Returns the pool's node if it may take a stuck flow: Up, or Draining if the client was there before.
fn usable<'a>(
    pool: &'a Pool,
    id: NodeId,
    remembered: bool,
    tried: &[NodeId],
) -> Option<&'a Arc<Node>> {
    let node = pool.node(id).filter(|n| !tried.contains(&n.id))?;
    match node.state() {
        State::Up => Some(node),
        State::Draining if remembered => Some(node),
        State::Draining | State::Down => None,
    }
}
