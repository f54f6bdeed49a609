//! What the proxy says itself: why a request failed, and the answer the client gets for it.
//!
//! Source: RFC 9110 §15; FAULTS D59, D62, D64.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Ctx;
use crate::balance::Pool;
use crate::config::{NoNode, defaults};
use crate::listener::exchange::Reason;
use crate::observe::metrics;

/// Why a request failed, and the status it gets; 0: the client is gone.
pub(super) fn diagnose(e: &Error, ctx: &Ctx) -> (Reason, u16) {
    use ErrorType::{BindError, ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout};
    if ctx.ex.conn.bad_body.load(Ordering::Acquire) {
        return (Reason::BadRequest, 400);
    }
    match (e.etype(), e.esource()) {
        (ErrorType::HTTPStatus(400), _) => (Reason::BadRequest, 400),
        // Nobody is left to try: what the last one failed of is what the client should know.
        (ErrorType::HTTPStatus(503), _) => {
            let failed = ctx.ex.record.lock().tries().failed;
            failed.unwrap_or((Reason::NoNode, 503))
        }
        (ErrorType::HTTPStatus(s), _) => (Reason::Internal, *s),
        _ if ctx.ex.flow.is_evicted() => (Reason::Evicted, 502),
        // Of our own connector: no node is at fault, and there may be room again soon.
        (BindError | ErrorType::SocketError, _) => (Reason::Exhausted, 503),
        (ConnectTimedout, _) => (Reason::NodeUnreachable, 504),
        (ConnectRefused | ConnectError | ConnectNoRoute, _) => (Reason::NodeUnreachable, 502),
        (_, ErrorSource::Upstream) if ctx.ex.flow.is_bad_answer() => (Reason::BadAnswer, 502),
        (ErrorType::InvalidHTTPHeader, ErrorSource::Upstream) => (Reason::BadAnswer, 502),
        (_, ErrorSource::Upstream) => (Reason::NodeFailed, 502),
        (ErrorType::WriteError | ErrorType::ReadError, ErrorSource::Downstream) => {
            (Reason::ClientFailed, 0)
        }
        (ErrorType::ConnectionClosed, ErrorSource::Downstream) => (Reason::ClientClosed, 0),
        // HTTP/2: a cause is what became of the connection; without one the client reset the stream.
        (ErrorType::H2Error, ErrorSource::Downstream) => match e.cause {
            Some(_) => (Reason::ClientFailed, 0),
            None => (Reason::ClientClosed, 0),
        },
        (_, ErrorSource::Downstream) => (Reason::BadRequest, 400),
        _ => (Reason::Internal, 500),
    }
}

/// When to come back: with jitter, at least over `spread`, because the clients of a dead node must not
/// return in one wave, and those of a full queue not before it is shorter.
pub(super) fn retry_after(spread: Duration) -> Option<(header::HeaderName, HeaderValue)> {
    let seconds = defaults::RETRY_AFTER.0.as_secs();
    let jitter = fastrand::u64(0..=seconds.max(spread.as_secs()));
    Some((header::RETRY_AFTER, HeaderValue::from(seconds + jitter)))
}

/// Answers, or closes, as the pool says where no node takes the flow.
pub(super) async fn unavailable(
    session: &mut Session,
    ctx: &Ctx,
    reason: Reason,
    pool: Option<Arc<Pool>>,
) -> Result<bool> {
    ctx.ex.ended(reason);
    if pool.as_ref().is_some_and(|p| p.no_node == NoNode::Close) {
        session.set_keepalive(None);
        return Ok(true);
    }
    // Twice the time the queue needs: meanwhile others come, too.
    let spread = pool.map_or(Duration::ZERO, |p| 2 * p.backlog());
    let later = retry_after(spread);
    answer(session, ctx, StatusCode::SERVICE_UNAVAILABLE, later).await
}

/// Answers by ourselves, with a body of one line. Always `Ok(true)`: the request is over.
pub(super) async fn answer(
    session: &mut Session,
    ctx: &Ctx,
    status: StatusCode,
    extra: Option<(header::HeaderName, HeaderValue)>,
) -> Result<bool> {
    ctx.ex.record.lock().status = status.as_u16();
    let listener = ctx.ex.conn.listener.name.as_str();
    metrics::get()
        .answered
        .with_label_values(&[listener, status.as_str()])
        .inc();
    let body = format!(
        "{} {}\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error")
    );
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some((name, value)) = extra {
        head.insert_header(name, value)?;
    }
    let is_head = session.req_header().method == http::Method::HEAD;
    // A client that is gone already is no error of ours.
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
