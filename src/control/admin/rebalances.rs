//! Rebalances of a pool by the API: begin one, show its progress, cancel it.
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
    let begun = match RebalanceRequest::read(&query, &body, &conf.unwrap_or_default()) {
        Ok(ask) => admin.running.rebalance(&pool, ask, OrderedBy::Operator),
        Err(why) => Err(RebalanceError::Senseless(why)),
    };
    let (status, said) = match begun {
        Ok(progress) => return (StatusCode::ACCEPTED, Json(progress)).into_response(),
        Err(RebalanceError::Unknown(said)) => (StatusCode::NOT_FOUND, said),
        Err(RebalanceError::Busy) => (StatusCode::CONFLICT, "a rebalance is running".into()),
        Err(RebalanceError::Senseless(said)) => (StatusCode::BAD_REQUEST, said),
    };
    (status, format!("{said}\n")).into_response()
}

/// Handles `GET /api/pools/NAME/rebalance`.
pub(super) async fn progress(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
) -> Response {
    match admin.running.last_rebalance(&pool) {
        Some(run) => Json(run.progress()).into_response(),
        None => (StatusCode::NOT_FOUND, "no rebalance of this pool yet\n").into_response(),
    }
}

/// Handles `POST /api/pools/NAME/rebalance/cancel`.
pub(super) async fn cancel(
    Shared(admin): Shared<Arc<Admin>>,
    Path(pool): Path<String>,
) -> Response {
    if !admin.running.cancel_rebalance(&pool) {
        return (StatusCode::CONFLICT, "no rebalance is running\n").into_response();
    }
    progress(Shared(admin), Path(pool)).await
}
