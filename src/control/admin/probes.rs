//! Answers balancers and collectors: whether the process lives, whether it is ready, metrics.
//!
//! In: the running proxy. Out: a word, or the metrics as Prometheus reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::shared::Admin;
use crate::control::rebalance;
use crate::observe::metrics as observed;

/// Paths that need no token, because a balancer has none to send. `/healthz` is older and keeps its guard.
pub(super) const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// Handles `GET /livez` and `GET /healthz`.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Handles `GET /metrics`.
pub(super) async fn metrics(Shared(admin): Shared<Arc<Admin>>) -> Response {
    let m = observed::get();
    // Removes certificates that are no longer configured.
    m.not_after.reset();
    m.certificate_warnings.reset();
    // Of a keystore with several keys the first end counts.
    let mut ends = BTreeMap::new();
    for one in admin.running.certificates() {
        let end = ends.entry(one.name.clone()).or_insert(one.not_after);
        *end = one.not_after.min(*end);
        for warning in &one.warnings {
            let labels = [one.name.as_str(), warning.as_str()];
            m.certificate_warnings.with_label_values(&labels).set(1);
        }
    }
    for (name, end) in ends {
        m.not_after.with_label_values(&[&name]).set(end);
    }
    m.evenness.reset();
    for pool in admin.running.pools().values() {
        m.queued
            .with_label_values(&[&pool.name])
            .set(pool.waiting.len() as i64);
        m.evenness
            .with_label_values(&[&pool.name])
            .set(rebalance::evenness(pool));
    }
    admin.measure_nodes();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        m.text(),
    )
        .into_response()
}

/// Handles `GET /readyz`.
pub(super) async fn ready(Shared(admin): Shared<Arc<Admin>>) -> Response {
    match admin.running.unready() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
