//! Shows the operator after how much silence connections were lost.
//!
//! In: the losses of this process. Out: JSON, with a sentence that names a device's limit and the keep-alive that
//! prevents the losses.

use std::time::Duration;

use axum::Json;
use serde_json::{Value, json};

use crate::observe::silence::{self, Peak, Report};

/// Handles `GET /api/silence`.
pub(super) async fn all() -> Json<Value> {
    let seconds = |span: Duration| span.as_secs();
    let peak = |p: Peak| {
        json!({
            "from_seconds": seconds(p.from), "to_seconds": seconds(p.to), "losses": p.losses,
            "keepalive_seconds": seconds(p.keepalive()),
        })
    };
    let one = |r: &Report| {
        json!({
            "listener": r.listener, "peer": r.peer, "losses": r.total, "after_silence": r.long,
            "keepalive_seconds": seconds(r.keepalive), "peak": r.peak.map(peak), "advice": r.advice(),
        })
    };
    Json(silence::report().iter().map(one).collect())
}
