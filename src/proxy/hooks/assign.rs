//! Chooses the node of a request, and another one after a failure.
//!
//! In: the exchange. Out: an assignment, entered at its node, or why there is none.
//! Source: Lightstreamer clustering §1, §2.1; RFC 9110 §9.2.2; FAULTS D59, D63.

use std::sync::Arc;

use http::StatusCode;
use pingora::{Error, ErrorType, Result};

use super::context::Ctx;
use crate::balance::Pool;
use crate::config::{NoNode, OnLost};
use crate::observe::end_reason::EndReason;
use crate::proxy::assign::{self, ClientLeft};
use crate::proxy::claim;
use crate::proxy::flow::Exchange;
use crate::proxy::request_line::RequestLine;
use crate::route::{Assigned, Decision};

/// Chooses a node for the request, and enters the request there. If all nodes are at their limits, the
/// request waits in the queue; see [`assign::wait`].
///
/// Errors: the client left while the request waited.
pub async fn decide_in_time(ctx: &Ctx) -> Result<Decision> {
    if is_misdirected(&ctx.ex, ctx.ex.record.lock().line.host()) {
        return Ok(Decision::Refuse(StatusCode::MISDIRECTED_REQUEST));
    }
    let head = ctx.head()?;
    // The exchange watches the client meanwhile.
    let decided = claim::decide(&ctx.ex, Some(&head), std::future::pending()).await;
    match decided.map_err(|ClientLeft| left("while the other edges were asked"))? {
        // Boxed: few requests wait, but every future would have room for the wait.
        Decision::Wait(pool) => Box::pin(wait(ctx, pool)).await,
        decision => Ok(decision),
    }
}

/// Waits in the queue of `pool`. The exchange watches the client meanwhile.
async fn wait(ctx: &Ctx, pool: Arc<Pool>) -> Result<Decision> {
    let head = ctx.head()?;
    let waited = assign::wait(&ctx.ex, Some(&head), pool, std::future::pending()).await;
    waited.map_err(|ClientLeft| left("the queue"))
}

fn left(what: &str) -> Box<Error> {
    Error::explain(
        ErrorType::ConnectionClosed,
        format!("the client left {what}"),
    )
    .into_down()
}

/// Whether the client should repeat the request on a new connection (RFC 9110 §15.5.20). That is so if the
/// host has a route, but the certificate of this connection does not cover it. If a wildcard covers two
/// hosts, browsers send both over one connection, and each request is routed by its own host.
fn is_misdirected(ex: &Exchange, host: &str) -> bool {
    let address = || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    ex.conn
        .tls
        .as_ref()
        .is_some_and(|tls| !tls.covers(host) && address().is_err() && ex.table.routes_host(host))
}

/// Returns the node of a request: the node that was chosen, or another one after a failed try.
///
/// Errors: the client has left; 503 if no other node can take the request.
pub async fn next_node(ctx: &mut Ctx) -> Result<Assigned> {
    if let Some(assigned) = ctx.decided.take() {
        return Ok(assigned);
    }
    // The failure of a stale idle upstream does not count against its node.
    if !ctx.reused || ctx.ex.flow.is_evicted() {
        let mut record = ctx.ex.record.lock();
        if let Some(node) = record.assigned.as_ref().map(|a| a.node.id) {
            record.failed_at(node);
        }
    }
    ctx.ex.leave();
    ctx.ex.flow.retry();
    match decide_in_time(ctx).await? {
        Decision::Node(assigned) => Ok(assigned),
        _ => Err(Error::explain(
            ErrorType::HTTPStatus(503),
            "no other node takes the request",
        )),
    }
}

/// Returns the node, the request line and the random number of an exchange that has a node.
///
/// Errors: the exchange has no node.
pub fn known(ctx: &Ctx) -> Result<(Assigned, RequestLine, u64)> {
    let record = ctx.ex.record.lock();
    match &record.assigned {
        Some(assigned) => Ok((assigned.clone(), record.line.clone(), record.random)),
        None => Err(Error::explain(
            ErrorType::InternalError,
            "the exchange has no node",
        )),
    }
}

/// Reports to the node that the flow broke there before an answer.
pub fn broke(ctx: &Ctx) {
    let assigned = ctx.ex.record.lock().assigned.clone();
    if let Some(assigned) = assigned {
        assigned
            .node
            .passive_health
            .broke(ctx.ex.counted_as(ctx.head.as_deref()));
    }
}

/// Whether another node may be tried after a failed connect, by `retries` of the pool.
pub fn may_try_another(ctx: &Ctx) -> bool {
    let record = ctx.ex.record.lock();
    let pool = record.assigned.as_ref().and_then(|a| a.pool.as_ref());
    record.retries < pool.map_or(0, |p| p.retries as usize)
}

/// Whether a request that was sent and not answered may be sent again. It may if its idle upstream was stale,
/// or if `retry_unanswered` of the pool allows one more. Counts the try.
pub fn may_repeat(ctx: &Ctx) -> bool {
    let (stale, evicted) = (ctx.reused, ctx.ex.flow.is_evicted());
    // A node that answers illegally has had the request. But on an idle upstream the illegal bytes may belong
    // behind the node's previous answer.
    if !is_repeatable(ctx) || (ctx.ex.flow.is_bad_answer() && !stale) {
        return false;
    }
    if stale && !evicted {
        return true;
    }
    let mut record = ctx.ex.record.lock();
    let pool = record.assigned.as_ref().and_then(|a| a.pool.as_ref());
    let most = pool.map_or(0, |p| p.retry_unanswered);
    let tries = record.tries();
    tries.unanswered += 1;
    tries.unanswered <= most
}

/// Whether sending the request twice does no harm. So it is if its method is idempotent (RFC 9110 §9.2.2), or
/// if `retry_on` of its pool names its path.
pub fn is_repeatable(ctx: &Ctx) -> bool {
    let Some(head) = &ctx.head else { return false };
    let method = http::Method::from_bytes(head.method().as_bytes());
    if method.is_ok_and(|m| m.is_idempotent()) {
        return true;
    }
    let record = ctx.ex.record.lock();
    let pool = record.assigned.as_ref().and_then(|a| a.pool.as_ref());
    pool.is_some_and(|p| p.retry_on.iter().any(|path| path == head.path()))
}

/// Whether a client whose request failed for `reason` gets no answer: its connection or stream ends instead.
/// `on_lost` decides for a node that was lost, `no_node` for nodes that cannot be connected.
pub fn hangs_up(ctx: &Ctx, reason: EndReason) -> bool {
    let record = ctx.ex.record.lock();
    let pool = record.assigned.as_ref().and_then(|a| a.pool.as_ref());
    match reason {
        EndReason::NodeFailed | EndReason::Evicted => {
            // A stale idle upstream does not mean a lost node. The client repeats the request, which the edge
            // may not.
            let stale = ctx.reused && reason == EndReason::NodeFailed;
            stale || pool.map_or(OnLost::default(), |p| p.on_lost) == OnLost::Close
        }
        EndReason::NodeUnreachable | EndReason::Exhausted => {
            pool.is_some_and(|p| p.no_node == NoNode::Close)
        }
        _ => false,
    }
}
