//! Gets a request its node, and another one after a failure.
//!
//! In: the exchange. Out: an assignment, entered into its node, or why there is none.
//! Source: Lightstreamer clustering §2.1; FAULTS D59, D63.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Ctx;
use crate::balance::Pool;
use crate::listener::assign::{self, Gone};
use crate::listener::client_io::ClientIo;
use crate::listener::exchange::{Exchange, Record};
use crate::route::{Assigned, Decision};

/// Decides where the request goes and enters it there, in its turn where others wait; see
/// [`assign::wait`].
///
/// Errors: the client has left while it waited.
pub(super) async fn decide_in_time(session: &mut Session, ctx: &Ctx) -> Result<Decision> {
    if is_misdirected(&ctx.ex, ctx.ex.record.lock().line.host()) {
        return Ok(Decision::Refuse(StatusCode::MISDIRECTED_REQUEST));
    }
    match assign::decide(&ctx.ex, Some(session.req_header()), false) {
        // Boxed: few requests wait, and all would carry it.
        Decision::Wait(pool) => Box::pin(wait(session, ctx, pool)).await,
        decision => Ok(decision),
    }
}

async fn wait(session: &mut Session, ctx: &Ctx, pool: Arc<Pool>) -> Result<Decision> {
    // A copy: a session may be lent to another thread, but not shared with it.
    let head = session.req_header().clone();
    let waited = assign::wait(&ctx.ex, Some(&head), pool, left(session)).await;
    waited.map_err(|Gone| {
        Error::explain(ErrorType::ConnectionClosed, "the client left the queue").into_down()
    })
}

/// Waits until the client has left: its stream is reset, its connection ended. As everywhere at HTTP, one
/// that closes its sending half waits for no answer.
async fn left(session: &mut Session) {
    let session = session.as_downstream_mut();
    if let Some(reset) = session.watch_h2_stream_close() {
        // Both its reset and its connection's failure are an end.
        let _ = reset.await;
        return;
    }
    let stream = session.stream().map(|s| s.as_ref().as_any());
    match stream.and_then(|s| s.downcast_ref::<ClientIo>()) {
        Some(client) => client.ended().await,
        None => std::future::pending().await,
    }
}

/// Whether the client should ask over a connection of its own: the host has a route, but the
/// certificate this connection showed is not good for it (RFC 9110 §15.5.20). Under a wildcard that
/// covers both, browsers send two hosts over one connection and each request is routed by its own.
fn is_misdirected(ex: &Exchange, host: &str) -> bool {
    let address = || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    ex.conn
        .tls
        .as_ref()
        .is_some_and(|tls| !tls.covers(host) && address().is_err() && ex.table.routes_host(host))
}

/// Another try after a failed one: elsewhere, unless only an idle connection was stale.
pub(super) async fn again(session: &mut Session, ctx: &Ctx) -> Result<Assigned> {
    let stale = was_reused(ctx) && !ctx.ex.flow.is_evicted();
    if !stale {
        let mut record = ctx.ex.record.lock();
        if let Some(node) = record.assigned.as_ref().map(|a| a.node.id) {
            record.failed_at(node);
        }
    }
    ctx.ex.leave();
    ctx.ex.flow.retry();
    match decide_in_time(session, ctx).await? {
        Decision::Node(assigned) => Ok(assigned),
        _ => Err(Error::explain(ErrorType::HTTPStatus(503), "no other node")),
    }
}

pub(super) fn known(ctx: &Ctx) -> Result<(Assigned, String, u64)> {
    let record = ctx.ex.record.lock();
    match &record.assigned {
        Some(assigned) => Ok((
            assigned.clone(),
            record.line.host().to_owned(),
            record.random,
        )),
        None => Err(Error::explain(ErrorType::InternalError, "no node assigned")),
    }
}

pub(super) fn was_reused(ctx: &Ctx) -> bool {
    reused(&ctx.ex.record.lock())
}

fn reused(record: &Record) -> bool {
    let dialer = record.tries.as_ref().and_then(|t| t.dialer.as_ref());
    dialer.is_some_and(|d| d.reused.load(Ordering::Relaxed))
}

pub(super) fn may_try_another(ctx: &Ctx) -> bool {
    let record = ctx.ex.record.lock();
    let pool = record.assigned.as_ref().and_then(|a| a.pool.as_ref());
    let limit = pool.map_or(0, |p| p.retries as usize);
    record.retries < limit || (reused(&record) && !ctx.ex.flow.is_evicted())
}
