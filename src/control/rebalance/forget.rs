//! Forgets the assignments of a pool, or of one of its nodes, by an operator's order.
//!
//! In: a pool, maybe a node, maybe a moment. Out: a rule that every stickiness plugin obeys, and that the next
//! process takes over. Live flows go on; the next flow of each client is balanced anew.
//! Source: Lightstreamer clustering §5.1.

use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{Forget, NodeId, PoolId, unix_seconds};
use serde_json::{Value, json};

use super::{RebalanceError, TICK, moment};
use crate::clock;
use crate::control::Running;
use crate::control::site::order::{Subject, What};

impl Running {
    /// Forgets the assignments of `pool`, to `node` or to all its nodes, that were made before a second since
    /// 1970; the default is the next second, for which the order waits. So no client is moved twice. `here`: only this
    /// edge forgets them.
    ///
    /// Errors: an unknown pool or node, or a moment in the future.
    pub async fn forget(
        self: &Arc<Self>,
        pool: &str,
        node: Option<&str>,
        before: Option<u64>,
        here: bool,
    ) -> Result<Value, RebalanceError> {
        let pools = self.pools();
        let unknown = || RebalanceError::Unknown(format!("no pool `{pool}`"));
        let of = pools.get(&PoolId::of(pool)).ok_or_else(unknown)?;
        if let Some(name) = node
            && !of.nodes.iter().any(|n| n.name == name)
        {
            let unknown = format!("no node `{name}` in pool `{pool}`");
            return Err(RebalanceError::Unknown(unknown));
        }
        let (before, _) = moment(before, clock::date(), Instant::now())?;
        let subject = Subject::Assignments {
            pool: of.name.clone(),
            node: node.map(str::to_owned),
            before,
        };
        let what = What::Forget {
            share: 1.0,
            spares_live: false,
        };
        let to = node.map_or(String::new(), |node| format!(" to node {node}"));
        log::warn!("pool {pool}: assignments{to} made before {before} are forgotten by order");
        // Told at once: each edge waits for the moment by its own date.
        let given = self.give(subject, what, here).await;
        while unix_seconds(clock::date()) < before {
            tokio::time::sleep(TICK).await;
        }
        // Here by now, although the task that waits for the moment may run a little later.
        self.forget_by(&Forget {
            pool: of.id,
            node: node.map(NodeId::of),
            before,
            share: 1.0,
            spares_live: false,
        });
        let mut done = json!({ "pool": pool, "node": node, "before": before });
        if let Some(site) = given.shown() {
            done["site"] = site.into();
        }
        Ok(done)
    }
}
