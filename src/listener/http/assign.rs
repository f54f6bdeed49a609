//! Gets a request its node, and another one after a failure.
//!
//! In: the exchange. Out: an assignment, entered into its node, or why there is none.
//! Source: Lightstreamer clustering §2.1; FAULTS D59, D63.

use std::sync::atomic::Ordering;

use http::StatusCode;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Ctx;
use crate::listener::assign;
use crate::listener::exchange::{Exchange, Record};
use crate::route::{Assigned, Decision};

/// Decides where the request goes and enters it there, in its turn where others wait; see
/// [`assign::in_time`].
pub(super) async fn decide_in_time(session: &mut Session, ctx: &Ctx) -> Decision {
    if is_misdirected(&ctx.ex, ctx.ex.record.lock().line.host()) {
        return Decision::Refuse(StatusCode::MISDIRECTED_REQUEST);
    }
    // Moved in: a session may be lent to another thread, but not shared with it.
    let decide = move |in_turn| assign::decide(&ctx.ex, Some(session.req_header()), in_turn);
    assign::in_time(&ctx.ex, decide).await
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
    match decide_in_time(session, ctx).await {
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
