//! Rebalances of a pool by the API: begin one, show its progress, cancel it. And the order that forgets.
//!
//! In: a query, or a small JSON body. Out: progress as JSON, or what a dry run would move.
//! Source: Lightstreamer clustering §5.1.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pushgate_plugins::api::PoolId;

use super::shared::Admin;
use crate::control::rebalance::{OrderedBy, RebalanceError, RebalanceRequest};

/// Handles `POST /api/pools/NAME/rebalance`.
pub(super) async fn begin(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Response {
    let pools = admin.running.pools();
    let conf = pools.get(&PoolId::of(&pool)).map(|p| p.rebalance);
    let (here, query): (Vec<_>, Vec<_>) = query.into_iter().partition(|(key, _)| key == "here");
    let here = here
        .iter()
        .any(|(_, value)| matches!(value.as_str(), "" | "true"));
    let (running, by) = (&admin.running, OrderedBy::Operator);
    let begun = match RebalanceRequest::read(&query, &body, &conf.unwrap_or_default()) {
        Ok(ask) if here => running.rebalance(&pool, ask, by),
        Ok(ask) => running.rebalance_site(&pool, ask, by).await,
        Err(why) => Err(RebalanceError::Senseless(why)),
    };
    match begun {
        Ok(progress) => (StatusCode::ACCEPTED, Json(progress)).into_response(),
        Err(e) => refused(e),
    }
}

fn refused(e: RebalanceError) -> Response {
    let (status, said) = match e {
        RebalanceError::Unknown(said) => (StatusCode::NOT_FOUND, said),
        RebalanceError::Busy => (StatusCode::CONFLICT, "a rebalance is running".into()),
        RebalanceError::Senseless(said) => (StatusCode::BAD_REQUEST, said),
    };
    (status, format!("{said}\n")).into_response()
}

/// Handles `POST /api/pools/NAME/forget`.
pub(super) async fn forget(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let (mut node, mut before, mut here) = (None, None, None);
    for (key, value) in &query {
        match key.as_str() {
            "node" if node.is_none() => node = Some(value.as_str()),
            "before" if before.is_none() => match value.parse() {
                Ok(seconds) => before = Some(seconds),
                Err(_) => {
                    let said = format!("before: found `{value}`; expected seconds since 1970");
                    return refused(RebalanceError::Senseless(said));
                }
            },
            "here" if here.is_none() => here = Some(matches!(value.as_str(), "" | "true")),
            "node" | "before" | "here" => {
                return refused(RebalanceError::Senseless(format!("`{key}` is given twice")));
            }
            _ => {
                let said = format!("unknown `{key}`; expected `node`, `before` or `here`");
                return refused(RebalanceError::Senseless(said));
            }
        }
    }
    let here = here.unwrap_or_default();
    match admin.running.forget(&pool, node, before, here).await {
        Ok(done) => Json(done).into_response(),
        Err(e) => refused(e),
    }
}

/// Handles `GET /api/pools/NAME/rebalance`.
pub(super) async fn progress(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
) -> Response {
    match admin.running.rebalance_progress(&pool) {
        Some(progress) => Json(progress).into_response(),
        None => (StatusCode::NOT_FOUND, "no rebalance of this pool yet\n").into_response(),
    }
}

/// Handles `POST /api/pools/NAME/rebalance/cancel`.
pub(super) async fn cancel(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
) -> Response {
    let running = &admin.running;
    if !running.cancel_rebalance(&pool) && !running.cancel_site_rebalance(&pool).await {
        return (StatusCode::CONFLICT, "no rebalance is running\n").into_response();
    }
    progress(Shared(admin), Path(pool)).await
}
