//! Cuts flows whose assignment has reached `max_age`, if `cut_at_max_age` is set.
//!
//! In: time. Out: flows closed; no flow has a timer of its own. Source: Lightstreamer
//! clustering §4; FAULTS D49.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Running;

/// Pause between two checks: a flow is cut at most this late.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Checks all nodes, removed ones too, until the process ends.
pub async fn watch(running: Arc<Running>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let listed = running.listed();
        listed.iter().for_each(|l| l.node.flows.cut_expired(now));
    }
}
