//! Shows the edges of the site: who is there, since when, with which version and configuration; and the orders that
//! hold.
//!
//! In: the reports of the other edges. Out: JSON. Source: issue 16 §4.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use super::shared::Admin;
use crate::control::site::counts::here;
use crate::control::site::edge_report::EdgeReport;
use crate::control::site::site_state::warnings;
use crate::site::Status;

/// Handles `GET /api/edges`.
pub(super) async fn all(Shared(admin): Shared<Arc<Admin>>) -> Json<Value> {
    Json(admin.edges())
}

/// Returns the state of the store, as the API shows it.
fn shown(status: &Status) -> Value {
    json!({ "state": status.state.as_str(), "seconds": status.since.elapsed().as_secs(), "why": status.why })
}

impl Admin {
    /// Returns this edge and the others that live, by name; and the orders of nodes that hold here.
    pub(super) fn edges(&self) -> Value {
        let running = &self.running;
        let site = &running.site;
        let own = site.report(
            running.shown_addresses(),
            running.is_leaving(),
            here(&running.nodes()),
        );
        let (others, ago) = site.others(Instant::now());
        let mut edges: Vec<(Value, EdgeReport)> = others
            .into_iter()
            .map(|other| (warnings(&own, &other).into(), other))
            .collect();
        edges.push((Value::Array(Vec::new()), own));
        edges.sort_by(|(_, a), (_, b)| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let one = |(warnings, edge): &(Value, EdgeReport)| {
            json!({
                "name": edge.name, "id": edge.id, "here": edge.id == site.id, "addresses": edge.addresses,
                "since": edge.since, "version": edge.version, "configuration": edge.configuration,
                "draining": edge.draining, "flows": edge.flows(), "warnings": warnings,
            })
        };
        json!({
            "edge": site.name, "store": running.store.as_ref().map(|store| shown(&store.status())),
            "heard_seconds": ago.map(|ago| ago.as_secs()),
            "edges": edges.iter().map(one).collect::<Value>(), "orders": site.orders(),
        })
    }
}
