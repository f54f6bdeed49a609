//! Flow → node: asks the plugins in order, then the balancer.
//!
//! In: a [`Flow`] and the nodes already tried for it. Out: a [`Decision`]. Pure but for what the
//! plugins remember. Source: Lightstreamer clustering §2.1, §2.2, §3.2.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::StatusCode;
use pushgate_plugins::api::{Assignment, Flow, How, NodeId, Plugin, PoolId, Route, Target};

use crate::balance::{Pool, Seed};
use crate::upstream::{Node, State};

/// Everything one listener decides with; swapped whole on reload.
pub struct Table {
    /// The plugins in the order they are asked.
    pub plugins: Box<[Box<dyn Plugin>]>,
    /// Where flows go that no plugin routes.
    pub default: Option<Target>,
    /// All pools.
    pub pools: Arc<HashMap<PoolId, Arc<Pool>>>,
    /// All nodes.
    pub nodes: Arc<HashMap<NodeId, Arc<Node>>>,
}

/// What becomes of a flow.
pub enum Decision {
    /// It goes to a node.
    Node(Assigned),
    /// No node can take it; the pool, if it was not pinned, says how to answer.
    NoNode(Option<Arc<Pool>>),
    /// It is answered with a status, or closed at layer 4.
    Refuse(StatusCode),
    /// It is answered with a redirect.
    Redirect(StatusCode, String),
}

/// A flow's node and how it came to it.
#[derive(Clone)]
pub struct Assigned {
    /// The node.
    pub node: Arc<Node>,
    /// The pool; `None` if pinned.
    pub pool: Option<Arc<Pool>>,
    /// How it was chosen.
    pub how: How,
}

impl Assigned {
    /// The plugins' view of it.
    pub fn facts(&self) -> Assignment<'_> {
        Assignment {
            pool: self.pool.as_ref().map(|p| p.id),
            node: self.node.id,
            node_name: &self.node.name,
            how: self.how,
        }
    }

    /// The word in logs and metrics.
    pub fn word(&self) -> &'static str {
        match self.how {
            How::Pinned => "pinned",
            How::Recalled { by, .. } => by,
            How::Balanced => "balanced",
        }
    }
}

impl Table {
    /// Decides where `flow` goes, leaving out the nodes in `tried`, and lets the plugins learn it.
    pub fn decide(&self, flow: &Flow<'_>, tried: &[NodeId]) -> Decision {
        let target = match self.plugins.iter().find_map(|p| p.route(flow)) {
            Some(Route::Refuse(status)) => return Decision::Refuse(status),
            Some(Route::Redirect(status, to)) => return Decision::Redirect(status, to),
            Some(Route::To(target)) => Some(target),
            None => self.default,
        };
        match target {
            None => Decision::Refuse(StatusCode::NOT_FOUND),
            Some(Target::Node(id)) => self.pin(id, tried),
            Some(Target::Pool(id)) => match self.pools.get(&id) {
                Some(pool) => self.balance(flow, pool, tried),
                None => Decision::NoNode(None),
            },
        }
    }

    fn pin(&self, id: NodeId, tried: &[NodeId]) -> Decision {
        match self.nodes.get(&id) {
            Some(node) if node.state() != State::Down && !tried.contains(&id) => {
                Decision::Node(Assigned {
                    node: node.clone(),
                    pool: None,
                    how: How::Pinned,
                })
            }
            _ => Decision::NoNode(None),
        }
    }

    fn balance(&self, flow: &Flow<'_>, pool: &Arc<Pool>, tried: &[NodeId]) -> Decision {
        let assigned = self.recall(flow, pool, tried).or_else(|| {
            let mut h = DefaultHasher::new();
            flow.client.ip().hash(&mut h);
            let seed = Seed {
                client: h.finish(),
                random: flow.random,
            };
            let node = pool.pick(seed, tried)?.clone();
            Some(Assigned {
                node,
                pool: Some(pool.clone()),
                how: How::Balanced,
            })
        });
        let Some(assigned) = assigned else {
            return Decision::NoNode(Some(pool.clone()));
        };
        for p in &self.plugins {
            p.learn(flow, pool.id, &assigned.facts());
        }
        Decision::Node(assigned)
    }

    /// The first recalled node that is in the pool and not Down: a Draining one keeps its clients.
    fn recall(&self, flow: &Flow<'_>, pool: &Arc<Pool>, tried: &[NodeId]) -> Option<Assigned> {
        self.plugins.iter().find_map(|p| {
            let recalled = p.recall(flow, pool.id)?;
            let node = pool.node(recalled.node)?;
            if node.state() == State::Down || tried.contains(&node.id) {
                return None;
            }
            let how = How::Recalled {
                by: p.name(),
                age: recalled.age,
            };
            Some(Assigned {
                node: node.clone(),
                pool: Some(pool.clone()),
                how,
            })
        })
    }

    /// Tells the plugins that a flow they learned has ended.
    pub fn ended(&self, client: std::net::IpAddr, pool: PoolId) {
        let now = std::time::Instant::now();
        for p in &self.plugins {
            p.ended(client, pool, now);
        }
    }
}
