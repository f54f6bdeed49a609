//! Decides where a flow goes: asks the plugins in order, then the balancer.
//!
//! In: a [`Flow`] and the nodes tried for it. Out: a [`Decision`]. Pure, except for what plugins remember. Source:
//! Lightstreamer clustering §2.1, §2.2, §3.2.

mod claim;
mod hash;
mod stick;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use pushgate_plugins::api::{
    Assignment, Flow, How, Mark, NodeId, Placed, Plugins, PoolId, Route, Router, Target, Watch,
};

pub use claim::{Claims, FirstDecision};

use crate::balance::Pool;
use crate::upstream::live_flows::Stickiness;
use crate::upstream::{Node, State};

/// Everything one listener decides with; a reload swaps it whole.
pub struct Table {
    /// Plugins, in the order they are asked.
    pub plugins: Plugins,
    /// Whether clients' `X-Forwarded-*`, `Forwarded` and `X-Real-IP` are kept from nodes: no plugin sets them,
    /// so whatever a client writes would be taken for the edge's word.
    pub hides_forwarding: bool,
    /// Target of flows that no plugin routes (the listener's `to:`).
    pub default: Option<Target>,
    /// All pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// All nodes.
    pub nodes: Arc<HashMap<NodeId, Arc<Node>>>,
}

/// What becomes of a flow.
pub enum Decision {
    /// The flow goes to a node.
    Node(Assigned),
    /// No node can take the flow. The pool says how to answer; `None`: the flow was pinned.
    NoNode(Option<Arc<Pool>>),
    /// Every node of the pool is at its limit: the flow waits for its turn ([`Pool::in_turn`]).
    Wait(Arc<Pool>),
    /// The flow's node has `max_flows_hard` flows, and no other node has the client's session. The pool says how
    /// to answer; `None`: the flow was pinned.
    Full(Arc<Node>, Option<Arc<Pool>>),
    /// The client's assignment has as many live flows at this node as it may.
    TooMany(Arc<Node>),
    /// The flow is answered with a status, or closed at layer 4.
    Refuse(StatusCode),
    /// The flow is answered with a redirect.
    Redirect(StatusCode, String),
}

/// A flow's node, and how it was chosen.
#[derive(Clone)]
pub struct Assigned {
    /// The node.
    pub node: Arc<Node>,
    /// The pool; `None` if pinned.
    pub pool: Option<Arc<Pool>>,
    /// How the node was chosen.
    pub how: How,
    /// Identifies the assignment to a rebalance; `None`: a rebalance cannot move it.
    pub mark: Option<Mark>,
}

impl Assigned {
    /// Returns what a rebalance needs to move the flow; `None` if it cannot.
    pub fn stickiness(&self) -> Option<Stickiness> {
        let pool = self.pool.as_ref()?.id;
        self.mark.map(|mark| Stickiness { pool, mark })
    }

    /// Returns the plugins' view of it.
    pub fn facts(&self) -> Assignment<'_> {
        Assignment {
            pool: self.pool.as_ref().map(|p| p.id),
            node: self.node.id,
            node_name: &self.node.name,
            how: self.how,
        }
    }

    /// Returns the word used in logs and metrics.
    pub fn how_str(&self) -> &'static str {
        match self.how {
            How::Pinned => "pinned",
            How::Recalled { by, .. } => by,
            How::Balanced => "balanced",
            How::Rebalanced => "rebalanced",
        }
    }
}

impl Table {
    /// Decides where `flow` goes, leaving out the nodes in `tried`, and lets the plugins
    /// learn the assignment.
    pub fn decide(&self, flow: &Flow<'_>, tried: &[NodeId]) -> Decision {
        self.decide_in(flow, tried, false)
    }

    /// Like [`Table::decide`], but for a flow whose turn it is: it does not wait behind others.
    pub fn decide_in_turn(&self, flow: &Flow<'_>, tried: &[NodeId]) -> Decision {
        self.decide_in(flow, tried, true)
    }

    fn decide_in(&self, flow: &Flow<'_>, tried: &[NodeId], in_turn: bool) -> Decision {
        match self.pool_of(flow, tried) {
            Ok(pool) => {
                let recalled = self.recall(flow, &pool, tried);
                self.balance(flow, &pool, tried, in_turn, recalled)
            }
            Err(decision) => decision,
        }
    }

    /// Returns the pool of the flow. Errors: the decision, if no pool takes part in it.
    fn pool_of(&self, flow: &Flow<'_>, tried: &[NodeId]) -> Result<Arc<Pool>, Decision> {
        match self.route(flow).1 {
            Route::Refuse(status) => Err(Decision::Refuse(status)),
            Route::Redirect(status, to) => Err(Decision::Redirect(status, to)),
            Route::To(Target::Node(id)) => Err(self.pin(id, tried)),
            // A flow that waited or failed may still hold the table from before a reload.
            Route::To(Target::Pool(id)) => match self.pools.get(&id) {
                Some(pool) => Ok(pool.current()),
                None => Err(Decision::NoNode(None)),
            },
        }
    }

    /// Returns where `flow` goes, and the index of the plugin that said so. `None`: no plugin did, so the
    /// listener's `to:` decides, or 404 without one.
    pub fn route(&self, flow: &Flow<'_>) -> (Option<&Placed<dyn Router>>, Route) {
        let mut routers = self.plugins.routers.iter();
        let said = routers.find_map(|p| Some((Some(p), p.route(flow)?)));
        said.unwrap_or_else(|| {
            let otherwise = self.default.map(Route::To);
            (
                None,
                otherwise.unwrap_or(Route::Refuse(StatusCode::NOT_FOUND)),
            )
        })
    }

    /// Returns the client address by which flows are counted and balanced. Behind another proxy all clients
    /// share the proxy's address, unless a plugin trusts what the proxy says.
    pub fn client(&self, flow: &Flow<'_>) -> IpAddr {
        let told = self.plugins.trusts.iter().find_map(|t| t.told(flow));
        told.unwrap_or(flow.client.ip())
    }

    /// Whether a plugin would decide better with the beginning of the request's body.
    pub fn wants_body(&self, flow: &Flow<'_>) -> bool {
        self.plugins.sticky.iter().any(|p| p.wants_body(flow))
    }

    /// Returns the plugins' watchers of the answer of `assigned`'s node.
    pub fn watch(&self, flow: &Flow<'_>, assigned: &Assigned) -> Vec<Box<dyn Watch>> {
        let Some(pool) = &assigned.pool else {
            return Vec::new();
        };
        let to = assigned.facts();
        let watches = self
            .plugins
            .sticky
            .iter()
            .map(|p| p.watch(flow, pool.id, &to));
        watches.flatten().collect()
    }

    /// Whether a plugin routes by exactly this host name.
    pub fn routes_host(&self, host: &str) -> bool {
        self.plugins.routers.iter().any(|p| p.routes_host(host))
    }

    fn pin(&self, id: NodeId, tried: &[NodeId]) -> Decision {
        match self.nodes.get(&id) {
            Some(node) if node.limits.is_full(node.live()) => Decision::Full(node.clone(), None),
            Some(node) if node.state() != State::Down && !tried.contains(&id) => {
                Decision::Node(Assigned {
                    node: node.clone(),
                    pool: None,
                    how: How::Pinned,
                    mark: None,
                })
            }
            _ => Decision::NoNode(None),
        }
    }

    /// Forgets a client's assignment to `node` when its flow is closed to move it. A rule
    /// forgets what the client itself carries (a token).
    pub fn forget(&self, client: IpAddr, filed: &[(usize, IpAddr)], pool: PoolId, node: NodeId) {
        for (i, p) in self.plugins.sticky.iter().enumerate() {
            p.forget_client(filed_under(client, filed, i), pool, node);
        }
    }

    /// Returns the addresses under which plugins file the flow, if not the client's own, by plugin index.
    pub fn filed(&self, flow: &Flow<'_>) -> Vec<(usize, IpAddr)> {
        let own = flow.client.ip();
        let filed = self
            .plugins
            .sticky
            .iter()
            .map(|p| p.client(flow))
            .enumerate();
        filed.filter(|(_, ip)| *ip != own).collect()
    }

    /// Tells the plugins that a flow they learned has ended; `filed` comes from [`Table::filed`].
    pub fn ended(&self, client: IpAddr, filed: &[(usize, IpAddr)], pool: PoolId) {
        self.ended_at(client, filed, pool, Instant::now());
    }

    /// Like [`Table::ended`], at a time given.
    pub fn ended_at(&self, client: IpAddr, filed: &[(usize, IpAddr)], pool: PoolId, now: Instant) {
        for (i, p) in self.plugins.sticky.iter().enumerate() {
            p.ended(filed_under(client, filed, i), pool, now);
        }
    }
}

/// Returns the address under which the plugin of that index filed a flow.
fn filed_under(client: IpAddr, filed: &[(usize, IpAddr)], plugin: usize) -> IpAddr {
    let own = filed.iter().find(|(i, _)| *i == plugin);
    own.map_or(client, |(_, ip)| *ip)
}
