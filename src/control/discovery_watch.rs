//! Applies DNS answers to the running pools.
//!
//! In: DNS answers that changed, nodes that left and have no flows. Out: the running pools with the nodes that
//! DNS names now. Source: FAULTS D66.

use std::sync::Arc;
use std::time::Duration;

use pushgate_plugins::api::NodeId;

use crate::control::Running;

/// Pause between two checks of nodes that left their answer: an empty one is removed at most this late.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause after a change that could not be put in force.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Puts changes in force until the process ends.
pub async fn watch(running: Arc<Running>) {
    let mut failed = None;
    loop {
        let changed = tokio::select! {
            () = running.discovery.changed.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => look(&running),
        };
        if !changed {
            continue;
        }
        match running.rediscover().await {
            Ok(()) => failed = None,
            Err(e) => {
                if failed.as_ref() != Some(&e) {
                    log::error!(
                        "cannot apply discovered nodes, trying again every {TRY_AGAIN:?}: {e}"
                    );
                }
                failed = Some(e);
                tokio::time::sleep(TRY_AGAIN).await;
                running.discovery.changed.notify_one();
            }
        }
    }
}

/// Removes departed nodes without flows; true if a member of a pool was removed.
fn look(running: &Running) -> bool {
    let mut parts = running.parts();
    parts.sweep();
    let Some(config) = parts.config.clone() else {
        return false;
    };
    let live = |name: &str| {
        let checked = parts.nodes.get(&NodeId::of(name));
        checked.map_or(0, |c| c.node.live())
    };
    running.discovery.sweep(&config, live)
}
