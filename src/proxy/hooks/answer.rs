//! Diagnoses why a request failed, and writes answers of our own.
//!
//! In: a Pingora error, or a status. Out: an end reason and a status; an answer in Pingora's session.
//! Source: RFC 9110 §15; FAULTS D59, D62, D64.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Ctx;
use crate::balance::Pool;
use crate::config::{NoNode, defaults};
use crate::observe::end_reason::EndReason;
use crate::observe::metrics;

/// Returns the end reason of a failed hook, and the status for the client; 0: the client has left.
pub fn diagnose(e: &Error, ctx: &Ctx) -> (EndReason, u16) {
    match e.etype() {
        ErrorType::HTTPStatus(400) => (EndReason::BadRequest, 400),
        // No other node is left, so the client gets the status of the last failure.
        ErrorType::HTTPStatus(503) => {
            let failed = ctx.ex.record.lock().tries().failed;
            failed.unwrap_or((EndReason::NoNode, 503))
        }
        ErrorType::HTTPStatus(s) => (EndReason::Internal, *s),
        ErrorType::ConnectionClosed => (EndReason::ClientClosed, 0),
        _ => (EndReason::Internal, 500),
    }
}

/// Makes a `Retry-After` with jitter over at least `spread`. The clients of a dead node must not return in
/// one wave. The clients of a full queue must not return before it is shorter.
pub fn retry_after(spread: Duration) -> Option<(header::HeaderName, HeaderValue)> {
    let seconds = defaults::RETRY_AFTER.0.as_secs();
    let jitter = fastrand::u64(0..=seconds.max(spread.as_secs()));
    Some((header::RETRY_AFTER, HeaderValue::from(seconds + jitter)))
}

/// Answers 503 or closes, as `no_node` of the pool says, because no node takes the flow.
pub async fn unavailable(
    session: &mut Session,
    ctx: &mut Ctx,
    reason: EndReason,
    pool: Option<Arc<Pool>>,
) -> Result<bool> {
    ctx.ex.ended(reason);
    if pool.as_ref().is_some_and(|p| p.no_node == NoNode::Close) {
        ctx.close = true;
        return Ok(true);
    }
    // Twice the time the queue needs, because more clients arrive meanwhile.
    let spread = pool.map_or(Duration::ZERO, |p| 2 * p.backlog());
    let later = retry_after(spread);
    answer(session, ctx, StatusCode::SERVICE_UNAVAILABLE, later).await
}

/// Answers 429 because the client has as many live flows as it may.
pub async fn too_many(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    ctx.ex.ended(EndReason::ClientLimit);
    let later = retry_after(Duration::ZERO);
    answer(session, ctx, StatusCode::TOO_MANY_REQUESTS, later).await
}

/// Answers an authority that asks whether a name leads here (RFC 8555 §8.3).
pub async fn proof_of_name(session: &mut Session, ctx: &Ctx, proof: String) -> Result<bool> {
    write(session, ctx, (StatusCode::OK, proof), None).await
}

/// Writes an answer of our own, with a body of one line. Always returns `Ok(true)`: the request is over.
pub async fn answer(
    session: &mut Session,
    ctx: &Ctx,
    status: StatusCode,
    extra: Option<(header::HeaderName, HeaderValue)>,
) -> Result<bool> {
    let phrase = status.canonical_reason().unwrap_or("Error");
    let body = format!("{} {phrase}\n", status.as_u16());
    write(session, ctx, (status, body), extra).await
}

async fn write(
    session: &mut Session,
    ctx: &Ctx,
    (status, body): (StatusCode, String),
    extra: Option<(header::HeaderName, HeaderValue)>,
) -> Result<bool> {
    ctx.ex.record.lock().status = status.as_u16();
    let listener = ctx.ex.conn.listener.name.as_str();
    metrics::get()
        .answered
        .with_label_values(&[listener, status.as_str()])
        .inc();
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some((name, value)) = extra {
        head.insert_header(name, value)?;
    }
    let is_head = ctx.head.as_ref().is_some_and(|h| h.method() == "HEAD");
    // The client may have left. That is no error of ours.
    if session
        .write_response_header(Box::new(head), is_head)
        .await
        .is_ok()
        && !is_head
    {
        let _ = session
            .write_response_body(Some(Bytes::from(body)), true)
            .await;
    }
    Ok(true)
}
