//! Forgets the assignments of a pool, or of one of its nodes, by an operator's order.
//!
//! In: a pool, maybe a node, maybe a moment. Out: a rule that every stickiness plugin obeys, and that the next
//! process takes over. Live flows go on; the next flow of each client is balanced anew.
//! Source: Lightstreamer clustering §5.1.

use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{Forget, PoolId, unix_seconds};
use serde_json::{Value, json};

use super::{RebalanceError, TICK, moment};
use crate::clock;
use crate::control::Running;

impl Running {
    /// Forgets the assignments of `pool`, to `node` or to all its nodes, that were made before a second since
    /// 1970; the default is the next second, for which the order waits. So no client is moved twice.
    ///
    /// Errors: an unknown pool or node, or a moment in the future.
    pub async fn forget(
        self: &Arc<Self>,
        pool: &str,
        node: Option<&str>,
        before: Option<u64>,
    ) -> Result<Value, RebalanceError> {
        let pools = self.pools();
        let unknown = || RebalanceError::Unknown(format!("no pool `{pool}`"));
        let of = pools.get(&PoolId::of(pool)).ok_or_else(unknown)?;
        let id = match node {
            None => None,
            Some(name) => {
                let found = of.nodes.iter().find(|n| n.name == name);
                let unknown = || format!("no node `{name}` in pool `{pool}`");
                Some(found.ok_or_else(|| RebalanceError::Unknown(unknown()))?.id)
            }
        };
        let (before, _) = moment(before, clock::date(), Instant::now())?;
        let what = Forget {
            pool: of.id,
            node: id,
            before,
            share: 1.0,
            spares_live: false,
        };
        let running = self.clone();
        // A task of its own: the order stands even if its client does not wait.
        let order = tokio::spawn(async move {
            // The date may run slower than time, so the order waits for the date.
            while unix_seconds(clock::date()) < before {
                tokio::time::sleep(TICK).await;
            }
            running.forget_by(&what);
        });
        let to = node.map_or(String::new(), |node| format!(" to node {node}"));
        log::warn!("pool {pool}: assignments{to} made before {before} are forgotten by order");
        // The task neither panics nor is aborted, but for the end of the process.
        let _ = order.await;
        Ok(json!({ "pool": pool, "node": node, "before": before }))
    }
}
