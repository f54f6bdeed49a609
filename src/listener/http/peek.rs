//! Reads the beginning of a request's body before the request is routed, where a plugin asked for it.
//!
//! In: a request with a short body of known length. Out: its first bytes. They go on to the node as
//! every body does: Pingora keeps what it reads for a retry, and the first try begins with it.
//! A body that does not come in time is routed without. Source: FAULTS D52.

use http::header;
use pingora::{Error, Result};
use pingora_proxy::Session;
use pushgate_plugins::api::BODY_PREFIX;

use crate::config::defaults;
use crate::listener::exchange::Exchange;

/// Longest body that is looked into: what Pingora keeps for a retry. A longer one is no form.
const MAX_BODY: u64 = 64 * 1024;

/// Whether a plugin wants the body and it can be had.
pub(super) fn is_wanted(session: &Session, ex: &Exchange) -> bool {
    let head = session.req_header();
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    // Who expects a 100 sends nothing before the node has said so.
    if !length.is_some_and(|n| (1..=MAX_BODY).contains(&n))
        || head.headers.contains_key(header::EXPECT)
    {
        return false;
    }
    let (host, random) = {
        let record = ex.record.lock();
        (record.line.host().to_owned(), record.random)
    };
    ex.table.wants_body(&ex.facts(&host, Some(head), random))
}

/// The first [`BODY_PREFIX`] bytes, or fewer where the body ends or `body_timeout` passes before.
///
/// Errors: the client broke off, or the body is not legal.
pub(super) async fn first_bytes(session: &mut Session) -> Result<Vec<u8>> {
    let session = session.as_downstream_mut();
    session.enable_retry_buffering();
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < BODY_PREFIX {
            match session.read_request_body().await? {
                Some(part) => bytes.extend_from_slice(&part),
                None => break,
            }
        }
        Ok::<(), Box<Error>>(())
    };
    // Reading is safe to give up: what has come is in Pingora's buffer, what has not is unread.
    if let Ok(failed @ Err(_)) = tokio::time::timeout(defaults::BODY_PREFIX_TIMEOUT.0, read).await {
        failed?;
    }
    bytes.truncate(BODY_PREFIX);
    Ok(bytes)
}
